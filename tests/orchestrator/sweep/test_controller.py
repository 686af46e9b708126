"""The whole of a sweep, on records written by hand: order of the jobs, held keys, budgets, events, and its end."""

import itertools

import pytest

from orchestrator.config.model import SweepConfig
from orchestrator.errors import SweepFailed
from orchestrator.sweep.controller import SweepController
from tests.factories.sweep_state import complete, fail_next, leave, run_out, states


def test_baseline_comes_first_and_every_grid_point_once(config, tmp_path):
    jobs = run_out(SweepController.open(config, tmp_path))
    assert jobs[0].number is None
    assert jobs[0].spec.is_baseline
    assert [job.settings["lora.rank"] for job in jobs[1:]] == [2, 4, 8]


def test_point_proposed_twice_runs_once_and_is_reported_twice(parts, tmp_path):
    parts["search"].update(sampler="random", trials=2, first=[{"lora.rank": 2}, {"lora.rank": 2}])
    sweep = SweepController.open(SweepConfig.model_validate(parts), tmp_path)
    jobs = []
    while job := sweep.next_job():
        jobs.append(job)
    assert len(jobs) == 2  # the baseline and one trial
    for job in jobs:
        complete(sweep, job)
    assert states(sweep) == ["complete"] * 2


def test_failed_baseline_or_first_failures_end_the_sweep_with_the_cause(config, tmp_path):
    sweep = SweepController.open(config, tmp_path / "a")
    fail_next(sweep)
    assert sweep.next_job() is None
    assert isinstance(sweep.failed, SweepFailed)
    assert "no luck" in str(sweep.failed)
    sweep = SweepController.open(config, tmp_path / "b")
    complete(sweep, sweep.next_job())
    fail_next(sweep, 3)
    assert "trials all failed" in str(sweep.failed)


def test_full_storage_ends_the_sweep_and_its_trial_runs_again(config, tmp_path):
    sweep = SweepController.open(config, tmp_path)
    complete(sweep, sweep.next_job())
    job = sweep.next_job()
    sweep.finish(job.spec.key, "storage", "runs/ledger: No space left on device")
    assert sweep.next_job() is None
    assert "No space left" in str(sweep.failed)
    assert run_out(SweepController.open(config, tmp_path))[0].spec.key == job.spec.key


def test_held_trial_waits_for_its_record(config, tmp_path):
    sweep = SweepController.open(config, tmp_path, clock=itertools.count(0, 5).__next__)
    complete(sweep, sweep.next_job())
    job = sweep.next_job()
    with sweep.ledger.lease(job.spec.key):  # as another sweep's worker would
        sweep.finish(job.spec.key, "held")
        others = run_out(sweep)
        assert job.spec.key not in [other.spec.key for other in others]
        assert not sweep.over
        leave(sweep, job)
    assert sweep.next_job() is None
    assert sweep.over
    assert states(sweep) == ["complete"] * 3


@pytest.mark.parametrize(
    ("budget", "ran"), [({"gpu_hours": 2.5 / 3600}, 3), ({"hours": 35 / 3600}, 4), ({"trials": 2, "gpu_hours": 1.0}, 2)]
)
def test_first_budget_to_run_out_ends_the_sweep(parts, tmp_path, budget, ran):
    parts["space"] = {"train.learning_rate": {"type": "float", "low": 1e-4, "high": 1e-2, "log": True}}
    parts["search"].update(sampler="random", **budget)
    now = [0.0]
    sweep = SweepController.open(SweepConfig.model_validate(parts), tmp_path, clock=lambda: now[0])
    complete(sweep, sweep.next_job(), seconds=0.0)
    while job := sweep.next_job():
        now[0] += 10
        complete(sweep, job, seconds=1.0)
    assert states(sweep) == ["complete"] * ran
    assert SweepController.open(SweepConfig.model_validate(parts), tmp_path, clock=lambda: now[0]).next_job() is None


def test_events_cover_the_sweep(config, tmp_path):
    events = []
    sweep = SweepController.open(config, tmp_path, events.append)
    with sweep.going():
        complete(sweep, sweep.next_job(), commonsense=0.5)
        complete(sweep, sweep.next_job(), commonsense=0.7)
        fail_next(sweep)
        run_out(sweep)
    assert [event.event for event in events] == [
        "sweep_started",
        *("trial_started", "trial_finished"),
        *("trial_started", "trial_finished", "front_changed"),
        *("trial_started", "trial_failed"),
        *("trial_started", "trial_finished"),
        "sweep_finished",
    ]
    assert events[4].metrics["commonsense.gain"] == pytest.approx(0.2)
    assert events[-1].reason == "done"


def test_failure_message_with_markup_is_printed_as_it_is(config, tmp_path):
    import io

    from orchestrator.console.progress import Progress
    from orchestrator.console.terminal import Terminal

    progress = Progress(Terminal(file=io.StringIO(), width=200))
    sweep = SweepController.open(config, tmp_path, progress)
    with progress.watching(sweep):
        complete(sweep, sweep.next_job())
        sweep.finish(sweep.next_job().spec.key, "died", "no space in [/tmp/x] for [batch, seq]")
    assert "[/tmp/x] for [batch, seq]" in progress.console.file.getvalue()
