"""Every drawing of the front takes its points, edge and bounds from one scene."""

import numpy as np
import pytest

from analysis.figures.scene import NORMAL95, RADIUS95, evenly, named, scene
from tests.factories.sweeps import OBJECTIVES, Builder


@pytest.fixture
def builder(tmp_path):
    """Two points on the front, one dominated, one beyond the constraint."""
    return Builder(tmp_path).baseline().add((26, 37)).add((24, 40)).add((23, 38)).add((40, 10))


def test_points_have_the_unit_of_the_axes_and_their_kind(builder):
    shown = scene(builder.load())
    assert shown.places == pytest.approx(np.array([[12, 7.5], [8, 0], [6, 5], [40, 75]]))
    assert shown.kinds.tolist() == ["front", "front", "dominated", "outside"]
    assert shown.baselines.tolist() == [[0, 0]]
    assert [name.split()[-2:] for name in shown.names] == [["better", "→"], ["←", "better"]]


def test_one_objective_is_drawn_over_trials_with_the_best_so_far(builder):
    shown = scene(builder.load(objectives=OBJECTIVES["one"]))
    assert shown.places[:, 0].tolist() == [0, 1, 2, 3] and not shown.errors[:, 0].any()
    assert set(shown.edge[:, 1].round(6)) == {12.0} and shown.edge[-1, 0] == 3


def test_edge_bounds_the_dominated_area(builder):
    assert scene(builder.load()).edge == pytest.approx(np.array([[8, 0], [8, 7.5], [12, 7.5]]))
    assert not len(scene(builder.load(objectives=OBJECTIVES["four"])).edge)


def test_bounds_limit_the_region(builder):
    shown = scene(builder.load())
    (bound,) = shown.bounds
    assert (bound.axis, bound.edge) == (1, pytest.approx(10))
    left, right, bottom, top = shown.region()
    assert (left, right, bottom) == pytest.approx((*shown.window[0], shown.window[1, 0])) and top == pytest.approx(10)
    assert scene(builder.load(constraints=["math.forgetting <= 0.1", "math.forgetting >= 0.2"])).region() is None


def test_window_holds_what_competes_and_not_what_is_far(builder):
    low, high = scene(builder.load()).window.T
    near, far = [[0, 0], [12, 7.5], [8, 0], [6, 5], [0, 10]], [40, 75]  # with baseline and bound
    assert ((near >= low) & (near <= high)).all() and (far > high).all()
    nothing_feasible = scene(builder.load(constraints=["math.forgetting <= -0.05"]))
    low, high = nothing_feasible.window.T
    assert ((nothing_feasible.places >= low) & (nothing_feasible.places <= high)).all()


@pytest.mark.parametrize("objectives", ["one", "two", "four"])
def test_window_holds_trials_that_are_undominated_in_the_shown_values(builder, objectives):
    sweep = builder.load(objectives=OBJECTIVES[objectives])
    sweep.trials.loc[2, "commonsense.gain" if objectives == "one" else "math.forgetting"] = 9 if objectives == "one" else -9
    shown = scene(sweep)
    low, high = shown.window.T
    within = ((shown.places >= low) & (shown.places <= high)).all(axis=1)
    assert shown.kinds[2] == "dominated" and within[:3].all()
    assert not within[3] or objectives == "one"  # beyond the constraint in the shown values too


def test_ellipse_has_the_interval_where_no_document_changed(builder):
    sweep = builder.load()
    sweep.trials.loc[1, "math.forgetting_se"] = 0.0
    low, high = sweep.trials.loc[1, ["math.forgetting_low", "math.forgetting_high"]]
    shown = scene(sweep)
    assert RADIUS95 * shown.errors[1, 1] == pytest.approx(50 * (high - low)) and high > low
    assert shown.window[1, 0] < -RADIUS95 * shown.errors[1, 1]
    one = scene(builder.load(objectives=[{"metric": "math.forgetting", "direction": "minimize"}]))
    assert NORMAL95 * one.errors[1, 1] == pytest.approx(50 * (high - low))


def test_unfinished_sweep_has_no_points(tmp_path):
    assert not len(scene(Builder(tmp_path).load()).rows)


def test_rows_are_thinned_evenly_with_both_ends(builder):
    rows = builder.load().trials
    assert evenly(rows, 2)["number"].tolist() == [0, 3] and len(evenly(rows, 10)) == 4
    assert evenly(rows[:0], 2).empty


def test_trials_at_one_place_share_a_label():
    places = np.array([[0, 0], [1, 1], [0, 0], *[[2, 2]] * 5])
    assert list(named(places, range(8)).values()) == ["#0 #2", "#1", "#3 #4 #5 #6 …"]
