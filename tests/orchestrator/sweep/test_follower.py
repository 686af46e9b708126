"""The follower emits the progress of running trials, each version once."""

import pytest

from orchestrator.config.model import SweepConfig
from orchestrator.sweep.controller import SweepController
from orchestrator.sweep.follower import Follower
from tests.factories.sweep_state import complete
from trials.ledger import trial_progress
from trials.ledger.trial_progress import TrialProgress


@pytest.fixture
def sweep(parts, tmp_path):
    events = []
    opened = SweepController.open(SweepConfig.model_validate(parts), tmp_path, events.append)
    opened.events = events
    return opened


def progress(sweep) -> list:
    return [event for event in sweep.events if event.event == "trial_progress"]


def write(sweep, job, written: str, step: int) -> None:
    found = TrialProgress(key=job.spec.key, phase="train", step=step, steps=9, losses=[(step, 1.0)], written=written)
    trial_progress.write(sweep.ledger.folder(job.spec.key), found)


def test_each_version_is_one_event_with_the_trials_settings(sweep):
    complete(sweep, sweep.next_job())
    job, follower = sweep.next_job(), Follower(sweep)
    follower.look()
    assert progress(sweep) == []  # nothing written yet
    for written, step in (("2026-01-01T00:00:00+00:00", 1), ("2026-01-01T00:00:03+00:00", 4)):
        write(sweep, job, written, step)
        follower.look()
        follower.look()
    assert [(one.number, one.settings, one.progress.step) for one in progress(sweep)] == [
        (0, job.settings, 1),
        (0, job.settings, 4),
    ]
    logged = progress(sweep)[-1].as_dict()
    assert logged["progress"] == {"phase": "train", "seconds": 0.0, "step": 4, "steps": 9, "host": "", "written": written}
    assert "losses" not in logged["progress"]


def test_ended_trial_has_no_more_progress(sweep):
    job, follower = sweep.next_job(), Follower(sweep)
    write(sweep, job, "2026-01-01T00:00:00+00:00", 1)
    complete(sweep, job)
    follower.look()
    sweep.report_progress(job.spec.key, TrialProgress(key=job.spec.key, phase="train"))
    assert progress(sweep) == []


def test_thread_ends_with_the_context(sweep):
    follower = Follower(sweep)
    with follower.following():
        pass
    assert follower._over.is_set()
