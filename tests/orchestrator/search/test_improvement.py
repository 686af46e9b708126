"""Boxes cover the space that a front leaves, and expected gains are means of gains."""

import numpy as np
import pytest

from analysis.stats.pareto import hypervolume
from orchestrator.search.improvement import boxes, expected_gain, nondominated


def volume(front: np.ndarray, reference: np.ndarray) -> float:
    return hypervolume(-front, -reference)


@pytest.mark.parametrize("m", [1, 2, 3, 4])
def test_expected_gain_of_a_certain_point_is_its_gain(m):
    random, reference = np.random.default_rng(m), np.full(m, 0.1)
    for _ in range(20):
        front, point = random.random((6, m)), random.random((1, m))
        gained = volume(np.vstack([front, point]), reference) - volume(front, reference)
        found = expected_gain(point, np.full((1, m), 1e-9), boxes(nondominated(front), reference), np.full(m, -np.inf))
        assert found[0] == pytest.approx(gained, abs=1e-7)


def test_expected_gain_is_the_mean_over_draws_and_infeasible_ones_gain_nothing():
    random, reference = np.random.default_rng(0), np.zeros(2)
    front, mean, sd, least = random.random((4, 2)), np.array([[0.6, 0.5]]), np.array([[0.3, 0.2]]), np.array([-np.inf, 0.45])
    drawn = mean + sd * random.standard_normal((4000, 2))
    before = volume(front, reference)
    gains = [(volume(np.vstack([front, one]), reference) - before) * (one[1] >= 0.45) for one in drawn]
    found = expected_gain(mean, sd, boxes(nondominated(front), reference), least)
    assert found[0] == pytest.approx(np.mean(gains), abs=4 * np.std(gains) / np.sqrt(len(gains)))


def test_points_below_the_reference_leave_all_of_the_space():
    lower, upper = boxes(np.array([[-1.0, 2.0]]), np.zeros(2))
    assert (lower.tolist(), upper.tolist()) == ([[0.0, 0.0]], [[np.inf, np.inf]])


def test_nondominated_keeps_each_point_once():
    points = np.array([[1.0, 0.0], [0.0, 1.0], [0.0, 0.5], [1.0, 0.0]])
    assert nondominated(points).tolist() == [[0.0, 1.0], [1.0, 0.0]]
