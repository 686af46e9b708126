"""Terminals, limits, disks, signals and folder names around cheap commands: no traceback, no hang, the right exit code.

Commands run in a shell, which sets the situation up. Each has a hard limit of two minutes.
"""

import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import NamedTuple

import pytest
import yaml

from tests.factories.configs import CONFIG, deep
from tests.factories.worlds import Model, planned, run
from tests.fuzz import cases

ROOT = Path(__file__).parents[2]
_LIMIT = 120  # seconds
_COMMANDS = {"plan": "plan little.yaml --storage runs", "status": "status $SWEEP", "front": "front $SWEEP --format csv,md"}


class Situation(NamedTuple):
    """`before` is shell text that sets it up, `after` follows the command, `code` is its exit code."""

    before: str = ""
    after: str = ""
    command: str = "status"
    code: int = 0
    says: str = ""


_EVERYWHERE = {
    "ascii": Situation("export PYTHONIOENCODING=ascii"),
    "posix locale": Situation("export LC_ALL=POSIX PYTHONUTF8=0 PYTHONCOERCECLOCALE=0"),
    "latin-1": Situation("export PYTHONIOENCODING=latin-1"),
    "closed stdout": Situation(after=">&-"),
    "all closed": Situation(after="<&- >&- 2>&-"),
    "head": Situation(after="| head -1; exit ${PIPESTATUS[0]}"),
    "no reader": Situation(after="| true; exit ${PIPESTATUS[0]}"),
    "full output": Situation(after="> /dev/full", code=1, says="standard output: No space left"),
    "dumb and narrow": Situation("export TERM=dumb COLUMNS=20"),
    "no terminal type": Situation("unset TERM COLUMNS"),
    "64 files": Situation("ulimit -n 64"),
    "no home": Situation("export HOME=/nonexistent MPLCONFIGDIR=/nonexistent"),
    "hidden packages": Situation("mkdir -p trials analysis datasets torch optuna"),
    "empty path entry": Situation("mkdir -p trials; touch trials/__init__.py; export PYTHONPATH=:$PYTHONPATH"),
}
_PLACES = ["[v2]", "50%", "x%41y", "q?a=b", "{a,b}", "#x", "a b", "Ünï", "a$b"]
_ODD = {
    "undefined variable": Situation(command="status '$NOWHERE/x'", code=2, says="NOWHERE is not set"),
    "undefined braces": Situation(command="plan little.yaml --storage '${NOWHERE}'", code=2, says="NOWHERE is not set"),
    "undefined in a config's path": Situation(command="plan '$NOWHERE/c.yaml'", code=2, says="NOWHERE is not set"),
    "nobody's home": Situation(command="status '~nobody-of-this-name/x'", code=2, says="nobody's home"),
    "home": Situation('export HOME="$PWD"; ln -s "$SWEEP" mine', command="status '~/mine'"),
    "variable": Situation('export MINE="$SWEEP"', command="status '$MINE'"),
    "json is whole": Situation("export PYTHONIOENCODING=ascii", "| python3 -m json.tool > /dev/null", "status $SWEEP --json"),
    "modules of its libraries": Situation(
        "touch json.py rich.py yaml.py typing_extensions.py; mkdir typer; touch typer/__init__.py"
    ),
}


def _all() -> list[tuple[str, Situation]]:
    found = [
        (f"{name}, {which}", one._replace(command=line))
        for which, line in _COMMANDS.items()
        for name, one in _EVERYWHERE.items()
    ]
    found += [
        (f"in {name}", Situation(f"mkdir -p '{name}'; cp little.yaml '{name}'; cd '{name}'", command=_COMMANDS["plan"]))
        for name in _PLACES
    ]
    return found + [(name, one._replace(command=_COMMANDS.get(one.command, one.command))) for name, one in _ODD.items()]


@pytest.fixture(scope="module")
def swept(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a finished sweep, made without training."""
    storage = tmp_path_factory.mktemp("terminals")
    one = planned("q1", 1)
    run(one, lambda spec: Model(), storage, documents=20)
    return storage / one.config.name


@pytest.mark.parametrize("situation", cases(_all()))
def test_a_command_ends_as_it_should(swept: Path, tmp_path: Path, situation: Situation) -> None:
    ended = _shell(situation, swept, tmp_path)
    assert ended.returncode == situation.code, ended.stderr
    assert "Traceback" not in ended.stdout + ended.stderr
    assert situation.says in ended.stderr


def _shell(situation: Situation, swept: Path, folder: Path) -> subprocess.CompletedProcess[str]:
    (folder / "little.yaml").write_text(yaml.safe_dump(deep(CONFIG)))
    start = f"import sys; sys.path.append({str(ROOT)!r}); from orchestrator.cli import main; main()"
    line = f'{situation.before}\n{sys.executable} -P -c "{start}" {situation.command} {situation.after}'
    environment = {name: value for name, value in os.environ.items() if name != "NOWHERE"} | {"SWEEP": str(swept)}
    return subprocess.run(
        ["bash", "-c", line],
        cwd=folder,
        env=environment,
        capture_output=True,
        text=True,
        errors="replace",
        timeout=_LIMIT,
        check=False,
    )


_SIGNALLED = """
import os, signal, sys, time
from trials import command

{before}

def wait():
    os.kill(os.getpid(), {signum})
    time.sleep({seconds})
    return 0

try:
    sys.exit(command.run(wait))
except KeyboardInterrupt:
    sys.exit(130)
"""


@pytest.mark.parametrize("signum", [signal.SIGHUP, signal.SIGTERM, signal.SIGINT])
def test_a_signal_interrupts_a_command(signum: signal.Signals) -> None:
    # a shell's background job ignores SIGINT, and nohup SIGHUP: the test may be run by either
    handler = "default_int_handler" if signum == signal.SIGINT else "SIG_DFL"
    text = _SIGNALLED.format(signum=int(signum), seconds=60, before=f"signal.signal({int(signum)}, signal.{handler})")
    assert subprocess.run([sys.executable, "-c", text], cwd=ROOT, timeout=_LIMIT, check=False).returncode == 130


def test_an_ignored_hang_up_stays_ignored() -> None:
    text = _SIGNALLED.format(signum=int(signal.SIGHUP), seconds=0, before="")
    assert subprocess.run(["nohup", sys.executable, "-c", text], cwd=ROOT, timeout=_LIMIT, check=False).returncode == 0
