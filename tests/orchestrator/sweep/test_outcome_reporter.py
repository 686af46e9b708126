"""The study gets every outcome once, compared with its baseline; failures wait for a success."""

import json

import pytest

from analysis.report.findings import headline
from analysis.results.load import load
from orchestrator.config.model import SweepConfig
from orchestrator.sweep.controller import SweepController
from tests.factories.sweep_state import complete, fail_next, run_out, states
from trials.ledger.record import Score, TrialRecord


def test_objectives_and_constraints_are_relative_to_the_baseline(config, tmp_path):
    sweep = SweepController.open(config, tmp_path)
    complete(sweep, sweep.next_job(), commonsense=0.5, math=0.8)
    complete(sweep, sweep.next_job(), commonsense=0.7, math=0.2)
    trial = sweep.study.trials()[0]
    assert trial.values == pytest.approx([0.2, 0.6])
    (ahead, constraint) = trial.constraints.values()
    assert ahead == pytest.approx(-0.2)  # the gain of commonsense over the base, the better of both objectives
    assert constraint == pytest.approx(0.1)


def test_trial_waits_for_its_baseline(config, tmp_path):
    sweep = SweepController.open(config, tmp_path)
    baseline, trial = sweep.next_job(), sweep.next_job()
    complete(sweep, trial)
    assert states(sweep)[0] == "running"
    complete(sweep, baseline)
    assert states(sweep)[0] == "complete"


def test_failed_trial_does_not_end_the_sweep(config, tmp_path):
    sweep = SweepController.open(config, tmp_path)
    complete(sweep, sweep.next_job())
    fail_next(sweep)
    assert len(run_out(sweep)) == 2
    assert states(sweep) == ["failed", "complete", "complete"]
    assert sweep.counts == {"done": 2, "failed": 1, "given up": 0}


def test_undefined_objective_is_a_failed_trial(parts, tmp_path):
    parts["search"]["objectives"][1]["metric"] = "math.gold_bpb_delta"  # these records have no bits
    sweep = SweepController.open(SweepConfig.model_validate(parts), tmp_path)
    with sweep.going():
        complete(sweep, sweep.next_job(), math=0.0)
        run_out(sweep)
    assert set(states(sweep)) == {"failed"}


RATE = [{"metric": "commonsense.gain", "direction": "maximize"}, {"metric": "math.forgetting", "direction": "minimize"}]


@pytest.mark.parametrize("search", [{"objectives": RATE, "constraints": []}, {"constraints": ["math.forgetting <= 0.1"]}])
def test_objective_undefined_on_the_only_baseline_ends_the_sweep(parts, tmp_path, search):
    parts["search"].update(search)
    config = SweepConfig.model_validate(parts)
    sweep = SweepController.open(config, tmp_path)
    complete(sweep, sweep.next_job(), math=0.0)
    assert sweep.next_job() is None
    reason = str(sweep.failed)
    assert reason.startswith("math.forgetting: undefined, since micro scores 0 on math before any training")
    assert reason.endswith("use math.drop or math.gold_bpb_delta")
    assert str(SweepController.open(config, tmp_path).failed) == reason
    parts["search"].update(objectives=RATE[:1], constraints=[])  # nothing has finished, so the config changes in place
    again = SweepController.open(SweepConfig.model_validate(parts), tmp_path)
    assert again.failed is None
    run_out(again)


def test_base_at_0_on_the_searched_half_alone_ends_the_sweep(parts, tmp_path):
    parts["search"].update(objectives=RATE, constraints=[])
    config = SweepConfig.model_validate(parts)
    sweep = SweepController.open(config, tmp_path)
    with sweep.going():
        job, early = sweep.next_job(), sweep.next_job()
        complete(sweep, early)  # on another worker, before the baseline
        halves = {half: {"score": Score(value=value, stderr=0.1, n=5)} for half, value in (("search", 0.0), ("report", 0.4))}
        scores = {"commonsense": Score(value=0.6, stderr=0.1, n=10), "math": Score(value=0.2, stderr=0.1, n=10)}
        record = TrialRecord(key=job.spec.key, state="complete", spec=job.spec, scores=scores, halves={"math": halves})
        sweep.ledger.write(record)
        sweep.finish(job.spec.key)
    assert sweep.next_job() is None
    assert str(sweep.failed).endswith("use math.drop or math.gold_bpb_delta")
    assert sweep.counts["done"] == 0
    assert headline(load(tmp_path / config.name)) == (
        "No trial can be judged: math forgetting is undefined, since the base scores 0 in math on the half of the documents "
        "that the search saw; search math.drop or math.gold_bpb_delta instead."
    )


def test_objective_undefined_on_one_baseline_ends_its_trials_alone(parts, tmp_path):
    parts["search"].update(objectives=RATE, constraints=[])
    parts["space"]["base.quantization"] = {"type": "categorical", "choices": ["nf4", "none"]}
    notices: list[str] = []
    sweep = SweepController.open(SweepConfig.model_validate(parts), tmp_path, notice=notices.append)
    jobs = [sweep.next_job(), sweep.next_job()]
    complete(sweep, jobs[0], math=0.0)
    complete(sweep, jobs[1], math=0.5)
    assert [notice.rpartition("; ")[2] for notice in notices] == ["no trial runs on this base"]
    ran = run_out(sweep)
    assert {job.spec.base.quantization for job in ran} == {jobs[1].spec.base.quantization}
    assert sweep.failed is None
    assert sweep.over


def test_complete_trials_of_a_tpe_search_have_every_constraint(parts, tmp_path):
    parts["search"].update(sampler="tpe", trials=12)
    parts["space"] = {"train.learning_rate": {"type": "float", "low": 1e-4, "high": 1e-2, "log": True}}
    sweep = SweepController.open(SweepConfig.model_validate(parts), tmp_path)
    run_out(sweep)
    assert all(len(trial.constraints) == 2 for trial in sweep.study.trials())


@pytest.mark.parametrize("then", ["success", "end"])
def test_failures_are_reported_after_a_success_or_at_the_end(parts, tmp_path, then):
    parts["space"]["lora.rank"]["choices"] = [2, 4, 8] if then == "success" else [2, 4]
    sweep = SweepController.open(SweepConfig.model_validate(parts), tmp_path)
    complete(sweep, sweep.next_job())
    with sweep.going():
        fail_next(sweep, 2)
        assert "failed" not in states(sweep)
        assert len(run_out(sweep)) == (then == "success")
        assert states(sweep).count("failed") == (2 if then == "success" else 0)
    assert states(sweep).count("failed") == 2


def test_replicates_have_their_own_seeds_and_one_mean(parts, tmp_path):
    parts["search"]["replicates"] = 3
    sweep = SweepController.open(SweepConfig.model_validate(parts), tmp_path)
    complete(sweep, sweep.next_job(), commonsense=0.5, math=0.8)
    with sweep.going():
        for commonsense in (0.6, 0.7, 0.8):
            job = sweep.next_job()
            assert states(sweep) == ["running"]
            complete(sweep, job, commonsense=commonsense, math=0.8)
    assert sweep.study.trials()[0].values == pytest.approx([0.2, 0.0])
    entry = json.loads((tmp_path / "little" / "manifest.json").read_text())["trials"][0]
    assert len({*entry["keys"]}) == 3
    assert {sweep.ledger.read(key).spec.train.seed for key in entry["keys"]} == {0, 1, 2}


def test_failed_replicate_fails_its_trial_and_the_rest_is_not_run(parts, tmp_path):
    parts["search"]["replicates"] = 3
    sweep = SweepController.open(SweepConfig.model_validate(parts), tmp_path)
    with sweep.going():
        complete(sweep, sweep.next_job())
        fail_next(sweep)
        jobs = run_out(sweep)
    assert {job.number for job in jobs} == {1}
    assert states(sweep) == ["failed", "complete"]


def test_record_lost_before_its_report_is_made_again(parts, tmp_path):
    parts["search"]["replicates"] = 2
    sweep = SweepController.open(SweepConfig.model_validate(parts), tmp_path)
    complete(sweep, sweep.next_job())
    one, two = sweep.next_job(), sweep.next_job()
    complete(sweep, one)
    (sweep.ledger.folder(one.spec.key) / "record.json").write_text("{")
    complete(sweep, two)
    assert sweep.next_job().spec.key == one.spec.key


def test_failed_baseline_fails_its_trials_alone_and_the_manifest_says_why(parts, tmp_path):
    parts["space"]["base.dtype"] = {"type": "categorical", "choices": ["float32", "bfloat16"]}
    config = SweepConfig.model_validate(parts)
    sweep = SweepController.open(config, tmp_path)
    with sweep.going():
        fail_next(sweep)
        jobs = run_out(sweep)
    assert {job.spec.base.dtype for job in jobs} == {"bfloat16"}
    assert states(sweep).count("complete") == states(sweep).count("failed") == 2
    for _ in range(2):
        found = load(tmp_path / "little").trials
        assert sorted(found["state"]) == ["complete", "complete", "failed", "failed"]
        assert set(found.loc[found["state"] == "failed", "base.dtype"]) == {"float32"}
        trials = json.loads((tmp_path / "little" / "manifest.json").read_text())["trials"]
        assert [trial["failure"] for trial in trials if trial["key"] is None] == ["its baseline failed"] * 2
        with (again := SweepController.open(config, tmp_path)).going():  # only the baseline is tried again
            fail_next(again)
            assert again.next_job() is None
