"""The state of a sweep: nothing lost, nothing run twice, the study told everything. Records are written by hand."""

from pathlib import Path

import pytest
from optuna.trial import TrialState

from orchestrator.config import SweepConfig
from orchestrator.errors import SweepFailed
from orchestrator.sweep import Sweep
from trials.errors import InputError
from trials.record import Failure, Score, TrialRecord


@pytest.fixture
def config(parts) -> SweepConfig:
    parts["space"]["lora.rank"]["choices"] = [2, 4, 8]
    return SweepConfig.model_validate(parts)


def leave(sweep: Sweep, job, commonsense: float = 0.6, math: float = 0.8) -> None:
    """What a worker would leave in the ledger."""
    scores = {"commonsense": Score(value=commonsense, stderr=0.1, n=10), "math": Score(value=math, stderr=0.1, n=10)}
    sweep.ledger.write(TrialRecord(key=job.spec.key, state="complete", spec=job.spec, scores=scores))


def fail(sweep: Sweep, job) -> None:
    failure = Failure(kind="ValueError", message="no luck", traceback="Traceback ...")
    sweep.ledger.write(TrialRecord(key=job.spec.key, state="failed", spec=job.spec, failure=failure))


def complete(sweep: Sweep, job, **scores: float) -> None:
    leave(sweep, job, **scores)
    sweep.finish(job.spec.key)


def states(sweep: Sweep) -> list[TrialState]:
    return [trial.state for trial in sweep.study.get_trials(deepcopy=False)]


def run_out(sweep: Sweep) -> list:
    jobs = []
    while job := sweep.next_job():
        jobs.append(job)
        complete(sweep, job)
    return jobs


def test_the_baseline_comes_first_and_every_grid_point_once(config, tmp_path):
    jobs = run_out(Sweep(config, tmp_path))
    assert jobs[0].number is None
    assert jobs[0].spec.is_baseline
    assert [job.params["lora.rank"] for job in jobs[1:]] == [2, 4, 8]


def test_objectives_and_constraints_are_told_against_the_baseline(config, tmp_path):
    sweep = Sweep(config, tmp_path)
    complete(sweep, sweep.next_job(), commonsense=0.5, math=0.8)
    complete(sweep, sweep.next_job(), commonsense=0.7, math=0.2)
    trial = sweep.study.trials[0]
    assert trial.values == pytest.approx([0.2, 0.6])
    assert list(trial.constraints.values()) == pytest.approx([0.1])


def test_a_trial_that_ends_before_its_baseline_is_told_when_the_baseline_is_there(config, tmp_path):
    sweep = Sweep(config, tmp_path)
    baseline, trial = sweep.next_job(), sweep.next_job()
    complete(sweep, trial)
    assert states(sweep)[0] == TrialState.RUNNING
    complete(sweep, baseline)
    assert states(sweep)[0] == TrialState.COMPLETE


def test_a_sweep_that_was_cut_off_keeps_its_trials_and_runs_none_twice(config, tmp_path):
    first = Sweep(config, tmp_path)
    complete(first, first.next_job())
    complete(first, first.next_job())
    cut_off, finished_unseen = first.next_job(), first.next_job()
    leave(first, finished_unseen)  # the record was written, the study never told
    del first
    again = Sweep(config, tmp_path)
    jobs = run_out(again)
    assert [job.spec.key for job in jobs] == [cut_off.spec.key]
    assert states(again) == [TrialState.COMPLETE] * 3
    assert Sweep(config, tmp_path).unfinished == 0


def test_what_another_sweep_has_done_is_told_and_not_run(config, tmp_path):
    run_out(Sweep(config, tmp_path))
    other = Sweep(config.model_copy(update={"name": "other"}), tmp_path)
    assert other.next_job() is None
    assert states(other) == [TrialState.COMPLETE] * 3


def test_the_same_setting_asked_twice_at_once_runs_once_and_is_told_twice(parts, tmp_path):
    parts["search"].update(sampler="random", trials=6)
    sweep = Sweep(SweepConfig.model_validate(parts), tmp_path)  # two settings, six trials
    jobs = []
    while job := sweep.next_job():
        jobs.append(job)
    assert len(jobs) == len({job.spec.key for job in jobs}) <= 3
    for job in jobs:
        complete(sweep, job)
    assert states(sweep) == [TrialState.COMPLETE] * 6


def test_a_failed_trial_is_told_as_failed_and_the_sweep_goes_on(config, tmp_path):
    sweep = Sweep(config, tmp_path)
    complete(sweep, sweep.next_job())
    job = sweep.next_job()
    fail(sweep, job)
    sweep.finish(job.spec.key)
    assert len(run_out(sweep)) == 2
    assert states(sweep) == [TrialState.FAIL, TrialState.COMPLETE, TrialState.COMPLETE]


def test_a_worker_that_dies_leaves_a_failed_record_with_its_reason(config, tmp_path):
    sweep = Sweep(config, tmp_path)
    complete(sweep, sweep.next_job())
    job = sweep.next_job()
    sweep.finish(job.spec.key, died="killed")
    record = sweep.ledger.read(job.spec.key)
    assert record.state == "failed"
    assert record.failure.message == "killed"


def test_an_objective_that_is_undefined_is_told_as_failed(parts, tmp_path):
    parts["search"]["objectives"][1]["metric"] = "math.forgetting"
    sweep = Sweep(SweepConfig.model_validate(parts), tmp_path)
    complete(sweep, sweep.next_job(), math=0.0)
    complete(sweep, sweep.next_job())
    assert states(sweep)[0] == TrialState.FAIL


def test_a_failed_baseline_or_nothing_but_failures_stops_the_sweep_with_its_cause(config, tmp_path):
    sweep = Sweep(config, tmp_path / "a")
    fail(sweep, baseline := sweep.next_job())
    sweep.finish(baseline.spec.key)
    assert sweep.next_job() is None
    assert isinstance(sweep.failed, SweepFailed)
    assert "no luck" in str(sweep.failed)
    sweep = Sweep(config, tmp_path / "b")
    complete(sweep, sweep.next_job())
    for _ in range(3):
        fail(sweep, job := sweep.next_job())
        sweep.finish(job.spec.key)
    assert "trials all failed" in str(sweep.failed)


def test_a_folder_that_holds_another_sweep_is_refused_and_left_alone(config, parts, tmp_path):
    Sweep(config, tmp_path)
    before = (tmp_path / "little" / "sweep.yaml").read_text()
    parts["train"]["epochs"] = 3
    with pytest.raises(InputError, match="with another train"):
        Sweep(SweepConfig.model_validate(parts), tmp_path)
    assert (tmp_path / "little" / "sweep.yaml").read_text() == before


def test_a_larger_budget_goes_on_where_the_sweep_ended(parts, tmp_path):
    parts["search"].update(sampler="random", trials=2)
    run_out(Sweep(SweepConfig.model_validate(parts), tmp_path))
    parts["search"]["trials"] = 4
    sweep = Sweep(SweepConfig.model_validate(parts), tmp_path)
    run_out(sweep)
    assert len(states(sweep)) == 4


def test_a_resumed_seeded_sampler_does_not_repeat_its_first_draws(parts, tmp_path):
    parts["search"].update(sampler="random", trials=1)
    parts["space"] = {"train.learning_rate": {"type": "float", "low": 1e-4, "high": 1e-2, "log": True}}
    run_out(Sweep(SweepConfig.model_validate(parts), tmp_path))
    parts["search"]["trials"] = 2
    sweep = Sweep(SweepConfig.model_validate(parts), tmp_path)
    run_out(sweep)
    first, second = sweep.study.trials
    assert first.params != second.params


def test_every_complete_trial_of_a_tpe_search_has_every_constraint(parts, tmp_path):
    parts["search"].update(sampler="tpe", trials=12)
    parts["space"] = {"train.learning_rate": {"type": "float", "low": 1e-4, "high": 1e-2, "log": True}}
    sweep = Sweep(SweepConfig.model_validate(parts), tmp_path)
    run_out(sweep)
    assert all(len(trial.constraints) == 1 for trial in sweep.study.trials)


def test_a_truncated_record_stops_the_start_with_one_line_and_nothing_is_overwritten(config, tmp_path):
    sweep = Sweep(config, tmp_path)
    run_out(sweep)
    for key in (config.baseline_specs()[0].key, config.spec({"lora.rank": 4}).key):
        path: Path = sweep.ledger.folder(key) / "record.json"
        whole = path.read_text()
        path.write_text(whole[:100])
        with pytest.raises(InputError, match="not a whole record"):
            Sweep(config, tmp_path)
        assert path.read_text() == whole[:100]
        path.write_text(whole)


def test_a_point_whose_settings_contradict_each_other_is_told_as_failed_and_the_sweep_goes_on(parts, tmp_path):
    parts["space"] = {
        "train.batch_size": {"type": "categorical", "choices": [8, 12]},
        "train.micro_batch_size": {"type": "categorical", "choices": [4, 8]},
    }
    sweep = Sweep(SweepConfig.model_validate(parts), tmp_path)
    assert len(run_out(sweep)) == 4  # the baseline and three of four points
    assert states(sweep).count(TrialState.FAIL) == 1


def test_a_failure_message_that_looks_like_markup_is_printed_as_it_is(config, tmp_path):
    import io

    from rich.console import Console

    from orchestrator.progress import Progress

    sweep = Sweep(config, tmp_path)
    progress = Progress(Console(file=io.StringIO(), width=200))
    with progress.watching(sweep, 1):
        complete(sweep, sweep.next_job())
        sweep.finish(sweep.next_job().spec.key, died="no space in [/tmp/x] for [batch, seq]")
    assert "[/tmp/x] for [batch, seq]" in progress.console.file.getvalue()
