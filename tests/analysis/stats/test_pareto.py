"""The front against the definition, written out."""

import numpy as np
import pytest

from analysis.metrics.names import Objective, parse_constraint
from analysis.stats.pareto import front, hypervolume, hypervolumes, orient, ranks, reference_point


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


def brute_grid_volume(points, reference):
    """The cells of the grid through all coordinates whose lower corner some point dominates."""
    edges = [np.unique([*points[:, axis], reference[axis]]) for axis in range(len(reference))]
    edges = [one[one <= reference[axis]] for axis, one in enumerate(edges)]
    lows = np.stack(np.meshgrid(*(one[:-1] for one in edges), indexing="ij"), axis=-1).reshape(-1, len(reference))
    sizes = np.stack(np.meshgrid(*(np.diff(one) for one in edges), indexing="ij"), axis=-1).reshape(-1, len(reference))
    inside = np.array([(points <= low).all(axis=1).any() for low in lows], dtype=bool)
    return sizes[inside].prod(axis=1).sum()


def instance(objectives, seed):
    """Up to 40 points on a coarse grid, so that there are ties and duplicates, some of them undefined, some infeasible."""
    rng = np.random.default_rng([objectives, seed])
    points = rng.integers(0, 5, (rng.integers(0, 40), objectives)) / 4
    points[rng.random(points.shape) < 0.03] = np.nan
    return points, rng.random(len(points)) < 0.8


@pytest.mark.parametrize("objectives", [1, 2, 3, 4])
def test_front_ranks_and_hypervolume_match_their_definitions(objectives):
    """Ties, duplicates, undefined values and infeasible points included; 250 instances for each number of objectives."""
    for seed in range(250):
        points, feasible = instance(objectives, seed)
        expected = brute_ranks(points, feasible)
        assert (front(points, feasible) == brute_front(points, feasible)).all(), seed
        assert (ranks(points, feasible) == expected).all(), seed
        assert (ranks(points, feasible, 2) == np.minimum(expected, 2)).all(), seed
        reference = np.full(objectives, 0.875)
        taken = points[feasible & np.isfinite(points).all(axis=1)]
        volume = brute_grid_volume(taken, reference)
        assert hypervolume(points[feasible], reference) == pytest.approx(volume), seed
        assert np.append(0, hypervolumes(points, feasible, reference))[-1] == pytest.approx(volume), seed


@pytest.mark.parametrize("objectives", [1, 2, 3, 4])
@pytest.mark.parametrize("seed", range(8))
def test_hypervolume_is_that_of_the_union_of_boxes(objectives, seed):
    rng = np.random.default_rng([objectives, seed])
    points = rng.integers(0, 6, (8, objectives)).astype(float)
    reference = np.full(objectives, 4.5)
    assert hypervolume(points, reference) == pytest.approx(brute_volume(points, reference))


@pytest.mark.parametrize("objectives", [1, 2, 3, 4])
def test_hypervolumes_are_the_volumes_of_every_prefix(objectives):
    for seed in range(20):
        points, feasible = instance(objectives, seed)
        reference = np.full(objectives, 0.875)
        expected = [hypervolume(points[: end + 1][feasible[: end + 1]], reference) for end in range(len(points))]
        assert hypervolumes(points, feasible, reference) == pytest.approx(np.array(expected))


def test_equal_points_are_all_kept():
    points = np.array([[0.0, 1.0], [0.0, 1.0], [1.0, 1.0]])
    assert front(points, np.ones(3, dtype=bool)).tolist() == [True, True, False]


def test_infeasible_or_undefined_point_takes_no_part():
    points = np.array([[0.0, 0.0], [np.nan, -1.0], [1.0, 1.0]])
    assert front(points, np.array([False, True, True])).tolist() == [False, False, True]


@pytest.mark.parametrize("objectives", [1, 3])
def test_no_points_have_an_empty_front_and_no_volume(objectives):
    points = np.empty((0, objectives))
    assert front(points, np.empty(0, dtype=bool)).shape == (0,)
    assert hypervolume(points, np.zeros(objectives)) == 0.0
    assert not front(np.ones((2, objectives)), np.zeros(2, dtype=bool)).any()


def test_orient_makes_less_better():
    objectives = [Objective(metric="a.gain", direction="maximize"), Objective(metric="b.drop", direction="minimize")]
    assert orient(np.array([[1.0, 2.0]]), objectives).tolist() == [[-1.0, 2.0]]


def test_reference_is_the_constraint_or_the_worst_value():
    objectives = [
        Objective(metric="a.gain", direction="maximize"),
        Objective(metric="b.forgetting", direction="minimize"),
        Objective(metric="c.value", direction="maximize"),
    ]
    assert reference_point(objectives, []).tolist() == [0.0, 1.0, 0.0]
    bounds = ["b.forgetting <= 0.2", "b.forgetting <= 0.1", "c.value >= 0.3", "a.gain <= 0.5"]
    assert reference_point(objectives, [parse_constraint(text) for text in bounds]).tolist() == [0.0, 0.1, 0.3]


def test_reference_of_a_value_is_the_baselines():
    objectives = [
        Objective(metric="a.value", direction="maximize"),
        Objective(metric="b.value", direction="maximize"),
        Objective(metric="a.gain", direction="maximize"),
    ]
    assert reference_point(objectives, [], {"a.value": 0.6}).tolist() == [0.6, 0.0, 0.0]
    assert reference_point(objectives, [parse_constraint("a.value >= 0.7")], {"a.value": 0.6}).tolist() == [0.7, 0.0, 0.0]
