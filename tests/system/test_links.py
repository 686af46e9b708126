"""Symbolic links that somebody else put into a storage: nothing behind them is written, emptied or deleted."""

from pathlib import Path

import pandas as pd
import pytest

from orchestrator.publish import _staged
from orchestrator.run import _only_driver
from orchestrator.search.study_storage import open_study
from tests import ready
from trials.errors import InputError
from trials.ledger import storage
from trials.ledger.checkpoint import CheckpointStore
from trials.ledger.record import Ledger, TrialRecord


@pytest.fixture
def foreign(tmp_path: Path) -> Path:
    """Somebody's folder, which every test finds as it was."""
    folder = tmp_path / "foreign"
    folder.mkdir()
    (folder / "precious.txt").write_text("precious")
    (folder / "adapter").mkdir()
    (folder / "adapter" / "weights").write_text("precious")
    (folder / "training-old.safetensors").write_text("precious")
    return folder


@pytest.fixture(autouse=True)
def whole(foreign: Path):
    yield
    files = {path.relative_to(foreign).as_posix(): path.read_text() for path in foreign.rglob("*") if path.is_file()}
    assert files == dict.fromkeys(("precious.txt", "adapter/weights", "training-old.safetensors"), "precious")


def test_the_driver_lock_does_not_empty_the_file_behind_a_link(foreign, tmp_path):
    sweep = tmp_path / "runs" / "little"
    sweep.mkdir(parents=True)
    (sweep / ".driver").symlink_to(foreign / "precious.txt")
    with pytest.raises(InputError, match=r"\.driver: a symbolic link"), _only_driver(sweep):
        pass


def test_the_driver_lock_does_not_empty_a_file(tmp_path):
    (tmp_path / ".driver").write_text("kept")
    with _only_driver(tmp_path):
        assert (tmp_path / ".driver").read_text() == "kept"


def test_partial_behind_a_link_is_set_aside(foreign, tmp_path):
    key = tmp_path / "key"
    key.mkdir()
    (key / "partial").symlink_to(foreign)
    checkpoints = CheckpointStore(key / "partial").bound(key="a")
    checkpoints.save({"step": 1}, {})
    checkpoints.save_adapter(lambda folder: folder.mkdir())
    checkpoints.remove()
    assert checkpoints.set_aside == ["partial: no folder of the trial's own, kept as partial.corrupt"]
    assert (key / "partial.corrupt").readlink() == foreign


def test_a_record_is_not_written_behind_a_link(foreign, tmp_path, spec):
    ledger = Ledger(tmp_path)
    ledger.root.mkdir()
    ledger.folder(spec.key).symlink_to(foreign)
    adapter = tmp_path / "adapter"
    adapter.mkdir()
    with pytest.raises(InputError, match="a symbolic link"):
        ledger.write(TrialRecord(key=spec.key, state="complete", spec=spec), pd.DataFrame({"role": []}), [adapter])
    with pytest.raises(InputError, match="a symbolic link"):
        ledger.lease(spec.key)
    with pytest.raises(InputError, match="behind a symbolic link"):
        ledger.read(spec.key)
    assert ledger.set_aside(spec.key).readlink() == foreign
    assert ledger.read(spec.key) is None


def test_a_publish_does_not_clear_the_folder_behind_a_link(foreign, tmp_path):
    (tmp_path / ".model.publishing").symlink_to(foreign)
    with pytest.raises(InputError, match="a symbolic link"), _staged(tmp_path / "model"):
        pass


def test_a_publish_clears_a_link_and_not_what_is_behind_it(foreign, tmp_path):
    staging = tmp_path / ".model.publishing"
    staging.mkdir()
    (staging / "left").symlink_to(foreign)
    with _staged(tmp_path / "model") as folder:
        assert list(folder.iterdir()) == []


def test_removing_a_link_leaves_what_is_behind_it(foreign, tmp_path):
    (tmp_path / "link").symlink_to(foreign)
    storage.remove(tmp_path / "link")
    assert not (tmp_path / "link").is_symlink()


@pytest.mark.parametrize("name", ["front.json", "report.html", "sweep.yaml", "manifest.json", "study.db", "study.db-journal"])
def test_a_file_that_is_a_link_is_replaced_and_not_written_through(foreign, tmp_path, name, command, write):
    from analysis.report.build import write_report
    from analysis.results.load import load

    sweep = ready.build(ready.config(), tmp_path / "runs")
    (sweep / name).unlink(missing_ok=True)
    (sweep / name).symlink_to(foreign / "precious.txt")
    if name in ("front.json", "report.html"):
        write_report(load(sweep))
    else:
        ready.build(ready.config(), tmp_path / "runs")
    command("status", sweep)


@pytest.mark.parametrize("name", ["study.db", "study.db-journal", "study.db-wal", "study.journal"])
def test_a_study_shares_no_file_by_a_hard_link(foreign, tmp_path, name):
    sweep = tmp_path / "sweep"
    sweep.mkdir()
    (sweep / name).hardlink_to(foreign / "precious.txt")
    open_study(ready.config(study="journal" if name == "study.journal" else "sqlite"), sweep, lambda line: None)


def test_a_study_goes_on_in_a_copy_of_its_own(tmp_path):
    sweep = ready.build(ready.config(), tmp_path / "runs")
    (tmp_path / "backup.db").hardlink_to(sweep / "study.db")
    before = (tmp_path / "backup.db").read_bytes()
    lines: list[str] = []
    study = open_study(ready.config(), sweep, lines.append)
    study.set_user_attr("a", 1)
    assert (len(study.trials), lines) == (2, [])
    assert (tmp_path / "backup.db").read_bytes() == before


@pytest.mark.parametrize("umask", [0o077, 0o022, 0o002])
def test_a_study_s_file_follows_the_umask(tmp_path, umask):
    import os

    before = os.umask(umask)
    try:
        open_study(ready.config(), tmp_path, lambda line: None)
    finally:
        os.umask(before)
    assert (tmp_path / "study.db").stat().st_mode & 0o777 == 0o666 & ~umask


def test_a_lock_that_is_no_file_is_set_aside(tmp_path):
    import os

    (tmp_path / ".driver").mkdir()
    with _only_driver(tmp_path):
        assert (tmp_path / ".driver").is_file()
    (tmp_path / ".driver").unlink()
    os.mkfifo(tmp_path / ".driver")
    with _only_driver(tmp_path):
        assert (tmp_path / ".driver").is_file()


def test_a_journal_behind_a_link_is_set_aside(foreign, tmp_path):
    (tmp_path / "study.journal").symlink_to(foreign / "precious.txt")
    lines: list[str] = []
    open_study(ready.config(study="journal"), tmp_path, lines.append)
    assert (tmp_path / "study.journal.corrupt").is_symlink()
    assert len(lines) == 1


@pytest.mark.parametrize("name", ["little", "ledger"])
def test_a_sweep_or_ledger_behind_a_link_is_refused(foreign, tmp_path, name, command, write):
    (tmp_path / "runs").mkdir()
    (tmp_path / "runs" / name).symlink_to(foreign)
    done = command("run", write(ready.CONFIG), "--storage", tmp_path / "runs")
    assert (done.returncode, len(done.stderr.splitlines())) == (2, 1)
    assert f"{name}: a symbolic link" in done.stderr


def test_a_storage_root_may_be_a_link(foreign, tmp_path):
    (tmp_path / "scratch").mkdir()
    (tmp_path / "runs").symlink_to(tmp_path / "scratch")
    assert (ready.build(ready.config(), tmp_path / "runs") / "manifest.json").exists()


def test_files_follow_the_umask(tmp_path, spec):
    import os

    made = tmp_path / "adapter"
    made.mkdir(mode=0o700)
    (made / "weights").write_text("")
    (made / "weights").chmod(0o600)
    before = os.umask(0o027)
    try:
        storage.write_text(tmp_path / "file", "")
        storage.upload(made, tmp_path / "there")
    finally:
        os.umask(before)
    modes = [path.stat().st_mode & 0o777 for path in (tmp_path / "file", tmp_path / "there", tmp_path / "there" / "weights")]
    assert modes == [0o640, 0o750, 0o640]


def test_an_error_below_a_folder_that_is_held_open_names_the_file(tmp_path):
    folder = tmp_path / "ledger" / "key"
    with pytest.raises(FileNotFoundError) as caught, storage.anchored(folder, 2) as place:
        (place / "none.json").read_text()
    assert caught.value.filename == str(folder / "none.json")
