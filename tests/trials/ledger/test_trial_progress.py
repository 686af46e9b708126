"""The progress of a running trial as a file that other processes read."""

import pytest

from trials.ledger import storage, trial_progress
from trials.ledger.record import Ledger
from trials.ledger.trial_progress import LOSSES, TrialProgress


def test_what_is_written_is_read_in_a_folder_and_in_a_store(place):
    ledger = Ledger(place)
    written = TrialProgress(key="abc", phase="train", step=3, steps=9, loss=1.5, losses=[(2, 2.0), (3, 1.5)]).stamped()
    trial_progress.write(ledger.folder("abc"), written)
    assert trial_progress.read(ledger, "abc") == written
    trial_progress.remove(ledger.folder("abc"))
    assert trial_progress.read(ledger, "abc") is None


def test_parent_is_read_in_the_place_of_a_derived_trial(tmp_path):
    ledger = Ledger(tmp_path)
    trial_progress.write(ledger.folder("child"), TrialProgress(key="child", phase="derive", parent="parent"))
    assert trial_progress.read(ledger, "child").phase == "derive"  # the parent has not written yet
    trial_progress.write(ledger.folder("parent"), TrialProgress(key="parent", phase="train", step=1, steps=2))
    found = trial_progress.read(ledger, "child")
    assert (found.key, found.parent, found.phase, found.step) == ("child", "parent", "train", 1)


@pytest.mark.parametrize(
    "content",
    [
        "",
        "[]",
        '{"key": "another", "phase": "train"}',
        '{"key": "abc", "phase": "train", "loss": 1e999}',
        '{"key": "abc", "phase": "train", "step": -1}',
        f'{{"key": "abc", "phase": "{"x" * 1000}"}}',
        f'{{"key": "abc", "phase": "train", "losses": {[[1, 1.0]] * (LOSSES + 1)}}}',
        "[" * 100_000,
    ],
)
def test_damaged_or_foreign_content_is_no_progress(tmp_path, content):
    ledger = Ledger(tmp_path)
    storage.write_text(ledger.folder("abc") / trial_progress.FILE, content)
    assert trial_progress.read(ledger, "abc") is None


def test_links_are_not_followed(tmp_path):
    ledger = Ledger(tmp_path)
    trial_progress.write(ledger.folder("abc"), TrialProgress(key="abc", phase="train"))
    ledger.folder("abc").rename(tmp_path / "elsewhere")
    ledger.folder("abc").symlink_to(tmp_path / "elsewhere")
    assert trial_progress.read(ledger, "abc") is None
