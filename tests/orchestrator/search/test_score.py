"""Scores are high where a gain is likely."""

import numpy as np

from orchestrator.search.evidence import Aim, Evidence
from orchestrator.search.gaussian import Inputs
from orchestrator.search.score import Known, Score

ROWS = np.linspace(0, 1, 8)[:, None]
AIM = Aim(("a",), np.ones(1), np.array([-np.inf]), ("c",), ("c",))


def learnt(values: np.ndarray, pending: np.ndarray | None = None, bases: float = -1.0, earlier: int = 0) -> Score:
    score = Score(AIM, np.array([-1.0]), np.array([[bases]]), np.random.default_rng(0))
    inputs = Inputs(ROWS, np.array([0]), np.zeros(8, int), np.zeros(8, int))
    known = Known(inputs, Evidence(values, np.full(values.shape, 1e-4)), earlier)
    score.learn(known, np.empty((0, 1)) if pending is None else pending)
    return score


def column(*values: float) -> np.ndarray:
    return np.column_stack([np.array(values), np.ones(8)])


def test_a_rising_objective_is_followed():
    scores = learnt(column(0, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7))(np.array([[0.05], [0.5], [0.95]]))
    assert scores.argmax() == 2


def test_infeasible_gains_do_not_count():
    values = column(0, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7)
    values[5:, 1] = -1.0
    scores = learnt(values)(np.array([[0.62], [0.95]]))
    assert scores[0] > 10 * scores[1]


def test_a_pending_point_promises_little():
    values = column(0, 0.2, 0.4, 0.2, 0.0, 0.2, 0.4, 0.2)
    at = np.array([[0.25]])
    assert learnt(values, pending=at)(at)[0] < 0.5 * learnt(values)(at)[0]


def test_what_the_base_has_already_is_no_gain():
    values, at = column(0, 0.1, 0.2, 0.3, 0.3, 0.2, 0.1, 0.0), np.array([[0.5]])
    assert learnt(values, bases=0.4)(at)[0] < 0.1 * learnt(values)(at)[0]


def test_without_any_gain_feasibility_leads():
    values = column(-50, -50, -50, -50, -50, -50, -50, -50)
    values[:, 1] = np.linspace(-1, -0.01, 8)
    values[:, 0] += np.linspace(0, 0.001, 8)
    scores = learnt(values)(np.array([[0.0], [1.0]]))
    assert scores[1] > scores[0]


def test_points_to_look_around_are_feasible_and_not_dominated_first():
    values = column(0, 0.1, 0.2, 0.9, 0.4, 0.5, 0.6, 0.95)
    values[6:, 1] = -1.0
    assert learnt(values).promising(1).tolist() == [3]


def test_what_another_sweep_found_is_still_a_gain_for_this_one():
    """Else the new sweep's own front would lack it."""
    values, best = column(0, 0.1, 0.2, 0.1, 0.0, 0.1, 0.2, 0.9), ROWS[7:]
    assert learnt(values, earlier=1)(best)[0] > 0.5 > 100 * learnt(values)(best)[0]
