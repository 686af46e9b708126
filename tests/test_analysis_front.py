"""The front against the definition, written out."""

import numpy as np
import pytest

from analysis.front import front, hypervolume, orient, ranks, reference_point
from analysis.metrics import Objective, parse_constraint


def dominates(a, b):
    return (a <= b).all() and (a < b).any()


def brute_front(points, feasible):
    part = [n for n in range(len(points)) if feasible[n] and np.isfinite(points[n]).all()]
    kept = [n for n in part if not any(dominates(points[m], points[n]) for m in part)]
    return np.isin(np.arange(len(points)), kept)


def brute_ranks(points, feasible):
    result, left = np.full(len(points), -1), np.array(feasible)
    for rank in range(len(points)):
        layer = brute_front(points, left)
        result[layer] = rank
        left = left & ~layer
    return result


def brute_volume(points, reference):
    """Inclusion and exclusion over all subsets."""
    points = points[(points < reference).all(axis=1)]
    total = 0.0
    for subset in range(1, 2 ** len(points)):
        rows = [n for n in range(len(points)) if subset >> n & 1]
        total -= (-1) ** len(rows) * np.prod(reference - points[rows].max(axis=0))
    return total


@pytest.mark.parametrize("objectives", [1, 2, 3, 4])
@pytest.mark.parametrize("seed", range(25))
def test_front_and_ranks_are_those_of_the_definition_with_ties_and_duplicates(objectives, seed):
    rng = np.random.default_rng([objectives, seed])
    points = rng.integers(0, 5, (rng.integers(1, 40), objectives)).astype(float)
    points[rng.random(points.shape) < 0.03] = np.nan
    feasible = rng.random(len(points)) < 0.8
    assert (front(points, feasible) == brute_front(points, feasible)).all()
    assert (ranks(points, feasible) == brute_ranks(points, feasible)).all()


@pytest.mark.parametrize("objectives", [1, 2, 3, 4])
@pytest.mark.parametrize("seed", range(8))
def test_hypervolume_is_that_of_the_union_of_boxes(objectives, seed):
    rng = np.random.default_rng([objectives, seed])
    points = rng.integers(0, 6, (8, objectives)).astype(float)
    reference = np.full(objectives, 4.5)
    assert hypervolume(points, reference) == pytest.approx(brute_volume(points, reference))


def test_of_equal_points_all_are_kept():
    points = np.array([[0.0, 1.0], [0.0, 1.0], [1.0, 1.0]])
    assert front(points, np.ones(3, dtype=bool)).tolist() == [True, True, False]


def test_an_infeasible_or_undefined_point_neither_is_on_the_front_nor_hides_another():
    points = np.array([[0.0, 0.0], [np.nan, -1.0], [1.0, 1.0]])
    assert front(points, np.array([False, True, True])).tolist() == [False, False, True]


@pytest.mark.parametrize("objectives", [1, 3])
def test_nothing_has_an_empty_front_and_no_volume(objectives):
    points = np.empty((0, objectives))
    assert front(points, np.empty(0, dtype=bool)).shape == (0,)
    assert hypervolume(points, np.zeros(objectives)) == 0.0
    assert not front(np.ones((2, objectives)), np.zeros(2, dtype=bool)).any()


def test_objectives_are_turned_so_that_less_is_better():
    objectives = [Objective("a.gain", "maximize"), Objective("b.drop", "minimize")]
    assert orient(np.array([[1.0, 2.0]]), objectives).tolist() == [[-1.0, 2.0]]


def test_the_reference_is_the_constraint_or_what_is_worth_nothing():
    objectives = [Objective("a.gain", "maximize"), Objective("b.forgetting", "minimize"), Objective("c.value", "maximize")]
    assert reference_point(objectives, []).tolist() == [0.0, 1.0, 0.0]
    bounds = ["b.forgetting <= 0.2", "b.forgetting <= 0.1", "c.value >= 0.3", "a.gain <= 0.5"]
    assert reference_point(objectives, [parse_constraint(text) for text in bounds]).tolist() == [0.0, 0.1, 0.3]
