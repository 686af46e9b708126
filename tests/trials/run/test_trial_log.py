"""The log of a trial: complete lines with a time, bounded, without secrets, whatever wrote them."""

import logging
import os
import re
import subprocess
import sys
import warnings
from pathlib import Path

import pytest

from trials.ledger.record import Ledger
from trials.run import trial_log
from trials.run.trial_log import Hooks, StandardError, TrialLog, secrets

ROOT = Path(__file__).parents[3]


def raising(call):
    call()


@pytest.fixture
def folder(place):
    return Ledger(place).folder("abc")


def opened(folder, environment=None) -> TrialLog:
    log = TrialLog(folder, raising, environment or {})
    log.open()
    return log


def lines(folder) -> list[str]:
    return [re.sub(r"^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d ", "", line) for line in trial_log.read(folder).splitlines()]


def test_second_attempt_appends_with_a_line_of_its_own(folder):
    for attempt in ("first", "second"):
        log = opened(folder)
        log.write(f"{attempt}\nattempt")
        log.publish()
        log.close()
    found = lines(folder)
    assert found[1:3] == ["first", "attempt"]
    assert found[0].startswith("==== the trial begins on ")
    assert found[3].startswith("==== another attempt on ")
    assert found[4:] == ["second", "attempt"]
    assert all(re.match(r"\d{4}-\d\d-\d\dT", line) for line in trial_log.read(folder).splitlines())


def test_local_log_needs_no_end_to_be_complete(tmp_path):
    log = opened(tmp_path / "ledger" / "abc")
    log.write("before the kill")
    assert lines(tmp_path / "ledger" / "abc")[-1] == "before the kill"
    log.close()


def test_secrets_and_control_characters_stay_out(folder):
    log = opened(folder, {"MY_SERVICE_TOKEN": "open-sesame-1", "HOME": "/home/somebody", "GOOGLE_CREDENTIALS": "/path/to.json"})
    log.write("password=hunter2 hf_abcdefghijkl open-sesame-1 /home/somebody /path/to.json \x1b[2J")
    log.publish()
    log.close()
    text = trial_log.read(folder)
    assert not re.search(r"hunter2|hf_abc|open-sesame|\x1b", text)
    assert "/home/somebody /path/to.json \\x1b[2J" in text


def test_values_of_variables_with_secret_names_are_secret():
    environment = {"HF_TOKEN": "x" * 20, "AWS_SECRET_ACCESS_KEY": "y" * 30, "PGPASSWORD": "short", "PATH": "/usr/bin:/bin"}
    assert secrets(environment) == ["y" * 30, "x" * 20]


def test_long_log_keeps_its_head_and_its_tail(folder, monkeypatch):
    for name, size in (("LIMIT", 5000), ("HEAD", 1000), ("TAIL", 2000)):
        monkeypatch.setattr(trial_log, name, size)
    log = opened(folder)
    for number in range(2000):
        log.write(f"line {number}")
    log.publish()
    log.close()
    found = lines(folder)
    assert sum(map(len, trial_log.read(folder).splitlines(keepends=True))) <= 5000
    assert found[1] == "line 0"
    assert found[-1] == "line 1999"
    assert any("bytes are left out here" in line for line in found)
    tail = [int(line.split()[1]) for line in found[-10:]]
    assert tail == list(range(1990, 2000))


def test_link_in_the_place_of_the_log_is_not_written_through(tmp_path):
    folder = tmp_path / "ledger" / "abc"
    folder.mkdir(parents=True)
    (tmp_path / "diary").write_text("mine")
    (folder / trial_log.FILE).symlink_to(tmp_path / "diary")
    with pytest.raises(OSError):
        opened(folder)
    assert (tmp_path / "diary").read_text() == "mine"
    assert trial_log.read(folder) == ""


def test_warnings_and_log_records_are_hooked_and_still_shown(capsys):
    taken = []
    one, other = Hooks(taken.append), Hooks(taken.append)
    with pytest.warns(UserWarning, match="careful"):  # pytest's own recorder comes before the hook
        warnings.warn("careful", stacklevel=1)
    one.close()  # not the last: the other one still listens
    logging.getLogger("some.library").warning("odd %s", "weights")
    logging.getLogger("some.library").info("usual")
    other.close()
    logging.getLogger("some.library").warning("later")
    assert taken == ["WARNING some.library: odd weights"]
    assert warnings.showwarning is not trial_log._warning
    assert logging.getLogRecordFactory() is not trial_log._record


def test_warning_is_written_and_shown(monkeypatch):
    shown, taken = [], []
    monkeypatch.setattr(warnings, "showwarning", lambda *arguments: shown.append(arguments[0]))
    hook = Hooks(taken.append)
    warnings.showwarning("careful", UserWarning, "file.py", 7)
    hook.close()
    assert (shown, taken) == (["careful"], ["file.py:7: UserWarning: careful"])


NATIVE = """
import os, sys
from pathlib import Path
from trials.run.trial_log import TrialLog
log = TrialLog(Path(sys.argv[1]), lambda call: call(), {})
log.open()
os.write(2, b"from native code\\n 10%|#   |\\r100%|####|\\nhalf a line")
log.publish()
os.write(2, b", whole now\\n")
log.publish()
os.kill(os.getpid(), 9)
"""


def test_what_native_code_writes_to_standard_error_is_kept_and_stays_there(tmp_path):
    folder = tmp_path / "ledger" / "abc"
    with (tmp_path / "err").open("wb") as err:
        subprocess.run(
            [sys.executable, "-c", NATIVE, folder], stderr=err, check=False, env={**os.environ, "PYTHONPATH": str(ROOT)}
        )
    assert lines(folder)[1:] == ["from native code", "100%|####|", "half a line, whole now"]
    assert "from native code" in (tmp_path / "err").read_text()


def test_flood_on_standard_error_is_shortened(tmp_path, monkeypatch):
    monkeypatch.setattr(trial_log, "_MOST", 1000)
    path = tmp_path / "err"
    path.write_text("earlier\n")
    source = StandardError(os.open(path, os.O_RDONLY))
    with path.open("a") as file:
        file.writelines(f"line {number}\n" for number in range(1000))
    found = source.new()
    assert found.startswith("==== ") and "are left out here ====" in found
    assert found.endswith("line 999\n")
    assert len(found) < 1200
    assert source.new() == ""
    source.close()
