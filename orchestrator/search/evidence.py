"""What a study knows of its objectives and constraints, as arrays for Gaussian processes.

More is better in every column: objectives that are minimised and violations are negated.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import optuna
from optuna.trial import FrozenTrial, TrialState

from analysis.metrics.names import parse_constraint
from analysis.stats import pareto
from orchestrator.config.model import SweepConfig

ERRORS = "errors"
"""User attribute of a trial: standard errors by metric, in the metric's unit."""
KEY = "key"
"""User attribute of a trial: its key."""
BASE = "base."
"""Prefix of user attributes of a study: the objectives' values of an untrained base that keeps the constraints, by its key."""
_CHANCE = 0.25  # variance of success, whose values are 1 and -1: a machine fails anywhere
_ENOUGH = 6  # values that show what an outlier is


@dataclass(frozen=True)
class Aim:
    """What a sweep searches for, in m objectives and k constraints on other metrics."""

    metrics: tuple[str, ...]
    signs: np.ndarray
    """Shape (m,): 1 where more is better, else -1."""
    least: np.ndarray
    """Shape (m,): constraints on the objectives themselves, as the least oriented value; -inf without one."""
    constraints: tuple[str, ...]
    """Of the others, as the study names them."""
    constrained: tuple[str, ...]
    """Their metrics."""

    @classmethod
    def of(cls, config: SweepConfig) -> "Aim":
        objectives = config.search.objectives
        signs = np.array([1.0 if one.direction == "maximize" else -1.0 for one in objectives])
        least, others = np.full(len(objectives), -np.inf), {}
        for constraint in map(parse_constraint, config.search.constraints):
            same = [
                i
                for i, one in enumerate(objectives)
                if one.metric == constraint.metric and (signs[i] > 0) == (constraint.op == ">=")
            ]
            for i in same:
                least[i] = max(least[i], signs[i] * constraint.bound)
            if not same:
                others[str(constraint)] = constraint.metric
        return cls(tuple(one.metric for one in objectives), signs, least, tuple(others), tuple(others.values()))

    def best(self, trials: Sequence[FrozenTrial], count: int) -> list[FrozenTrial]:
        """At most `count` of the trials: the better half of them by rank, and others evenly over the course of the study."""
        if len(trials) <= count:
            return list(trials)
        values = Evidence.of(trials, self).values
        m = len(self.signs)
        violated = np.minimum(values[:, :m] - self.least, 0.0).sum(axis=1) + np.minimum(values[:, m:], 0.0).sum(axis=1)
        order = np.lexsort((pareto.ranks(-values[:, :m], np.ones(len(values), bool)), -violated))
        rest = np.sort(order[count // 2 :])
        others = rest[np.linspace(0, len(rest) - 1, count - count // 2).round().astype(int)]
        return [trials[place] for place in np.sort(np.concatenate([order[: count // 2], others]))]

    def bases(self, study: optuna.Study) -> np.ndarray:
        """Oriented objectives (b, m) of the bases."""
        found = [values for name, values in sorted(study.user_attrs.items()) if name.startswith(BASE)]
        return np.array(found, dtype=float).reshape(len(found), len(self.signs)) * self.signs

    def reference(self, config: SweepConfig, bases: np.ndarray) -> np.ndarray:
        """The oriented point (m,) from which hypervolume is measured."""
        known = dict(zip(self.metrics, (bases * self.signs).min(axis=0), strict=True)) if len(bases) else {}
        constraints = [parse_constraint(text) for text in config.search.constraints]
        return pareto.reference_point(config.search.objectives, constraints, known) * self.signs


@dataclass(frozen=True)
class Evidence:
    """Outcomes of n trials in columns: m objectives, then what must be 0 or more, k constraints and perhaps success."""

    values: np.ndarray
    variances: np.ndarray
    """NaN where unknown."""

    @classmethod
    def of(cls, trials: Sequence[FrozenTrial], aim: Aim) -> "Evidence":
        """Trials without values, which failed or were given up, count as uncertain ones of the worst quarter.

        Where some failed, a last column is 1 for success and -1 for failure.
        """
        m, k = len(aim.signs), len(aim.constraints)
        values, variances = np.full((len(trials), m + k), np.nan), np.full((len(trials), m + k), np.nan)
        for i, trial in enumerate(trials):
            if trial.state != TrialState.COMPLETE:
                continue
            violations = trial.constraints
            values[i, :m] = np.array(trial.values) * aim.signs
            values[i, m:] = [-violations.get(name, 0.0) for name in aim.constraints]
            errors = trial.user_attrs.get(ERRORS, {})
            variances[i] = [errors.get(name, np.nan) ** 2 for name in (*aim.metrics, *aim.constrained)]
        bounds = [*aim.least, *[0.0] * k]
        for column, bound in enumerate(bounds):
            told = np.isfinite(values[:, column])
            known = _tamed(values[told, column], bound)
            values[told, column] = known
            if not told.all():
                values[~told, column] = np.quantile(known, 0.25)
                variances[~told, column] = known.var() if np.isfinite(variances[told, column]).any() else np.nan
        failed = np.array([trial.state == TrialState.FAIL for trial in trials])
        if failed.any():
            values = np.column_stack([values, np.where(failed, -1.0, 1.0)])
            variances = np.column_stack([variances, np.full(len(trials), _CHANCE)])
        return cls(values, variances)


def _tamed(values: np.ndarray, bound: float) -> np.ndarray:
    """The values (n,), those far on the bad side pulled in: a diverged training would flatten all others.

    Far is 1.5 interquartile ranges behind the first quartile (Tukey's fence). Behind a finite `bound` nothing is gained, so far
    is there as far behind it as the best value is before it. The order of the values and the bound stays.
    """
    if len(values) < _ENOUGH:
        return values
    first, third = np.quantile(values, [0.25, 0.75])
    spread = third - first
    fence = min(first - 1.5 * spread, bound) if np.isfinite(bound) else first - 1.5 * spread
    before = values.max() - bound
    if np.isfinite(bound) and before > 0 and bound - before > fence:
        spread, fence = before, bound - before
    if spread <= 0:
        return values
    return np.where(values < fence, fence - spread * np.log1p(np.maximum(fence - values, 0.0) / spread), values)
