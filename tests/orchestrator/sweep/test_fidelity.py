"""Multi-fidelity search in a sweep, on looks written by hand: trials pause, go on or stop, and a killed driver loses none."""

import pytest

from analysis.results.manifest import Manifest
from orchestrator.config.load import load
from orchestrator.search import bayesian
from orchestrator.search.looks import Look
from orchestrator.sweep.controller import SweepController
from orchestrator.sweep.fidelity import RISK, Costs, rung
from tests.factories.sweep_state import complete, leave, states

GOOD = 0.3


@pytest.fixture
def config(parts, write):
    """More trials than the design has: ten, with one good value of the dropout."""
    parts["space"] = {"lora.dropout": {"type": "float", "low": 0.0, "high": 0.8}}
    parts["search"] |= {"sampler": "gp", "trials": 10, "multi_fidelity": True}
    return load(write(parts))


def gain(job) -> float:
    return 0.3 - abs(job.settings["lora.dropout"] - GOOD)


def step(sweep, job) -> str:
    """What a worker would do: runs the job to its pause, or to its end."""
    at = sweep.pause_of(job)
    if at is None:
        complete(sweep, job, commonsense=0.5 + gain(job), math=0.8)
        return "ends"
    errors = dict.fromkeys(at["metrics"], 0.02)
    metrics = {"commonsense.gain": gain(job), "math.drop": 0.1 - gain(job) / 10}
    sweep.pause(job.spec.key, {"rows": at["rows"], "documents": at["documents"], "metrics": metrics, "errors": errors}, 1.0)
    return "pauses"


def opened(config, tmp_path, events=None):
    return SweepController.open(config, tmp_path, observe=(events if events is not None else []).append)


def run(sweep, at_most=1000) -> int:
    """Runs jobs until none is left; their number."""
    for count in range(at_most):
        job = sweep.next_job()
        if job is None:
            return count
        step(sweep, job)
    return at_most


def begun(config, tmp_path, events=None):
    """A sweep whose baseline is complete."""
    sweep = opened(config, tmp_path, events)
    complete(sweep, sweep.next_job(), commonsense=0.5, math=0.8)
    return sweep


def shares(sweep, job):
    at = sweep.pause_of(job)
    return at["rows"], at["documents"]


def test_a_trial_begins_with_a_look_at_a_part_of_its_documents(config, tmp_path):
    sweep = begun(config, tmp_path)
    job = sweep.next_job()
    assert shares(sweep, job) == (1.0, 0.25)
    assert sweep.pause_of(job)["metrics"] == ["commonsense.gain", "math.drop"]
    step(sweep, job)
    assert sweep.counts == {"done": 0, "failed": 0, "given up": 0}
    assert states(sweep) == ["running"]
    assert sweep.next_job().number == 1, "the design comes first"


@pytest.mark.parametrize(("evaluation", "rows"), [(0.5, 0.25), (4.0, 1.0)])
def test_where_training_is_most_of_a_trial_the_first_look_is_after_a_part_of_the_rows(config, tmp_path, evaluation, rows):
    sweep = opened(config, tmp_path)
    job = sweep.next_job()
    leave(sweep, job)
    record = sweep.ledger.read(job.spec.key)
    sweep.ledger.write(record.model_copy(update={"seconds": {"evaluate.math": evaluation}}))
    sweep.finish(job.spec.key)
    step(sweep, sweep.next_job())  # a second, most of it the training
    assert shares(sweep, sweep.next_job()) == (rows, 0.25)


def test_the_front_is_of_whole_trials_and_the_others_are_told_as_stopped(config, tmp_path):
    events = []
    sweep = begun(config, tmp_path, events)
    with sweep.going():
        run(sweep)
        assert sweep.over
    counts = sweep.counts
    assert counts["done"] + counts["given up"] == 10
    assert counts["given up"] >= 3
    assert states(sweep).count("pruned") == counts["given up"]
    best = max(sweep.front.rows(), key=lambda row: row["metrics"]["commonsense.gain"])
    assert best["metrics"]["commonsense.gain"] > 0.2
    stopped = [event for event in events if event.event == "trial_given_up"]
    assert len(stopped) == counts["given up"]
    assert all("of its training rows" in event.reason and "probability" in event.reason for event in stopped)
    noted = [trial for trial in Manifest.read(sweep.folder).trials if trial.given_up]
    assert len(noted) == len(stopped)
    assert all(trial.given_up.seconds > 0 for trial in noted)
    assert sum(trial.given_up.chance for trial in noted) <= RISK * (len(sweep.front) + 1)
    assert not any(trial.paused for trial in Manifest.read(sweep.folder).trials)


def test_a_killed_driver_loses_no_look(config, tmp_path):
    sweep = begun(config, tmp_path)
    run(sweep, at_most=7)
    paused = {number: trial.look for number, trial in sweep.state.queue.paused.items()}
    assert paused
    sweep.write_manifest()
    again = opened(config, tmp_path)  # the first driver left nothing but its study
    assert {number: trial.look for number, trial in again.state.queue.paused.items()} == paused
    run(again)
    assert again.over
    assert sum(again.counts.values()) == 10


def test_a_trial_that_ran_when_the_driver_was_killed_is_decided_anew(config, tmp_path):
    sweep = begun(config, tmp_path)
    job = sweep.next_job()
    while sweep.state.queue.pending[job.number].look is None:
        step(sweep, job)
        job = sweep.next_job()
    again = opened(config, tmp_path)
    assert job.number in again.state.queue.paused


def test_without_multi_fidelity_a_paused_trial_simply_goes_on(config, tmp_path):
    sweep = begun(config, tmp_path)
    step(sweep, sweep.next_job())
    plain = config.model_copy(update={"search": config.search.model_copy(update={"multi_fidelity": False})})
    again = opened(plain, tmp_path)
    job = again.next_job()
    assert job.number == 0
    assert again.pause_of(job) is None


def test_what_looks_cost_counts_against_the_budget(config, tmp_path):
    sweep = begun(config, tmp_path)
    before = sweep.spent[0]
    step(sweep, sweep.next_job())
    assert sweep.spent[0] == before + 1.0


def test_rungs_come_in_order_and_a_look_at_more_documents_skips_none():
    def look(rows, documents):
        return Look(rows=rows, documents=documents, values=(0.0,), violations={}, errors={}, seconds=1.0)

    assert rung(look(0.25, 0.5)) == (1.0, 0.25)
    assert rung(look(1.0, 0.5)) == (1.0, 1.0)
    assert rung(look(1.0, 1.0)) is None


def test_costs_are_those_of_training_and_evaluation_that_are_left(config, tmp_path):
    sweep = opened(config, tmp_path)
    job = sweep.next_job()
    leave(sweep, job)
    baseline = sweep.ledger.read(job.spec.key)
    baseline.seconds = {"evaluate.commonsense": 6.0, "evaluate.math": 10.0}
    costs = Costs(config, baseline)
    early = Look(rows=0.25, documents=0.25, values=(), violations={}, errors={}, seconds=12.0)
    costs.learn([early])  # 2 seconds of evaluation, 10 of a quarter of the training
    assert costs.left(early) == pytest.approx(30 + 16)
    assert costs.left(early.model_copy(update={"rows": 1.0})) == pytest.approx(14)
    assert costs.left(early.model_copy(update={"rows": 1.0, "documents": 1.0})) == pytest.approx(8)
    assert costs.first == (0.25, 0.25), "40 seconds of training are more than 16 of evaluation"
    assert costs.new == pytest.approx(12 + 0.4 * 46)


def test_paused_trials_are_weighed_however_many_there_are(config, tmp_path, monkeypatch):
    """After a part of the rows a trial is known by its running one alone."""
    monkeypatch.setattr(bayesian, "_PENDING", 2)
    monkeypatch.setattr(Costs, "first", (0.25, 0.25))
    sweep = begun(config, tmp_path)
    assert run(sweep) < 1000
    assert {trial.state for trial in sweep.study.trials()} <= {"complete", "pruned"}
