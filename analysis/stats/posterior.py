"""The front under uncertainty: probabilities to be on it and to keep the constraints, and corrected metrics."""

from dataclasses import dataclass

import numpy as np

from analysis.metrics.names import Criteria
from analysis.stats import pareto, shrinkage
from analysis.stats.untrained import Untrained


@dataclass(frozen=True)
class Judgement:
    """The posterior of t settings in the m metrics of the criteria."""

    draws: np.ndarray
    """Shape (draws, t, m): joint draws of the true values; NaN for a setting that has not all of them."""
    corrected: np.ndarray
    """Shape (t, m): expected true values, corrected for the winner's curse; NaN where too few settings allow no correction."""
    p_front: np.ndarray
    """Shape (t,): share of draws in which the setting keeps the constraints, and neither another that does nor a base dominates
    it."""
    p_feasible: np.ndarray
    p_constraint: np.ndarray
    """Shape (constraints, t)."""
    p_untrained: np.ndarray
    """Shape (bases,): the same as `p_front` for the bases; NaN for one that takes no part."""

    def of(self, places: np.ndarray) -> "Judgement":
        """The same for settings that repeat these at `places`."""
        return Judgement(
            self.draws[:, places],
            self.corrected[places],
            self.p_front[places],
            self.p_feasible[places],
            self.p_constraint[:, places],
            self.p_untrained,
        )


def judge(
    values: np.ndarray,
    errors: np.ndarray,
    criteria: Criteria,
    bases: Untrained,
) -> Judgement:
    """From `values` (t, m) of `criteria.metrics`, and draws (draws, t, m) of their errors.

    The values are those of all documents, also of the ones that chose the front: a posterior stays valid under selection, as it
    does not depend on how a setting was picked (Dawid 1994, doi:10.1214/lnms/1215463797).

    The bases are points like the settings, but they tell nothing about the others: they are not shrunk. A setting with a value
    that is not finite takes no part: its probabilities are NaN.
    """
    t, m = values.shape
    part = np.flatnonzero(np.isfinite(values).all(axis=1))
    draws, corrected = np.full(errors.shape, np.nan), np.full((t, m), np.nan)
    p_front, p_feasible, p_constraint = np.full(t, np.nan), np.full(t, np.nan), np.full((len(criteria.constraints), t), np.nan)
    p_untrained = np.full(len(bases.values), np.nan)
    if not len(part):
        return Judgement(draws, corrected, p_front, p_feasible, p_constraint, p_untrained)
    mean, draws[:, part] = shrinkage.posterior(values[part], errors[:, part])
    if len(part) >= shrinkage.FEWEST:
        corrected[part] = mean
    compete = np.flatnonzero(np.isfinite(bases.values).all(axis=1))
    known = np.concatenate([draws[:, part], bases.draws[:, compete]], axis=1)
    kept = _kept(known, criteria)
    p_constraint[:, part] = kept.mean(axis=1)[:, : len(part)]
    keeps_all = np.logical_and.reduce(kept, axis=0)
    p_feasible[part] = keeps_all.mean(axis=0)[: len(part)]
    columns = [criteria.metrics.index(objective.metric) for objective in criteria.objectives]
    points = pareto.orient(known[:, :, columns], criteria.objectives)
    on_front = np.array([pareto.front(*one) for one in zip(points, keeps_all, strict=True)])
    chances = on_front.mean(axis=0)
    p_front[part], p_untrained[compete] = chances[: len(part)], chances[len(part) :]
    return Judgement(draws, corrected, p_front, p_feasible, p_constraint, p_untrained)


def _kept(draws: np.ndarray, criteria: Criteria) -> np.ndarray:
    """Which of the constraints hold (constraints, draws, points)."""
    found = np.ones((len(criteria.constraints), *draws.shape[:2]), bool)
    for place, constraint in enumerate(criteria.constraints):
        own = draws[:, :, criteria.metrics.index(constraint.metric)]
        found[place] = own <= constraint.bound if constraint.op == "<=" else own >= constraint.bound
    return found
