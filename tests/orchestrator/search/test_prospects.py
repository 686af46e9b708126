"""Prospects: a paused trial that looks good is worth its rest, one that is behind is not."""

import numpy as np
from optuna.distributions import FloatDistribution
from optuna.trial import TrialState, create_trial

from orchestrator.search.evidence import ERRORS, Aim, Evidence
from orchestrator.search.gaussian import Inputs
from orchestrator.search.looks import DOCUMENTS, ROWS, Look
from orchestrator.search.prospects import Field, prospects
from orchestrator.search.score import Known, Score

AIM = Aim(("a", "b"), np.array([1.0, -1.0]), np.full(2, -np.inf), (), ())
BASES = np.zeros((1, 2))


def row(number, values, error, rows=None, documents=0.25):
    made = create_trial(
        state=TrialState.COMPLETE,
        values=values,
        params={"x": number / 10},
        distributions={"x": FloatDistribution(0, 1)},
        user_attrs={ERRORS: {"a": error, "b": error}, **({} if rows is None else {ROWS: rows, DOCUMENTS: documents})},
    )
    made.number = number
    return made


def weighed(known, pending, paused):
    score = Score(AIM, np.array([-1.0, -1.0]), BASES, np.random.default_rng(0))
    evidence = Evidence.of(known, AIM)
    x = np.array([[one.params["x"], 1.0 if one.user_attrs.get(ROWS, 1.0) == 1 else 0.0] for one in known])
    whole = x[:, 1] == 1
    rows = np.array([[one.params["x"], 1.0] for one in pending]).reshape(-1, 2)
    inputs = Inputs(x, np.array([0, 1]), np.zeros(len(x), int), np.zeros(len(x), int))
    score.learn(Known(inputs, evidence, whole=whole), rows)
    return prospects(score, Field(AIM, known, pending, BASES), paused, 0.5)


def look(values, rows=1.0, documents=0.25, error=0.05):
    return Look(rows=rows, documents=documents, values=values, violations={}, errors={"a": error, "b": error}, seconds=1.0)


def test_a_trial_ahead_of_the_front_gains_and_one_behind_it_does_not():
    known = [row(number, (0.1 * number, 0.1), 0.01) for number in range(6)]
    known += [row(8, (0.8, 0.0), 0.05, 1.0), row(1, (0.1, 0.4), 0.05, 1.0)]
    known[-1].number = 9
    found = weighed(known, [], {8: look((0.8, 0.0)), 9: look((0.1, 0.4))})
    assert found.gains[8] > 10 * found.gains[9]
    assert found.chances[8] > 0.8
    assert found.chances[9] < 0.05
    assert found.new == 0.5


def test_with_all_documents_answered_the_chance_is_certain():
    known = [row(number, (0.1 * number, 0.1), 0.01) for number in range(6)] + [row(7, (0.49, 0.1), 0.05, 1.0)]
    assert weighed(known, [], {7: look((0.49, 0.1), documents=1.0)}).chances[7] == 0
    assert weighed(known, [], {7: look((0.51, 0.1), documents=1.0)}).chances[7] == 1
    assert 0 < weighed(known, [], {7: look((0.49, 0.1), documents=0.25)}).chances[7] < 1


def test_a_diverged_trial_at_the_end_of_the_front_is_not_taken_for_a_better_one():
    """The process sees its forgetting pulled in; the front is of what was measured."""
    known = [row(number, (0.1 * number, 0.1), 0.01) for number in range(8)] + [row(9, (0.9, 30.0), 0.01, 1.0, 1.0)]
    assert weighed(known, [], {9: look((0.9, 30.0), documents=1.0)}).chances[9] == 1


def test_a_look_at_a_part_of_the_rows_is_no_point_of_the_front():
    known = [row(number, (0.1 * number, 0.1), 0.01) for number in range(6)] + [row(7, (0.9, 0.0), 0.01, 0.25)]
    pending = [row(7, (0.0, 0.0), 0.01)]
    found = weighed(known, pending, {7: look((0.9, 0.0), rows=0.25)})
    assert found.gains[7] > 0
    assert Field(AIM, known, pending, BASES).standing.tolist() == list(range(6))
    assert Field(AIM, known, pending, BASES).place(7) == 7, "the row of all its training rows"
