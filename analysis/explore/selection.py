"""Choosing a point: the knee of the front, the best within a bound, near-duplicates, and the front's course.

Choices are made on what the search saw, as the front is. Quoted values are those of the report half where there is one.
"""

import numpy as np
import pandas as pd

from analysis.metrics.names import Objective
from analysis.results import schema as col
from analysis.results.frame import oriented
from analysis.results.sweep import Sweep
from analysis.stats import pareto


def knee(sweep: Sweep) -> int | None:
    """Number of the trial at the knee of the front; None where there is none.

    The point farthest from the line between the ends of the front, towards the ideal, after each objective was scaled to 0..1
    over the front (Das 1999, doi:10.1007/BF01195985). None for fewer than three distinct points, for one objective, where the
    front is straight or bends away from the ideal, and where the base is the farthest.
    """
    rows, bases = sweep.front, sweep.baselines[sweep.baselines["on_front"]]
    points = np.concatenate([oriented(one, sweep.criteria) for one in (rows, bases)])
    spans = np.ptp(points, axis=0) if len(points) else np.empty(0)
    if not len(rows) or len(np.unique(points, axis=0)) < 3 or len(sweep.objectives) < 2 or not (spans > 0).all():
        return None
    scaled = (points - points.min(axis=0)) / spans
    # Distance from a hyperplane of equal sums. With two objectives it holds both ends; with more it needs no m distinct optima.
    away = scaled.sum(axis=1)
    ends = away[(scaled == 0).any(axis=1)]
    best = int(np.argmin(away))
    return int(rows["number"].iloc[best]) if best < len(rows) and away[best] < ends.min() - 1e-9 else None


def traded(sweep: Sweep) -> tuple[Objective, Objective] | None:
    """The axes of `tradeoff`: the first two objectives, or the only one and a constrained metric."""
    first = sweep.objectives[0]
    if len(sweep.objectives) > 1:
        return first, sweep.objectives[1]
    others = [one for one in sweep.constraints if one.metric != first.metric]
    if not others:
        return None
    return first, Objective(metric=others[0].metric, direction="minimize" if others[0].op == "<=" else "maximize")


def tradeoff(sweep: Sweep) -> pd.DataFrame:
    """The best first objective for each bound on the second (see `traded`), a row a step, the strictest bound first.

    Columns: bound (as the search saw it), number and key of the best trial within it, best and best_se (its first metric, as
    quoted), at and at_se (its second). Trials count that keep all constraints on other metrics and that no base dominates in
    the two metrics. Empty where none does, or where there is no second metric.
    """
    pair = traded(sweep)
    if pair is None:
        return pd.DataFrame(columns=["bound", "best", "best_se", "at", "at_se", "number", "key"])
    rows, untrained = (_within_the_rest(sweep, one, pair[1]) for one in (sweep.complete, sweep.complete_baselines))
    seen = pareto.orient(rows[[col.searched(one.metric) for one in pair]].to_numpy(dtype=float), pair)
    bases = untrained[[col.searched(one.metric) for one in pair]].to_numpy(dtype=float)
    beaten = np.logical_or.reduce(pareto.dominates(pareto.orient(bases, pair)[:, None], seen[None]), axis=0)
    order = np.lexsort((rows["number"], seen[:, 0], seen[:, 1]))
    order = order[~beaten[order]]
    best = np.minimum.accumulate(seen[order, 0]) if len(order) else seen[:0, 0]
    steps = order[np.diff(best, prepend=np.inf) < 0]  # where a looser bound buys a better first objective
    first, second = (one.metric for one in pair)
    columns = {"bound": col.searched(second), "best": first, "best_se": col.se(first), "at": second, "at_se": col.se(second)}
    columns |= {"number": "number", "key": "key"}
    return rows.iloc[steps][list(columns.values())].set_axis(list(columns), axis=1).reset_index(drop=True)


def _within_the_rest(sweep: Sweep, rows: pd.DataFrame, second: Objective) -> pd.DataFrame:
    """The rows with both metrics that keep every constraint on another metric than the second."""
    metrics = [sweep.objectives[0].metric, second.metric]
    kept = np.isfinite(rows[[col.searched(name) for name in metrics]].to_numpy(dtype=float)).all(axis=1)
    for constraint in sweep.constraints:
        if constraint.metric != second.metric:
            kept &= np.array([constraint.violation(value) <= 0 for value in rows[col.searched(constraint.metric)]], dtype=bool)
    return rows[kept]


def groups(sweep: Sweep) -> pd.Series:
    """By trial number: the front's point that each one is a near-duplicate of, itself where of none.

    Near-duplicates differ in no objective by more than one standard deviation of the difference in the draws of their true
    values. Settings do not matter.
    """
    rows = sweep.front
    judged = [sweep.judged.index(one.metric) for one in sweep.objectives]
    # draws are joint: noise that two points share cancels in their difference
    draws = sweep.draws[:, sweep.trials.index.get_indexer(rows.index)][:, :, judged]
    leaders: list[int] = []
    label = []
    for place in range(len(rows)):
        apart = draws[:, leaders] - draws[:, [place]]
        near = (np.abs(apart.mean(axis=0)) <= apart.std(axis=0) + 1e-12).all(axis=1)
        # A point joins leaders only, so that a chain of small steps does not join both its ends.
        if not near.any():
            leaders.append(place)
        label.append(int(rows["number"].iloc[leaders[int(np.argmax(near)) if near.any() else -1]]))
    return pd.Series(label, index=pd.Index(rows["number"].astype(int), name="number"), dtype=int, name="group")


def course(sweep: Sweep) -> pd.DataFrame:
    """The front's hypervolume after each ended trial, on the documents that the search saw, by number: columns trials (ended so
    far), gpu_hours, hypervolume. `Sweep.hypervolume` expects less of the last one, as the search sees its own luck.

    gpu_hours count all phases of these trials, one GPU each, with failed and given-up trials and without baselines.
    """
    ended, bases = sweep.trials[sweep.trials["state"] != "pending"], sweep.baselines
    reference = pareto.orient(np.array(sweep.reference), sweep.objectives)
    # the bases come first: they are there before any training
    points = np.concatenate([oriented(one, sweep.criteria) for one in (bases, ended)])
    feasible = np.concatenate([one["feasible"].to_numpy(dtype=bool) for one in (bases, ended)])
    return pd.DataFrame(
        {
            "trials": np.arange(1, len(ended) + 1),
            "gpu_hours": ended["seconds"].fillna(0.0).cumsum().to_numpy(dtype=float) / 3600,
            "hypervolume": pareto.hypervolumes(points, feasible, reference)[len(bases) :],
        }
    )
