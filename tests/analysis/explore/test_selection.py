"""Picking a point, on sweeps written by the real classes and on frames of known numbers."""

import dataclasses
import math

import numpy as np
import pytest

from analysis.explore.selection import course, groups, knee, traded, tradeoff
from analysis.results.frame import oriented
from analysis.results.load import load
from analysis.stats import pareto
from tests.factories.sweeps import FOUR, OBJECTIVES, SITUATIONS, TWO, oom


def with_points(sweep, gains, losses, errors=0.0):
    """The sweep with finished trials of these gains and forgetting rates in place of its own, judged anew."""
    frame = sweep.trials.iloc[[0] * len(gains)].reset_index(drop=True)
    frame["number"] = np.arange(len(frame))
    frame["state"] = "complete"
    for name, values in (("commonsense.gain", gains), ("math.forgetting", losses)):
        frame[name] = frame[f"{name}_search"] = np.asarray(values, dtype=float)
        frame[f"{name}_se"] = errors
    frame["feasible"] = frame["math.forgetting_search"] <= 0.1
    points = pareto.orient(frame[["commonsense.gain_search", "math.forgetting_search"]].to_numpy(), sweep.objectives)
    frame["front_rank"] = pareto.ranks(points, frame["feasible"].to_numpy(dtype=bool))
    frame["on_front"] = frame["front_rank"] == 0
    noise = np.random.default_rng(0).standard_normal((500, len(frame), 2)) * errors
    return dataclasses.replace(sweep, trials=frame, draws=frame[["commonsense.gain", "math.forgetting"]].to_numpy() + noise)


@pytest.fixture
def sweep(builder):
    return builder.baseline().add((26, 37)).load()


def test_knee_is_farthest_from_the_line_between_the_ends(sweep):
    assert knee(with_points(sweep, [0.0, 0.08, 0.09, 0.10], [0.0, 0.01, 0.05, 0.10])) == 1


@pytest.mark.parametrize(
    ("gains", "losses"),
    [
        ([0.0, 0.1], [0.0, 0.1]),
        ([0.0, 0.1, 0.1], [0.0, 0.1, 0.1]),
        ([0.0, 0.05, 0.1], [0.0, 0.05, 0.1]),
        ([0.0, 0.02, 0.1], [0.0, 0.05, 0.1]),
    ],
    ids=["two", "two different", "straight", "hollow"],
)
def test_straight_or_hollow_front_has_no_knee(sweep, gains, losses):
    assert knee(with_points(sweep, gains, losses)) is None


def test_knee_does_not_depend_on_units(sweep):
    gains, losses = np.array([0.0, 0.07, 0.08, 0.10]), np.array([0.0, 0.03, 0.05, 0.10])
    assert knee(with_points(sweep, gains, losses)) == knee(with_points(sweep, 1e-3 * gains, losses)) == 1


def best_within(sweep, bound):
    """The number of the last step that keeps the bound, None without one."""
    steps, sign = tradeoff(sweep), 1 if traded(sweep)[1].direction == "minimize" else -1
    kept = steps[sign * steps["bound"] <= sign * bound + 1e-9]
    return int(kept["number"].iloc[-1]) if len(kept) else None


def test_best_within_a_bound_is_the_best_of_all_trials(sweep):
    rng = np.random.default_rng(0)
    gains, losses = rng.integers(-10, 30, 200) / 100, rng.integers(-10, 60, 200) / 100
    found = with_points(sweep, gains, losses)
    steps = tradeoff(found)
    assert (np.diff(steps["bound"]) > 0).all() and (np.diff(steps["best"]) > 0).all()
    for bound in np.linspace(-0.2, 0.7, 91):
        best = max((gain for gain, loss in zip(gains, losses, strict=True) if loss <= bound + 1e-9), default=None)
        number = best_within(found, float(bound))
        assert (number is None) == (best is None)
        assert number is None or (gains[number] == best and losses[number] <= bound + 1e-9)


def test_any_bound_may_be_set_but_other_constraints_hold(builder):
    builder.baseline().add((26, 37)).add((40, 10))
    assert best_within(builder.load(), 1.0) == 1
    assert best_within(builder.load(), 0.10) == 0
    assert best_within(builder.load(constraints=["math.value >= 0.5"]), 1.0) == 0


def test_single_objective_is_traded_against_a_constrained_metric(builder):
    builder.baseline().add((26, 37)).add((40, 10))
    sweep = builder.load(objectives=TWO[:1])
    assert tradeoff(sweep)["number"].tolist() == [0, 1]
    assert tradeoff(builder.load(objectives=TWO[:1], constraints=[])).empty


def test_maximised_second_objective_is_bounded_from_below(builder):
    builder.baseline().add((26, 37)).add((40, 10))
    sweep = builder.load(objectives=[TWO[0], {"metric": "math.value", "direction": "maximize"}], constraints=[])
    assert tradeoff(sweep)["bound"].tolist() == [37 / 50, 10 / 50]
    assert best_within(sweep, 0.5) == 0
    assert best_within(sweep, 0.9) is None


def test_near_duplicates_group_without_chaining(sweep):
    found = with_points(sweep, [0.00, 0.01, 0.02, 0.03], [0.00, 0.01, 0.02, 0.03], errors=0.01)
    # by gain: 3 leads 2 (0.010 apart, error of the difference 0.014), 1 is 0.020 from 3 and leads 0
    assert groups(found).to_dict() == {3: 3, 2: 3, 1: 1, 0: 1}
    assert groups(with_points(sweep, [0.0, 0.01, 0.01], [0.0, 0.01, 0.01])).to_dict() == {1: 1, 2: 1, 0: 0}


def volume(sweep):
    """Of the front and the bases, on the documents that the search saw."""
    rows = [oriented(one[one["feasible"]], sweep.criteria) for one in (sweep.trials, sweep.baselines)]
    reference = pareto.orient(np.array(sweep.reference), sweep.objectives)
    return pareto.hypervolume(np.concatenate(rows), reference) if sweep.trials["on_front"].any() else 0.0


def test_course_counts_failed_trials_and_ends_at_the_volume_that_the_search_saw(builder):
    sweep = SITUATIONS["usual"](builder).load()
    found = course(sweep)
    assert found["trials"].tolist() == [1, 2, 3, 4, 5]
    assert found["gpu_hours"].tolist() == pytest.approx([5.5 / 3600 * n for n in (1, 2, 3, 4, 4)])
    assert found["hypervolume"].iloc[-1] == pytest.approx(volume(sweep))
    assert found["hypervolume"].is_monotonic_increasing


@pytest.mark.parametrize("objectives", OBJECTIVES)
@pytest.mark.parametrize("situation", SITUATIONS)
def test_every_situation_has_a_choice_or_none(builder, situation, objectives):
    sweep = SITUATIONS[situation](builder).load(objectives=OBJECTIVES[objectives])
    assert knee(sweep) is None or knee(sweep) in set(sweep.front["number"])
    assert set(groups(sweep).index) == set(sweep.front["number"])
    steps, ended = tradeoff(sweep), course(sweep)
    assert list(steps) == ["bound", "best", "best_se", "at", "at_se", "number", "key"]
    assert len(ended) == int((sweep.trials["state"] != "pending").sum())
    assert math.isclose(ended["hypervolume"].iloc[-1] if len(ended) else 0.0, volume(sweep), abs_tol=1e-12)


def test_choices_scale_to_ten_thousand_trials(builder):
    sweep = builder.baseline().add((26, 37)).load(objectives=FOUR, constraints=[])
    rng = np.random.default_rng(0)
    names = [one.metric for one in sweep.objectives]
    frame = sweep.trials.iloc[[0] * 10_000].reset_index(drop=True)
    frame["number"] = np.arange(10_000)
    for name in names:
        frame[name] = frame[f"{name}_search"] = rng.normal(0, 0.1, 10_000)
    points = pareto.orient(frame[names].to_numpy(), sweep.objectives)
    frame["on_front"] = pareto.front(points, np.ones(10_000, dtype=bool))
    found = dataclasses.replace(sweep, trials=frame, draws=frame[list(sweep.judged)].to_numpy()[None])
    reference = pareto.orient(np.array(sweep.reference), sweep.objectives)
    assert course(found)["hypervolume"].iloc[-1] == pytest.approx(pareto.hypervolume(points, reference))
    assert knee(found) is not None
    assert len(groups(found)) == frame["on_front"].sum()
    assert tradeoff(found)["best"].is_monotonic_increasing


def test_search_half_decides_and_report_half_is_quoted(sweep):
    found = with_points(sweep, [0.0, 0.08, 0.10], [0.0, 0.01, 0.10])
    found.trials["commonsense.gain"] = [0.5, -0.5, 0.4]
    steps = tradeoff(found)
    assert steps["bound"].tolist() == [0.0, 0.01, 0.10]
    assert steps["best"].tolist() == [0.5, -0.5, 0.4]
    assert knee(found) == 1


def test_hypervolume_of_a_value_is_measured_from_the_baseline(builder):
    sweep = (
        builder.baseline()
        .add((26, 37))
        .add(failure=oom())
        .load(objectives=[{"metric": "commonsense.value", "direction": "maximize"}], constraints=[])
    )
    assert sweep.reference == (20 / 50,)
    assert load(sweep.folder).hypervolume == pytest.approx(6 / 50, rel=0.1)
