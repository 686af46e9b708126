"""Opening a study that another process locks or that a kill cut off."""

import contextlib
import sqlite3

import pytest

from orchestrator.config.model import SweepConfig
from orchestrator.search import study_storage
from orchestrator.sweep.controller import SweepController
from tests.factories.sweep_state import complete, run_out, states
from trials.errors import InputError


@pytest.fixture
def config(parts) -> SweepConfig:
    parts["space"]["lora.rank"]["choices"] = [2, 4, 8]
    return SweepConfig.model_validate(parts)


def test_cut_off_journal_line_is_dropped_with_a_notice(parts, tmp_path):
    parts["search"].update(study="journal")
    config = SweepConfig.model_validate(parts)
    complete(sweep := SweepController.open(config, tmp_path), sweep.next_job())
    sweep.study.drivers.leave()
    path = tmp_path / "little" / "study.journal"
    path.write_bytes(path.read_bytes() + b'{"op_code": 5, "wor')
    lines: list[str] = []
    again = SweepController.open(config, tmp_path, notice=lines.append)
    run_out(again)
    assert set(states(again)) == {"complete"}
    assert len([line for line in lines if "cut off" in line]) == 1


def test_locked_study_is_one_line(config, tmp_path, monkeypatch):
    monkeypatch.setattr(study_storage, "_LOCKED", 0.1)
    SweepController.open(config, tmp_path)
    path = tmp_path / "little" / "study.db"
    for lock in ("IMMEDIATE", "EXCLUSIVE"):  # others may read it still, or not even that
        with contextlib.closing(sqlite3.connect(path)) as other:
            other.execute(f"BEGIN {lock}")
            with pytest.raises(InputError, match=f"^search.study: {path}: database is locked$"):
                SweepController.open(config, tmp_path)
    assert SweepController.open(config, tmp_path).state.unfinished == 4


def test_dangling_lock_is_removed_only_if_it_stays(tmp_path, monkeypatch):
    monkeypatch.setattr(study_storage, "_LOCK_SECONDS", 0.0)
    lock = tmp_path / "study.journal.lock"
    lock.symlink_to(tmp_path / "nothing")
    study_storage._remove_dangling(lock)
    assert not lock.is_symlink()

    monkeypatch.setattr(study_storage, "_LOCK_SECONDS", 60.0)
    lock.symlink_to(tmp_path / "nothing")

    def another_holder(seconds: float) -> None:
        lock.unlink()
        lock.symlink_to(tmp_path / "nobody")

    monkeypatch.setattr(study_storage.time, "sleep", another_holder)
    study_storage._remove_dangling(lock)
    assert lock.is_symlink()
