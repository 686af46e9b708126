"""Which trials run is seen from another process: by their leases, with their progress."""

from datetime import UTC, datetime, timedelta

from orchestrator.sweep.running import RunningTrial, running
from tests.factories.sweeps import Builder, oom
from trials.ledger import trial_progress
from trials.ledger.trial_progress import TrialProgress


def test_pending_trials_with_a_held_lease_run(tmp_path):
    builder = Builder(tmp_path).baseline().add((26, 37)).add().add()
    keys = [trial["key"] for trial in builder.trials]
    trial_progress.write(builder.ledger.folder(keys[2]), TrialProgress(key=keys[2], phase="train"))  # of a dead worker
    lease = builder.ledger.lease(keys[1])
    try:
        (found,) = running(builder.load())
        assert (found.key, found.number, found.progress) == (keys[1], 1, None)
        assert found.settings == builder.trials[1]["params"]
        written = TrialProgress(key=keys[1], phase="train", step=3, steps=9, loss=1.5).stamped()
        trial_progress.write(builder.ledger.folder(keys[1]), written)
        (found,) = running(builder.load())
        assert found.progress == written
        assert found.as_dict()["progress"]["step"] == 3
        assert found.silent < 60
    finally:
        lease.release()
    assert running(builder.load()) == []


def test_failed_trial_runs_again_once_it_has_progress(tmp_path):
    builder = Builder(tmp_path).baseline().add(failure=oom())
    key = builder.trials[0]["key"]
    lease = builder.ledger.lease(key)
    try:
        assert running(builder.load()) == []
        trial_progress.write(builder.ledger.folder(key), TrialProgress(key=key, phase="load"))
        assert [one.key for one in running(builder.load())] == [key]
    finally:
        lease.release()


def test_baseline_runs_without_a_number(tmp_path):
    builder = Builder(tmp_path).add()
    lease = builder.ledger.lease(builder.base.key)
    try:
        assert [(one.number, one.key) for one in running(builder.load())] == [(None, builder.base.key)]
    finally:
        lease.release()


def test_silence_is_counted_from_the_last_write():
    before = (datetime.now(UTC) - timedelta(minutes=5)).isoformat()
    assert 299 < RunningTrial("k", progress=TrialProgress(key="k", phase="train", written=before)).silent < 400
    for odd in ("", "yesterday", "2026-01-01T00:00:00"):
        assert RunningTrial("k", progress=TrialProgress(key="k", phase="train", written=odd)).silent is None
