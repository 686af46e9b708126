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
from trials.run.trial_log import Hooks, StandardError, TrialLog

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
    log = opened(
        folder, {"MY_SERVICE_TOKEN": "open-sesame-1", "HOME": "/home/somebody", "GOOGLE_CREDENTIALS_FILE": "/path/to.json"}
    )
    log.write("password=hunter2 hf_abcdefghijkl open-sesame-1 /home/somebody /path/to.json \x1b[2J")
    log.publish()
    log.close()
    text = trial_log.read(folder)
    assert not re.search(r"hunter2|hf_abc|open-sesame|\x1b", text)
    assert "/home/somebody /path/to.json \\x1b[2J" in text


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


@pytest.fixture
def short(monkeypatch):
    """A log is cut beyond 500 bytes."""
    for name, size in (("LIMIT", 500), ("HEAD", 100), ("TAIL", 200)):
        monkeypatch.setattr(trial_log, name, size)


def test_log_that_cannot_be_cut_grows_no_more(tmp_path, short, monkeypatch):
    log = opened(tmp_path / "ledger" / "abc")
    path = tmp_path / "ledger" / "abc" / trial_log.FILE
    with monkeypatch.context() as full:
        full.setattr(trial_log.storage, "replace_file", lambda *arguments: (_ for _ in ()).throw(OSError("no room")))
        with pytest.raises(OSError, match="no room"):
            log.write("x" * 600)
    size = path.stat().st_size
    log.write("y" * 600)
    log.close()
    assert path.stat().st_size == size


def test_log_of_another_process_is_neither_written_nor_cut_nor_replaced(folder, short):
    mine = [True]
    log = TrialLog(folder, raising, {}, lambda: mine[0])
    log.open()
    log.write("mine")
    log.publish()
    before = trial_log.read(folder)
    assert "mine" in before
    log.write("not uploaded to a store yet")
    before = trial_log.read(folder)
    mine[0] = False
    log.write("z" * 600)
    log.publish()
    log.close()
    assert trial_log.read(folder) == before


def test_file_is_not_cut_once_another_process_has_it(tmp_path, short):
    answers = iter([True, True, False])
    log = TrialLog(tmp_path / "ledger" / "abc", raising, {}, lambda: next(answers))
    log.open()
    log.write("z" * 600)
    log.close()
    assert "are left out here" not in trial_log.read(tmp_path / "ledger" / "abc")


def test_link_in_the_place_of_the_log_is_not_written_through(tmp_path):
    folder = tmp_path / "ledger" / "abc"
    folder.mkdir(parents=True)
    (tmp_path / "diary").write_text("mine")
    (folder / trial_log.FILE).symlink_to(tmp_path / "diary")
    with pytest.raises(OSError):
        opened(folder)
    assert (tmp_path / "diary").read_text() == "mine"
    assert trial_log.read(folder) == ""


@pytest.fixture
def unhooked(monkeypatch):
    """A process without hooks, which stay for good once they are installed."""
    factory, show = logging.getLogRecordFactory(), warnings.showwarning
    monkeypatch.setattr(Hooks, "_before", None)
    yield
    logging.setLogRecordFactory(factory)
    warnings.showwarning = show


def test_warnings_and_log_records_are_hooked_and_still_shown(unhooked):
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


def test_warning_is_written_and_shown(unhooked, monkeypatch):
    shown, taken = [], []
    monkeypatch.setattr(warnings, "showwarning", lambda *arguments: shown.append(arguments[0]))
    hook = Hooks(taken.append)
    warnings.showwarning("careful", UserWarning, "file.py", 7)
    hook.close()
    warnings.showwarning("later", UserWarning, "file.py", 8)
    assert (shown, taken) == (["careful", "later"], ["file.py:7: UserWarning: careful"])


def test_hooks_that_others_have_wrapped_serve_the_next_trial(unhooked):
    taken = []
    first = Hooks(taken.append)
    ours = logging.getLogRecordFactory()
    logging.setLogRecordFactory(lambda *arguments, **named: ours(*arguments, **named))
    logging.captureWarnings(True)  # a library may do so within a trial
    first.close()
    logging.captureWarnings(False)  # which restores what it found
    second = Hooks(taken.append)
    logging.getLogger("some.library").warning("odd")
    warnings.showwarning("careful", UserWarning, "file.py", 7)
    second.close()
    assert taken == ["WARNING some.library: odd", "file.py:7: UserWarning: careful"]


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
