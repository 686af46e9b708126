"""The Pareto front: which points nothing beats, their ranks, the volume they dominate. Arrays in, arrays out (moocore).

Objectives are turned once, by `orient`, so that less is better everywhere behind it. Axes: n points, m objectives.
"""

from collections.abc import Mapping, Sequence

import moocore
import numpy as np

from analysis.metrics.names import Constraint, Objective, split_metric

EXCLUDED = -1  # the rank of a point that does not take part


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
    """Mask (n,) of the feasible points that no feasible point dominates; of equal points all are kept.

    `points` (n, m) are oriented, `feasible` is a mask (n,). A point with an objective that is not finite takes no part.
    """
    mask = np.asarray(feasible, dtype=bool) & np.isfinite(points).all(axis=1)
    if mask.any():  # one good point beats most of the others, and costs one look at each
        part = points[mask]
        good = part[np.argmin((part / np.maximum(np.abs(part).mean(axis=0), np.finfo(float).tiny)).sum(axis=1))]
        mask[mask] = (part <= good).any(axis=1)
    mask[mask] = ranks(points[mask], np.ones(mask.sum(), bool), deepest=1) == 0
    return mask


def ranks(points: np.ndarray, feasible: np.ndarray, deepest: int | None = None) -> np.ndarray:
    """Rank (n,) of each feasible point in non-dominated sorting: 0 is the front, equal points share one, -1 takes no part.

    With `deepest` only the ranks below it are told apart and all points behind them have that one: of a million points in three
    or four objectives the first ranks take a fraction of the time of all.
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
    """Volume that oriented `points` (n, m) dominate within the oriented `reference` (m,); what is not better adds nothing."""
    points = points[np.isfinite(points).all(axis=1)]
    return float(moocore.hypervolume(np.ascontiguousarray(points), ref=reference)) if len(points) else 0.0


def hypervolumes(points: np.ndarray, feasible: np.ndarray, reference: np.ndarray) -> np.ndarray:
    """Hypervolume (n,) of the feasible ones of the first 1, 2, ... n of the oriented `points` (n, m), in their order.

    A point adds what its own box holds beyond the boxes of those before it, so that only what lies within its box is looked at
    again (the exclusive hypervolume of While, Bradstreet and Barone 2012, doi:10.1109/TEVC.2010.2077298).
    """
    gained = np.zeros(len(points))
    part = np.asarray(feasible, dtype=bool) & np.isfinite(points).all(axis=1) & (points < reference).all(axis=1)
    kept = np.empty((0, len(reference)))
    for place in np.flatnonzero(part):
        point = points[place]
        if (kept <= point).all(axis=1).any():
            continue
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

    It follows from the config and the baseline alone, so that the volumes of one sweep over time, and of sweeps of the same
    bases with the same objectives and constraints, compare. Per objective: the bound of a constraint on it, the tightest where
    there are several; else, of a maximised metric, what the untuned base has of it: its own score of ROLE.value, as `baseline`
    holds it by name (0 while it is not known), and 0 of any other; and of a minimised one 1 (all is lost). So only what is
    above the baseline counts, and a sweep in which losing less of a skill counts minimises its drop or forgetting.
    """
    return np.array([_worth_nothing(objective, constraints, baseline or {}) for objective in objectives])


def _worth_nothing(objective: Objective, constraints: Sequence[Constraint], baseline: Mapping[str, float]) -> float:
    split_metric(objective.metric)
    op = "<=" if objective.direction == "minimize" else ">="
    bounds = [bound.bound for bound in constraints if bound.metric == objective.metric and bound.op == op]
    if op == "<=":
        return min(bounds, default=1.0)
    return max(bounds, default=baseline.get(objective.metric, 0.0))
