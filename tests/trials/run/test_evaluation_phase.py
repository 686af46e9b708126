"""The evaluation phase: stages for a judged trial, none for another."""

from collections import Counter

import pytest

from trials.evaluation import evaluate as scoring
from trials.evaluation.racing import Race, StoppedEarly
from trials.ledger.outcomes import STAGES
from trials.run.reporter import Reporter


@pytest.fixture
def baseline(spec):
    return spec.baseline()


def test_unjudged_trial_evaluates_each_role_at_once(another, baseline, monkeypatch):
    calls, evaluate = [], scoring.evaluate

    def counted(*arguments):
        calls.append(arguments)
        return evaluate(*arguments)

    monkeypatch.setattr(scoring, "evaluate", counted)
    assert another().run(baseline).failure is None
    assert len(calls) == len(baseline.eval)


def test_judge_sees_the_share_and_the_outcomes_of_each_stage(another, baseline):
    seen = Counter()

    def judge(record, share):
        seen[share] = record.outcomes["math"].n
        return "beaten" if share == STAGES[-1] else None

    worker = another()
    with pytest.raises(StoppedEarly, match="beaten"):
        worker.run(baseline, early_stopping=lambda spec: Race(["math"], "all", judge))
    assert list(seen) == list(STAGES)
    assert list(seen.values()) == sorted(seen.values())
    assert worker.session.ledger.read(baseline.key) is None


def test_stages_that_judge_nobody_are_no_evaluations_of_their_own(another, baseline, monkeypatch):
    calls, judged, evaluate = [], [], scoring.evaluate

    def counted(engine, role, *rest):
        documents = evaluate(engine, role, *rest)
        calls.append((role, len(documents)))
        return documents

    monkeypatch.setattr(scoring, "evaluate", counted)
    race = Race(["math"], "all", lambda record, share: judged.append(share), fewest=6)  # of 12 documents: half of them
    whole, staged = another(), another()
    assert staged.run(baseline, early_stopping=lambda spec: race).failure is None
    assert (calls, judged) == ([("math", 6), ("commonsense", 12), ("math", 6)], [0.5])
    del calls[:], judged[:]
    none = Race(["math"], "all", race.judge, fewest=7)
    (staged.session.ledger.folder(baseline.key) / "record.json").unlink()
    assert whole.run(baseline, early_stopping=lambda spec: none).failure is None
    assert (calls, judged) == ([("commonsense", 12), ("math", 12)], [])


def test_stage_that_an_earlier_version_answered_is_not_answered_again(another, baseline, monkeypatch):
    worker = another()
    with pytest.raises(StoppedEarly):
        worker.run(baseline, early_stopping=lambda spec: Race(["math"], "all", lambda record, share: "beaten"))
    calls, evaluate = [], scoring.evaluate

    def counted(engine, role, *rest):
        documents = evaluate(engine, role, *rest)
        calls.append((role, len(documents)))
        return documents

    monkeypatch.setattr(scoring, "evaluate", counted)
    later = Race(["math"], "all", lambda record, share: None, fewest=6)
    record = worker.run(baseline, early_stopping=lambda spec: later)
    assert calls == [("math", 4), ("commonsense", 12), ("math", 6)]
    assert record.outcomes["math"].n == 12


def test_progress_counts_the_documents_of_the_whole_role(another, baseline):
    """Not those of a stage, which would begin at 0 again and again."""
    noted, documents = [], Reporter.documents

    def noting(reporter, answered, of):
        documents(reporter, answered, of)
        noted.append((reporter.progress().phase, answered, of, reporter.progress().evaluated is not None))

    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(Reporter, "documents", noting)
        record = another().run(baseline, early_stopping=lambda spec: Race(["math"], "all", lambda record, share: None))
    assert record.failure is None
    math = [(answered, of) for phase, answered, of, _ in noted if phase == "evaluate.math"]
    whole = record.outcomes["math"].n
    assert {of for _, of in math} == {whole}
    assert [answered for answered, _ in math] == sorted(answered for answered, _ in math)
    assert (math[0][0], math[-1][0]) == (0, whole)
    assert all(turns for *_, turns in noted)
