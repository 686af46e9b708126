"""The front under uncertainty: probabilities to be on it and to keep the constraints, and corrected metrics."""

from dataclasses import dataclass

import numpy as np

from analysis.metrics.names import Criteria
from analysis.stats import pareto, shrinkage


@dataclass(frozen=True)
class Judgement:
    """The posterior of t settings in the m metrics of the criteria."""

    draws: np.ndarray
    """Shape (draws, t, m): joint draws of the true values; NaN for a setting that has not all of them."""
    corrected: np.ndarray
    """Shape (t, m): expected true values, corrected for the winner's curse."""
    p_front: np.ndarray
    """Shape (t,): share of draws in which the setting keeps the constraints and no other that does dominates it."""
    p_feasible: np.ndarray
    p_constraint: np.ndarray
    """Shape (constraints, t)."""
    hypervolumes: np.ndarray
    """Shape (draws,)."""

    def of(self, places: np.ndarray) -> "Judgement":
        """The same for settings that repeat these at `places`."""
        return Judgement(
            self.draws[:, places],
            self.corrected[places],
            self.p_front[places],
            self.p_feasible[places],
            self.p_constraint[:, places],
            self.hypervolumes,
        )


def judge(
    values: np.ndarray,
    errors: np.ndarray,
    criteria: Criteria,
    reference: np.ndarray,
) -> Judgement:
    """From `values` (t, m) of `criteria.metrics`, and draws (draws, t, m) of their errors.

    `reference` is pareto.reference_point's. A setting with a value that is not finite takes no part: its probabilities are NaN.
    """
    names, objectives, constraints = criteria.metrics, criteria.objectives, criteria.constraints
    t, m = values.shape
    part = np.flatnonzero(np.isfinite(values).all(axis=1))
    draws, corrected = np.full(errors.shape, np.nan), np.full((t, m), np.nan)
    p_front, p_feasible, p_constraint = np.full(t, np.nan), np.full(t, np.nan), np.full((len(constraints), t), np.nan)
    if not len(part):
        return Judgement(draws, corrected, p_front, p_feasible, p_constraint, np.zeros(len(errors)))
    corrected[part], known = shrinkage.posterior(values[part], errors[:, part])
    draws[:, part] = known
    kept = np.ones((len(errors), len(part)), bool)
    for place, constraint in enumerate(constraints):
        own = known[:, :, names.index(constraint.metric)]
        holds = own <= constraint.bound if constraint.op == "<=" else own >= constraint.bound
        p_constraint[place, part] = holds.mean(axis=0)
        kept &= holds
    p_feasible[part] = kept.mean(axis=0)
    columns = [names.index(objective.metric) for objective in objectives]
    points = pareto.orient(known[:, :, columns], objectives)
    on_front = np.array([pareto.front(*one) for one in zip(points, kept, strict=True)])
    p_front[part] = on_front.mean(axis=0)
    oriented = pareto.orient(reference, objectives)
    volumes = np.array([pareto.hypervolume(one[mask], oriented) for one, mask in zip(points, on_front, strict=True)])
    return Judgement(draws, corrected, p_front, p_feasible, p_constraint, volumes)
