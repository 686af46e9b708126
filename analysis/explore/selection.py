"""Picking a point: the knee of the front, the best within any bound, which points are one, how the front came about.

All of it is decided on what the search saw, as the front is; where there is a report half, what is quoted of the picked trial
is of that half (the plain columns of `Sweep.trials`).
"""

import numpy as np
import pandas as pd

from analysis.metrics.names import Constraint, Objective
from analysis.results import schema as col
from analysis.results.sweep import Sweep
from analysis.stats import pareto


def knee(sweep: Sweep) -> int | None:
    """Number of the front's trial where more of one objective begins to cost most of another; None where there is none.

    The point farthest from the line between the ends of the front, on the side of the ideal, after each objective was scaled to
    0..1 over the front (Das 1999, doi:10.1007/BF01195985, who measures from the hyperplane through the single optima). With m
    objectives the distance is measured from a hyperplane on which the scaled objectives have the same sum, in the plane that
    very line; it needs no m different optima. None for fewer than three different points, for a single objective, and where no
    point lies nearer the ideal than every end does, as on a straight or a hollow front.
    """
    rows = sweep.front
    points = np.unique(_seen(sweep, rows), axis=0)
    spans = np.ptp(points, axis=0) if len(points) else np.empty(0)
    if len(points) < 3 or len(sweep.objectives) < 2 or not (spans > 0).all():
        return None
    scaled = (_seen(sweep, rows) - points.min(axis=0)) / spans
    away = scaled.sum(axis=1)
    ends = away[(scaled == 0).any(axis=1)]
    best = int(np.argmin(away))
    return int(rows["number"].iloc[best]) if away[best] < ends.min() - 1e-9 else None


def traded(sweep: Sweep) -> tuple[Objective, Objective] | None:
    """What `tradeoff` sets against each other: the first two objectives, or the only one and what is constrained beside it."""
    first = sweep.objectives[0]
    if len(sweep.objectives) > 1:
        return first, sweep.objectives[1]
    others = [one for one in sweep.constraints if one.metric != first.metric]
    if not others:
        return None
    return first, Objective(metric=others[0].metric, direction="minimize" if others[0].op == "<=" else "maximize")


def tradeoff(sweep: Sweep) -> pd.DataFrame:
    """The best of the first objective that is to be had for each price in the second (see `traded`), a row a step.

    Columns: bound, the second at most (minimised) or at least (maximised) so much, as the search saw it; number and key of the
    trial that is best within it; best, best_se and at, at_se: its first and its second metric, as quoted. The first row has the
    strictest bound. Trials count that keep all constraints but those on the second metric, whose bound is what varies.
    Empty where no trial counts, or where there is no second metric.
    """
    columns = ["bound", "best", "best_se", "at", "at_se", "number", "key"]
    pair = traded(sweep)
    if pair is None:
        return pd.DataFrame(columns=columns)
    rows = _within_the_rest(sweep, pair[1])
    seen = pareto.orient(rows[[col.searched(one.metric) for one in pair]].to_numpy(dtype=float), pair)
    order = np.lexsort((rows["number"], seen[:, 0], seen[:, 1]))
    best = np.minimum.accumulate(seen[order, 0]) if len(order) else seen[:, 0]
    steps = order[np.diff(best, prepend=np.inf) < 0]
    taken = rows.iloc[steps]
    first, second = (one.metric for one in pair)
    return pd.DataFrame(
        {
            "bound": taken[col.searched(second)],
            "best": taken[first],
            "best_se": taken[col.se(first)],
            "at": taken[second],
            "at_se": taken[col.se(second)],
            "number": taken["number"],
            "key": taken["key"],
        },
        columns=columns,
    ).reset_index(drop=True)


def best_within(sweep: Sweep, bound: float) -> pd.Series | None:
    """The row of `Sweep.trials` that `tradeoff` has for the second metric at most (maximised: at least) `bound`; None: none."""
    pair = traded(sweep)
    if pair is None:
        return None
    second = pair[1]
    limit = Constraint(second.metric, "<=" if second.direction == "minimize" else ">=", bound)
    steps = tradeoff(sweep)
    kept = [number for number, value in zip(steps["number"], steps["bound"], strict=True) if limit.violation(value) <= 0]
    return sweep.trials.set_index("number", drop=False).loc[kept[-1]] if kept else None


def _within_the_rest(sweep: Sweep, second: Objective) -> pd.DataFrame:
    """The finished trials with both metrics that keep every constraint but those on the second."""
    rows = sweep.complete
    metrics = [sweep.objectives[0].metric, second.metric]
    kept = np.isfinite(rows[[col.searched(name) for name in metrics]].to_numpy(dtype=float)).all(axis=1)
    for constraint in sweep.constraints:
        if constraint.metric != second.metric:
            kept &= np.array([constraint.violation(value) <= 0 for value in rows[col.searched(constraint.metric)]], dtype=bool)
    return rows[kept]


def groups(sweep: Sweep) -> pd.Series:
    """By trial number of the front's points: the number of the point that it is a near-duplicate of, its own where of none.

    Two points are near-duplicates where no objective's difference is more than one standard deviation from 0 in the draws of
    their true values: what nobody can tell apart by what it does, whatever its settings. From the best in the first objective
    on each point joins the first such point that joined none itself, so that a chain of small steps does not make one group of
    both ends.
    """
    rows = sweep.front
    judged = [sweep.judged.index(one.metric) for one in sweep.objectives]
    draws = sweep.draws[:, sweep.trials.index.get_indexer(rows.index)][:, :, judged]
    leaders: list[int] = []
    label = []
    for place in range(len(rows)):
        apart = draws[:, leaders] - draws[:, [place]]
        near = (np.abs(apart.mean(axis=0)) <= apart.std(axis=0) + 1e-12).all(axis=1)
        if not near.any():
            leaders.append(place)
        label.append(int(rows["number"].iloc[leaders[int(np.argmax(near)) if near.any() else -1]]))
    return pd.Series(label, index=pd.Index(rows["number"].astype(int), name="number"), dtype=int, name="group")


def course(sweep: Sweep) -> pd.DataFrame:
    """The front's hypervolume after each ended trial, by number: columns trials (how many have ended), gpu_hours, hypervolume.

    gpu_hours are all phases of these trials, failed and given-up ones included and baselines not, one GPU each; the volume is
    measured as `Sweep.hypervolume`, 0 while nothing is better than the reference. Empty where no trial has ended.
    """
    ended = sweep.trials[sweep.trials["state"] != "pending"]
    reference = pareto.orient(np.array(sweep.reference), sweep.objectives)
    return pd.DataFrame(
        {
            "trials": np.arange(1, len(ended) + 1),
            "gpu_hours": ended["seconds"].fillna(0.0).cumsum().to_numpy(dtype=float) / 3600,
            "hypervolume": pareto.hypervolumes(_seen(sweep, ended), ended["feasible"].to_numpy(dtype=bool), reference),
        }
    )


def _seen(sweep: Sweep, rows: pd.DataFrame) -> np.ndarray:
    """The objectives of the rows as the search saw them, (n, m), oriented: less is better."""
    return pareto.orient(rows[[col.searched(one.metric) for one in sweep.objectives]].to_numpy(dtype=float), sweep.objectives)
