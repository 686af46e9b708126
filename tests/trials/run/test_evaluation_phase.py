"""The evaluation phase: stages for a judged trial, none for another."""

from collections import Counter

import pytest

from trials.evaluation import evaluate as scoring
from trials.evaluation.racing import Race, StoppedEarly
from trials.ledger.outcomes import STAGES


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
