"""A command survives closed pipes, limited encodings and hang-ups without a traceback."""

import contextlib
import functools
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from trials import command

ROOT = Path(__file__).parents[2]
PRINTS = "import sys; from trials import command; sys.exit(command.run(lambda: print({text!r}) or 0))"


def ran(code: str, **options) -> subprocess.CompletedProcess[bytes]:
    return subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=False, stderr=subprocess.PIPE, **options)


def test_limited_encoding_gets_readable_characters():
    done = ran(PRINTS.format(text="≤ ± 日"), stdout=subprocess.PIPE, env={"PYTHONIOENCODING": "ascii"})
    assert (done.returncode, done.stdout) == (0, b"<= +- ?\n")


def test_full_disk_turns_success_into_failure():
    with Path("/dev/full").open("wb") as full:
        done = ran(PRINTS.format(text="x"), stdout=full)
    assert done.returncode == 1
    assert b"No space left on device" in done.stderr
    assert b"Traceback" not in done.stderr


def test_reader_that_left_is_no_failure():
    code = "import sys; from trials import command; sys.exit(command.run(lambda: [print('x' * 9999) for _ in range(99)] and 0))"
    process = subprocess.Popen([sys.executable, "-c", code], cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    process.stdout.close()
    assert process.stderr.read() == b""
    assert process.wait() == 0


def test_hang_up_interrupts_unless_it_is_ignored():
    code = (
        "import signal; from trials import command; print(command.ignored(signal.SIGHUP)); "
        "command.run(lambda: 0); signal.raise_signal(signal.SIGHUP)"
    )
    usual, ignoring = (
        # the tests themselves may run under nohup, which a child inherits
        ran(code, stdout=subprocess.PIPE, preexec_fn=functools.partial(signal.signal, signal.SIGHUP, action))
        for action in (signal.SIG_DFL, signal.SIG_IGN)
    )
    assert b"KeyboardInterrupt" in usual.stderr
    assert (ignoring.returncode, ignoring.stdout.strip()) == (0, b"True")


@pytest.mark.parametrize("ends", [lambda: 0, lambda: 1 / 0])
def test_process_is_a_command_only_while_one_runs(ends, monkeypatch):
    monkeypatch.setattr(command, "_hang_up_as_interrupts", lambda: None)  # pytest keeps its signals
    seen = []
    with contextlib.suppress(ZeroDivisionError):
        command.run(lambda: seen.append(command.running()) or ends())
    assert seen == [True]
    assert not command.running()
