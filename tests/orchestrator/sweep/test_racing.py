"""Racing in a sweep: a surviving trial ends as without racing; a beaten one keeps its checkpoint and has no record."""

import shutil

import numpy as np
import pandas as pd
import pytest

from analysis.results.load import load
from analysis.results.manifest import Manifest
from orchestrator.cluster.searcher import StudySearcher
from orchestrator.config.model import SweepConfig
from orchestrator.sweep.controller import SweepController
from orchestrator.sweep.racing import against, race
from tests.factories.sweep_state import complete, run_out
from trials.evaluation import evaluate
from trials.evaluation import racing as stages
from trials.evaluation.racing import Race, StoppedEarly
from trials.ledger.outcomes import STAGES
from trials.ledger.record import Failure, TrialRecord
from trials.spec import TrialSpec
from trials.tasks import splits

ROLES = ("commonsense", "math")


@pytest.fixture
def spec(spec) -> TrialSpec:
    """With enough documents for stages."""
    wanted = {role: one.model_copy(update={"documents": 40}) for role, one in spec.eval.items()}
    return spec.model_copy(update={"eval": wanted})


def racing(judge):
    return lambda spec: Race(ROLES, "search", judge)


@pytest.fixture
def evaluated(monkeypatch) -> list[tuple[str, int]]:
    """Role and number of documents of each evaluation."""
    found, whole = [], evaluate.evaluate

    def counted(engine, role, *rest):
        documents = whole(engine, role, *rest)
        found.append((role, len(documents)))
        return documents

    monkeypatch.setattr(evaluate, "evaluate", counted)
    return found


def assert_same(one, other, key: str) -> None:
    mine, theirs = one.session.ledger.read(key), other.session.ledger.read(key)
    assert mine.state == theirs.state == "complete"
    assert mine.scores == theirs.scores
    halves = [
        {role: {half: one["score"] for half, one in halves.items()} for role, halves in r.halves.items()}
        for r in (mine, theirs)
    ]
    assert halves[0] == halves[1]
    assert {role: packed.documents for role, packed in mine.outcomes.items()} == {
        role: packed.documents for role, packed in theirs.outcomes.items()
    }
    assert set(mine.seconds) == set(theirs.seconds)
    frames = [worker.session.ledger.documents(key) for worker in (one, other)]
    numbers = frames[0].select_dtypes("number").columns
    same = frames[0].columns.difference([*numbers, "response"])
    pd.testing.assert_frame_equal(frames[0][same], frames[1][same])
    texts = [frame.loc[frame["role"] == "math", "response"].tolist() for frame in frames]
    assert texts[0] == texts[1]
    pd.testing.assert_frame_equal(frames[0][numbers], frames[1][numbers], atol=1e-4)


def test_surviving_trial_has_the_record_that_it_has_without_racing(worker, another, spec, evaluated):
    worker.run(spec)
    shares, seen = [], []

    def judge(record, share):
        shares.append(share)
        seen.append({role: int(np.isfinite(record.outcomes[role].column("score")).sum()) for role in ROLES})

    del evaluated[:]
    raced = another()
    raced.run(spec, early_stopping=racing(judge))
    assert shares == list(STAGES)
    assert seen[0]["math"] < seen[1]["math"] < seen[2]["math"] < 40
    for role in ROLES:
        assert sum(count for which, count in evaluated if which == role) == 40  # none is answered twice
    assert_same(raced, worker, spec.key)
    assert not (raced.session.ledger.folder(spec.key) / "partial").exists()


def test_beaten_trial_stops_and_a_later_run_resumes_it(worker, another, spec, evaluated):
    worker.run(spec)
    del evaluated[:]
    raced = another()
    judge = racing(lambda record, share: "beaten" if share == STAGES[1] else None)
    with pytest.raises(StoppedEarly, match="beaten"):
        raced.run(spec, early_stopping=judge)
    assert raced.session.ledger.read(spec.key) is None
    done = sum(count for _, count in evaluated)
    assert 0 < done < 40
    del evaluated[:]
    later = another()
    assert later.run(spec).resumed  # its training is not repeated
    assert sum(count for _, count in evaluated) == 80 - done
    assert_same(later, worker, spec.key)


def test_beaten_trial_does_not_end_those_trained_with_it(another, spec):
    other = spec.model_copy(update={"train": spec.train.model_copy(update={"seed": 5})})
    judge = racing(lambda record, share: "beaten")
    stopping = lambda one: judge(one) if one.key == spec.key else None  # noqa: E731
    beaten, record = another().run_many([spec, other], early_stopping=stopping)
    assert isinstance(beaten, StoppedEarly)
    assert record.state == "complete"
    assert record.together == 2


def test_stages_are_disjoint_and_keep_clusters_of_the_judged_half_whole():
    asked = [
        stages.Document(task, number, f"{task}{number}", "search" if number % 2 else "report", f"{task}{number // 6}")
        for task in "ab"
        for number in range(60)
    ]
    clusters = {(one.task, one.number): one.cluster for one in asked}
    found = stages.stages(asked, "search")
    pairs = [{(task, number) for task, numbers in stage.items() for number in numbers} for stage in found]
    assert len(found) == len(STAGES) + 1
    assert sum(map(len, pairs)) == len(set().union(*pairs)) == 120
    assert all(number % 2 for stage in pairs[:-1] for _, number in stage)
    for stage in pairs[:-1]:
        touched = {clusters[pair] for pair in stage}
        assert all((one.task, one.number) in stage for one in asked if one.cluster in touched and one.half == "search")
    assert len(pairs[0]) == pytest.approx(60 * STAGES[0], abs=6)
    assert stages.stages(asked[::-1], "search")[0] == found[0]


def test_documents_have_lm_evals_own_hashes(worker, spec):
    record = worker.run(spec.baseline())
    frame = worker.session.ledger.documents(record.key)
    for role in ROLES:
        built = worker.session.tasks.build(spec.eval[role])
        asked = stages.documents(built, splits.document_numbers(spec.eval[role], built))
        rows = frame[frame["role"] == role]
        assert [(one.number, one.hash, one.half) for one in asked] == list(
            zip(rows["doc_id"], rows["doc_hash"], rows["half"], strict=True)
        )


@pytest.mark.slow
def test_ruined_trial_is_given_up_and_a_good_one_is_not(another, spec):
    wanted = {role: one.model_copy(update={"documents": 160}) for role, one in spec.eval.items()}
    good = spec.model_copy(update={"eval": wanted, "train": spec.train.model_copy(update={"learning_rate": 1e-5})})
    ruined = good.model_copy(update={"train": spec.train.model_copy(update={"learning_rate": 0.3})})
    made = another()
    made.run(good.baseline())
    made.run(good)
    parts = {name: part for name, part in good.model_dump(mode="json").items() if name != "derive"}
    search = {"sampler": "grid", "racing": True, "objectives": [{"metric": "commonsense.gain"}, {"metric": "math.drop"}]}
    for objective, direction in zip(search["objectives"], ("maximize", "minimize"), strict=True):
        objective["direction"] = direction
    space = {"lora.rank": {"type": "categorical", "choices": [2, 4]}}
    config = SweepConfig.model_validate({"name": "raced", **parts, "space": space, "search": search})
    criteria = against(config, [good.key], [good.baseline().key])

    def stopping(one):
        return race(criteria, one, made.session.ledger)

    with pytest.raises(StoppedEarly, match=r"the front or the base beats it \(p = "):
        made.run(ruined, early_stopping=stopping)
    (made.session.ledger.folder(good.key) / "record.json").write_text("{")  # which is not the fault of who is judged by it
    judge = race(criteria, ruined, made.session.ledger).judge
    assert judge(made.session.ledger.read(good.baseline().key), 0.5) is None
    shutil.rmtree(made.session.ledger.folder(good.key))
    made.run(good, early_stopping=stopping)
    twin = good.model_copy(update={"train": good.train.model_copy(update={"seed": 3})})
    assert made.run(twin, early_stopping=stopping).state == "complete"
    assert stopping(good.baseline()) is None
    assert race(against(config, [], []), ruined, made.session.ledger) is None  # the base keeps no constraint: it races nobody
    with pytest.raises(StoppedEarly):  # the base alone beats it
        another().run(
            ruined, early_stopping=lambda one: race(against(config, [], [good.baseline().key]), one, made.session.ledger)
        )


@pytest.fixture
def config(parts) -> SweepConfig:
    parts["space"]["lora.rank"]["choices"] = [2, 4, 8]
    parts["search"]["racing"] = True
    return SweepConfig.model_validate(parts)


def test_given_up_trial_is_pruned_in_the_study_and_not_run_again(config, tmp_path, command):
    events = []
    sweep = SweepController.open(config, tmp_path, events.append)
    complete(sweep, sweep.next_job())
    complete(sweep, sweep.next_job())
    job = sweep.next_job()
    sweep.finish(job.spec.key, "given up", "the front beats it", 2.0)
    run_out(sweep)
    assert sweep.over
    assert [trial.state for trial in sweep.study.trials()] == ["complete", "pruned", "complete"]
    assert sweep.counts == {"done": 2, "failed": 0, "given up": 1}
    assert sweep.spent[0] == pytest.approx(2.0 + 3.0)
    assert [event.reason for event in events if event.event == "trial_given_up"] == ["the front beats it"]
    with sweep.going():
        pass
    again = SweepController.open(config, tmp_path)
    assert again.next_job() is None
    assert again.counts == sweep.counts
    assert again.state.unfinished == 0
    failure = Failure(kind="OSError", message="an earlier attempt's", traceback="")
    sweep.ledger.write(TrialRecord(key=job.spec.key, state="failed", spec=job.spec, failure=failure))
    found = load(sweep.folder)
    assert found.trials["state"].tolist() == ["complete", "given up", "complete"]
    assert found.failures.empty
    assert found.trials["seconds"].tolist()[1] == 2.0
    assert "1 given up, 0 waiting" in command("status", sweep.folder).stdout


def test_given_up_trial_violates_every_constraint_in_the_study(config, tmp_path):
    constrained = config.search.model_copy(update={"constraints": ("math.drop <= 0.1",)})
    sweep = SweepController.open(config.model_copy(update={"search": constrained}), tmp_path)
    complete(sweep, sweep.next_job())
    job = sweep.next_job()
    sweep.finish(job.spec.key, "given up", "the front beats it", 2.0)
    assert [value > 1 for value in sweep.study.trials()[job.number].constraints.values()] == [True, True]


def test_trial_with_a_lost_record_is_not_judged(config, tmp_path):
    sweep = SweepController.open(config, tmp_path)
    run_out(sweep)
    lost = sweep.front.rows()[0]["key"]
    with sweep.going():
        pass
    shutil.rmtree(sweep.ledger.folder(lost))
    job = StudySearcher(SweepController.open(config, tmp_path), lambda: 1).suggest("x")["jobs"][0]
    assert (TrialSpec.model_validate_json(job["spec"]).key, job["judged"]) == (lost, False)


def test_other_drivers_read_that_a_trial_was_given_up(config, tmp_path):
    shared = config.model_copy(update={"search": config.search.model_copy(update={"study": "journal"})})
    first, second = SweepController.open(shared, tmp_path), SweepController.open(shared, tmp_path)
    complete(first, first.next_job())
    job = first.next_job()
    complete(second, second.next_job())  # has noted the other's as running
    first.finish(job.spec.key, "given up", "the front beats it", 2.0)
    run_out(second)
    assert second.state.manifest.trials[job.number].given_up.reason == "the front beats it"


def test_last_manifest_has_what_other_drivers_reported_after_the_budget_was_used_up(config, tmp_path):
    """The one that ends last writes it, and may not have asked since."""
    shared = config.model_copy(update={"search": config.search.model_copy(update={"study": "journal"})})
    first, second = SweepController.open(shared, tmp_path), SweepController.open(shared, tmp_path)
    complete(first, first.next_job())
    job = first.next_job()
    own = list(iter(second.next_job, None))
    assert not second.state.may_ask
    with second.going():
        first.finish(job.spec.key, "given up", "the front beats it", 2.0)
        for one in own:
            complete(second, one)
    found = {one.number: one for one in Manifest.read(second.folder).trials}
    assert found[job.number].given_up.reason == "the front beats it"


@pytest.mark.parametrize("before", [True, False])
def test_resumed_sweep_may_start_racing_and_stop_it(config, tmp_path, before):
    """Also one that began when racing was off by default."""
    first, then = (
        config.model_copy(update={"search": config.search.model_copy(update={"racing": racing})})
        for racing in (before, not before)
    )
    with (sweep := SweepController.open(first, tmp_path)).going():
        complete(sweep, sweep.next_job())
        complete(sweep, sweep.next_job())
    again = SweepController.open(then, tmp_path)
    assert again.counts["done"] == 1
    assert again.next_job() is not None


def test_workers_get_the_front_only_in_a_racing_sweep(config, parts, tmp_path):
    for place, one in (
        ("a", config),
        ("b", config.model_copy(update={"search": config.search.model_copy(update={"racing": False})})),
    ):
        sweep = SweepController.open(one, tmp_path / place)
        complete(sweep, sweep.next_job())
        complete(sweep, sweep.next_job())
        criteria = StudySearcher(sweep, lambda: 1).suggest("x")["against"]
        front = [row["key"] for row in sweep.front.rows()]
        assert (criteria["front"] == front != []) if one.search.racing else criteria is None
