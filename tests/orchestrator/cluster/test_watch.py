"""The processes of a local Ray: when one dies, the command ends with the cause in one line."""

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterable
from pathlib import Path

import psutil
import pytest

from orchestrator.cluster import limits, watch
from orchestrator.cluster.watch import Watch, cause, child
from tests.factories.command import slimsweep
from tests.factories.ray_head import AUTHENTICATION, head
from trials.ledger.record import Ledger


@pytest.fixture
def interruptible():
    """SIGTERM interrupts, as in a command."""

    def interrupt(signum, frame):
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGTERM, interrupt)
    yield
    signal.signal(signal.SIGTERM, before)


def test_killed_process_interrupts_and_is_named(tmp_path, interruptible):
    found = Watch()
    with subprocess.Popen(["sleep", "60"]) as process:
        found.begin({"raylet": child(process)}, tmp_path)
        process.kill()
        with pytest.raises(KeyboardInterrupt):
            time.sleep(30)
        found.end()
    assert found.lost.startswith("Ray's raylet was killed by SIGKILL")
    assert str(tmp_path / "raylet.out") in found.lost


def test_death_after_the_end_is_ignored(tmp_path, interruptible):
    found = Watch()
    with subprocess.Popen(["sleep", "60"]) as process:
        found.begin({"raylet": child(process)}, tmp_path)
        found.end()
        process.kill()
        time.sleep(2 * watch._POLL)
    assert found.lost is None


_HANGS = """
import signal, subprocess, sys, time
from pathlib import Path
from orchestrator.cluster import watch
from trials import command
watch._UNWIND_SECONDS = 0.1
process = subprocess.Popen(["true"])
def hang():
    signal.signal(signal.SIGTERM, lambda *_: time.sleep(60))
    watch.Watch().begin({"gcs_server": watch.child(process)}, Path("/nowhere"))
    time.sleep(60)
    return 0
sys.exit(command.run(hang))
"""


def test_hanging_command_is_killed():
    ended = subprocess.run([sys.executable, "-c", _HANGS], capture_output=True, text=True, timeout=30, check=False)
    assert ended.returncode == 1
    assert len(ended.stderr.splitlines()) == 1
    assert "Ray's gcs_server ended with exit code 0" in ended.stderr


_NOTEBOOK = """
import signal, subprocess, sys, time
from pathlib import Path
from orchestrator.cluster import watch
watch._UNWIND_SECONDS = 0.1
process = subprocess.Popen(["true"])
assert signal.getsignal(signal.SIGTERM) == signal.SIG_DFL
signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's background job, and what it starts, ignores SIGINT
try:
    watch.Watch().begin({"gcs_server": watch.child(process)}, Path("/nowhere"))
    time.sleep(60)
except KeyboardInterrupt:
    time.sleep(1)
    print("the kernel lives")
"""


def test_users_own_program_is_interrupted_and_not_killed():
    ended = subprocess.run([sys.executable, "-c", _NOTEBOOK], capture_output=True, text=True, timeout=30, check=False)
    assert (ended.returncode, ended.stdout) == (0, "the kernel lives\n")
    assert "Ray's gcs_server ended with exit code 0" in ended.stderr


def test_sweep_of_another_thread_does_not_interrupt_the_main_one(tmp_path, interruptible, monkeypatch):
    monkeypatch.setattr(watch, "_UNWIND_SECONDS", 0.1)
    made: list[Watch] = []
    thread = threading.Thread(target=lambda: made.append(Watch()))
    thread.start()
    thread.join()
    with subprocess.Popen(["true"]) as process:
        made[0].begin({"raylet": child(process)}, tmp_path)
        time.sleep(3 * watch._POLL)
    assert made[0].lost.startswith("Ray's raylet ended")


def test_cause_names_memory_limits_and_the_logs_last_line(tmp_path, monkeypatch):
    (tmp_path / "raylet.err").write_text("[2026-01-01 00:00:00,1 C 7 7] (raylet) shared_memory.cc:46: mmap failed\n*** Stack\n")
    monkeypatch.setattr(limits, "low", lambda: "11718 MiB of memory (ulimit -v)")
    line = cause("raylet", "was killed by SIGKILL", out_of_memory=True, logs=tmp_path)
    for part in ("out of memory", "max_concurrent", "mmap failed", "ulimit -v", str(tmp_path)):
        assert part in line
    assert "\n" not in line and "Stack" not in line


_WAITS = 120  # seconds


def _killed_in_mid_sweep(line: list, runs: Path, victim: Callable[[int], psutil.Process]) -> tuple[int, str, str]:
    """Starts a command and kills a process of its Ray when the first trial is complete; its exit code, output and errors."""
    with subprocess.Popen(
        line, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=os.environ | AUTHENTICATION
    ) as command:
        deadline = time.monotonic() + _WAITS
        while time.monotonic() < deadline and not any(_complete(runs)):
            time.sleep(0.1)
        victim(command.pid).kill()
        out, errors = command.communicate(timeout=_WAITS)
    return command.returncode, out, errors


@pytest.fixture
def config(parts, write):
    """A sweep of five trials, one at a time."""
    parts["space"]["lora.rank"]["choices"] = [1, 2, 4, 8]
    parts["data"]["samples"] = 400
    parts["resources"]["max_concurrent"] = 1
    return write(parts)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["raylet", "gcs_server"])
def test_lost_ray_is_one_line_and_the_same_command_resumes(config, tmp_path, name):
    runs = tmp_path / "runs"
    line = [Path(sys.executable).parent / "slimsweep", "run", config, "--storage", runs, "--json"]
    code, out, errors = _killed_in_mid_sweep(line, runs, lambda command: _named(psutil.Process(command).children(), name))
    assert (code, out) == (1, "")
    assert "Traceback" not in errors
    assert f"Ray's {name} was killed by SIGKILL" in errors.splitlines()[-1]
    before = _complete(runs)
    again = slimsweep("run", config, "--storage", runs)
    assert again.returncode == 0, again.stderr
    after = _complete(runs)
    assert len(after) == 5 and all(after[key] == record for key, record in before.items())


@pytest.mark.slow
@pytest.mark.parametrize(("name", "end"), [("raylet", "ended"), ("gcs_server", "has not answered for 45 s")])
def test_lost_cluster_is_one_line(config, tmp_path, name, end):
    runs = tmp_path / "runs"
    with head(tmp_path) as cluster:
        line = [Path(sys.executable).parent / "slimsweep", "run", config, "--storage", runs, "--json"]
        started = [process for process in psutil.process_iter() if str(cluster.session) in " ".join(_command_line(process))]
        blocking = next(process for process in started if "--block" in _command_line(process))
        blocking.suspend()  # `ray start --block` ends a head's raylet when its GCS dies; a GCS elsewhere leaves it running
        try:
            code, out, errors = _killed_in_mid_sweep(
                [*line, "--address", cluster.address], runs, lambda command: _named(started, name)
            )
        finally:
            blocking.resume()
    assert (code, out) == (1, "")
    assert "Traceback" not in errors
    assert f"Ray's {name}" in errors.splitlines()[-1] and end in errors.splitlines()[-1]


def _complete(runs: Path) -> dict:
    if not (runs / "ledger").exists():
        return {}
    found = {key: Ledger(runs).read(key) for key in Ledger(runs)}
    return {key: record for key, record in found.items() if record is not None and record.state == "complete"}


def _named(processes: Iterable[psutil.Process], name: str) -> psutil.Process:
    return next(process for process in processes if process.name() == name)


def _command_line(process: psutil.Process) -> list[str]:
    try:
        return process.cmdline()
    except psutil.Error:
        return []
