"""Pareto dominance, non-dominated sorting and hypervolume, on arrays of n points in m objectives.

`orient` negates the maximised objectives, so that less is better in every other function.
"""

from collections.abc import Mapping, Sequence

import moocore
import numpy as np

from analysis.metrics.names import Constraint, Objective, split_metric

EXCLUDED = -1  # rank of a point that takes no part


def orient(values: np.ndarray, objectives: Sequence[Objective]) -> np.ndarray:
    """`values` (n, m), or one point (m,), with the maximised objectives negated: less is better."""
    signs = np.array([-1.0 if objective.direction == "maximize" else 1.0 for objective in objectives])
    oriented: np.ndarray = np.asarray(values, dtype=float) * signs
    return oriented


def dominates(one: np.ndarray, other: np.ndarray) -> np.ndarray:
    """Whether oriented `one` is no worse than `other` in every objective and better in one.

    Both end in an axis of m objectives; the axes before it broadcast, and remain.
    """
    found: np.ndarray = np.all(one <= other, axis=-1) & np.any(one < other, axis=-1)
    return found


def front(points: np.ndarray, feasible: np.ndarray) -> np.ndarray:
    """Mask (n,) of the feasible points that no feasible point dominates; equal points are all kept.

    `points` (n, m) are oriented, `feasible` is a mask (n,). A point with an objective that is not finite takes no part.
    """
    mask = np.asarray(feasible, dtype=bool) & np.isfinite(points).all(axis=1)
    if mask.any():  # one good point dominates most others, at a single comparison each
        part = points[mask]
        good = part[np.argmin((part / np.maximum(np.abs(part).mean(axis=0), np.finfo(float).tiny)).sum(axis=1))]
        mask[mask] = (part <= good).any(axis=1)
    mask[mask] = ranks(points[mask], np.ones(mask.sum(), bool), deepest=1) == 0
    return mask


def ranks(points: np.ndarray, feasible: np.ndarray, deepest: int | None = None) -> np.ndarray:
    """Rank (n,) in non-dominated sorting: 0 is the front, equal points share a rank, -1 takes no part.

    With `deepest`, points behind the ranks below it all have that rank, which saves most of the time for a million points.
    """
    result = np.full(len(points), EXCLUDED)
    left = np.flatnonzero(np.asarray(feasible, dtype=bool) & np.isfinite(points).all(axis=1))
    if not len(left):
        return result
    if deepest is None or points.shape[1] < 3:
        found = moocore.pareto_rank(np.ascontiguousarray(points[left]))
        result[left] = found if deepest is None else np.minimum(found, deepest)
        return result
    for rank in range(deepest):
        best = np.asarray(moocore.is_nondominated(np.ascontiguousarray(points[left]), keep_weakly=True), dtype=bool)
        result[left[best]] = rank
        left = left[~best]
        if not len(left):
            return result
    result[left] = deepest
    return result


def hypervolume(points: np.ndarray, reference: np.ndarray) -> float:
    """Volume that the oriented `points` (n, m) dominate, bounded by the oriented `reference` (m,)."""
    points = points[np.isfinite(points).all(axis=1)]
    return float(moocore.hypervolume(np.ascontiguousarray(points), ref=reference)) if len(points) else 0.0


def hypervolumes(points: np.ndarray, feasible: np.ndarray, reference: np.ndarray) -> np.ndarray:
    """Hypervolume (n,) of the feasible ones among the first 1, 2, ... n of the oriented `points` (n, m)."""
    gained = np.zeros(len(points))
    part = np.asarray(feasible, dtype=bool) & np.isfinite(points).all(axis=1) & (points < reference).all(axis=1)
    kept = np.empty((0, len(reference)))
    for place in np.flatnonzero(part):
        point = points[place]
        if (kept <= point).all(axis=1).any():
            continue
        # Exclusive hypervolume (While, Bradstreet and Barone 2012, doi:10.1109/TEVC.2010.2077298): the point's own box without
        # the boxes of earlier points.
        gained[place] = np.prod(reference - point) - hypervolume(_nondominated(np.maximum(kept, point)), reference)
        kept = np.vstack([kept[~(kept >= point).all(axis=1)], point])
    volumes: np.ndarray = np.cumsum(gained)
    return volumes


def _nondominated(points: np.ndarray) -> np.ndarray:
    return points[np.asarray(moocore.is_nondominated(points), dtype=bool)] if len(points) > 1 else points


def reference_point(
    objectives: Sequence[Objective], constraints: Sequence[Constraint], baseline: Mapping[str, float] | None = None
) -> np.ndarray:
    """The point (m,) that hypervolume is measured from, in the metrics' own units and directions.

    Per objective: the tightest constraint on it; else 1 (all is lost) where it is minimised; else the base's value, which
    `baseline` holds for ROLE.value (0 while unknown), and 0 for any other metric.
    """
    # Config and baseline alone decide, so that volumes compare over time and between sweeps of the same bases.
    return np.array([_reference_value(objective, constraints, baseline or {}) for objective in objectives])


def _reference_value(objective: Objective, constraints: Sequence[Constraint], baseline: Mapping[str, float]) -> float:
    split_metric(objective.metric)
    op = "<=" if objective.direction == "minimize" else ">="
    bounds = [bound.bound for bound in constraints if bound.metric == objective.metric and bound.op == op]
    if op == "<=":
        # an error, such as a perplexity, may be above 1 before any training
        return min(bounds, default=max(1.0, baseline.get(objective.metric, 1.0)))
    return max(bounds, default=baseline.get(objective.metric, 0.0))
