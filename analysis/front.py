"""The Pareto front: which points nothing beats, their ranks, the volume they dominate. Arrays in, arrays out (moocore).

Objectives are turned once, by `orient`, so that less is better everywhere behind it. Axes: n points, m objectives.
"""

from collections.abc import Sequence

import moocore
import numpy as np

from analysis.metrics import Constraint, Objective, split_metric

EXCLUDED = -1  # the rank of a point that does not take part


def orient(values: np.ndarray, objectives: Sequence[Objective]) -> np.ndarray:
    """`values` (n, m), or one point (m,), with the maximised objectives negated: less is better."""
    signs = np.array([-1.0 if objective.direction == "maximize" else 1.0 for objective in objectives])
    oriented: np.ndarray = np.asarray(values, dtype=float) * signs
    return oriented


def front(points: np.ndarray, feasible: np.ndarray) -> np.ndarray:
    """Mask (n,) of the feasible points that no feasible point dominates; of equal points all are kept.

    `points` (n, m) are oriented, `feasible` is a mask (n,). A point with an objective that is not finite takes no part.
    """
    mask = np.asarray(feasible, dtype=bool) & np.isfinite(points).all(axis=1)
    if mask.any():
        mask[mask] = moocore.is_nondominated(np.ascontiguousarray(points[mask]), keep_weakly=True)
    return mask


def ranks(points: np.ndarray, feasible: np.ndarray) -> np.ndarray:
    """Rank (n,) of each feasible point in non-dominated sorting: 0 is the front, equal points share one, -1 takes no part."""
    result = np.full(len(points), EXCLUDED)
    part = np.asarray(feasible, dtype=bool) & np.isfinite(points).all(axis=1)
    if part.any():
        result[part] = moocore.pareto_rank(np.ascontiguousarray(points[part]))
    return result


def hypervolume(points: np.ndarray, reference: np.ndarray) -> float:
    """Volume that oriented `points` (n, m) dominate within the oriented `reference` (m,); what is not better adds nothing."""
    points = points[np.isfinite(points).all(axis=1)]
    return float(moocore.hypervolume(np.ascontiguousarray(points), ref=reference)) if len(points) else 0.0


def reference_point(objectives: Sequence[Objective], constraints: Sequence[Constraint]) -> np.ndarray:
    """The point (m,) that hypervolume is measured from, in the metrics' own units and directions.

    It follows from the config alone, so that the volumes of one sweep over time, and of sweeps with the same objectives and
    constraints, compare. Per objective: the bound of a constraint on it, the tightest where there are several; else what is
    worth nothing: 0 for a maximised metric (no gain, no score), 1 for a minimised one (all is lost). So a sweep in which losing
    less of a skill counts minimises its drop or forgetting; a maximised gain counts only above the baseline.
    """
    return np.array([_worth_nothing(objective, constraints) for objective in objectives])


def _worth_nothing(objective: Objective, constraints: Sequence[Constraint]) -> float:
    split_metric(objective.metric)
    op = "<=" if objective.direction == "minimize" else ">="
    bounds = [bound.bound for bound in constraints if bound.metric == objective.metric and bound.op == op]
    if op == "<=":
        return min(bounds, default=1.0)
    return max(bounds, default=0.0)
