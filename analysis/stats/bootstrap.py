"""Joint draws of the sampling errors of many settings' metrics, over documents and seeds."""

import zlib
from collections.abc import Sequence

import numpy as np

from analysis.metrics.names import split_metric
from analysis.stats.estimate import Measured, Setting, measure_all
from analysis.stats.paired_outcomes import Answers, weights
from analysis.stats.shrinkage import root
from trials.ledger.outcomes import Split


def draws_for(settings: int) -> int:
    # with 1000 draws a probability has a standard error below 0.016; fewer for thousands of settings, which take the memory
    return 1000 if settings <= 1000 else 250


class Errors:
    """Collects the draws of the metrics `names` while the settings are measured (`add` is measure_all's `watch`)."""

    def __init__(self, settings: int, names: Sequence[str], draws: int, keys: str = ""):
        """`keys` seeds the noise that is not shared between settings, so that it differs between sweeps."""
        self.names = list(names)
        self._kinds = [split_metric(name) for name in names]
        self._draws = np.zeros((draws, settings, len(self.names)))
        self._paired = np.zeros((settings, len(self.names)), bool)
        self._weights: dict[bytes, np.ndarray] = {}
        self._random = np.random.default_rng(zlib.crc32(keys.encode()))

    def add(self, role: str, places: np.ndarray, own: Answers) -> None:
        """Adds the answers of the settings at `places` to a role's documents."""
        everywhere = places
        for metric, (of_role, name) in enumerate(self._kinds):
            if of_role != role or not own.has(kind := own.kind(name)):
                continue
            label = own.clusters.tobytes()
            if label not in self._weights:
                self._weights[label] = weights(own.clusters, len(self._draws))
            # Bayesian bootstrap. Settings and sweeps share the weights, so that errors they share (as the base's) cancel.
            redrawn = np.maximum(own.redrawn(kind, self._weights[label]).mean(axis=2), kind.floor)
            whole = np.isfinite(redrawn).all(axis=0)  # a document without a value: the setting keeps its scores' standard error
            places = everywhere[whole]
            # A redrawn value is a draw of the true one (Rubin 1981), and an error is what was measured less the truth: a metric
            # with a long tail is more likely to be truly larger than smaller.
            self._draws[:, places, metric] = (redrawn.mean(axis=0) - redrawn)[:, whole]
            self._paired[places, metric] = True
            if (unit := kind.unit) is not None:
                # A flip each way, as in intervals.interval: no flip among few documents is no certainty.
                flips = unit({column: values.mean(dtype=float) for column, values in own.base.items()})
                noise = self._random.standard_normal((len(self._draws), len(places)))
                self._draws[:, places, metric] += noise * np.nan_to_num(np.sqrt(2) * flips / (len(own.clusters) + 2))

    def draws(self, settings: Sequence[Setting], measured: dict[str, Measured], split: Split) -> np.ndarray:
        """Shape (draws, t, m), with mean 0; 0 where nothing is known of a metric's error."""
        random = self._random
        replicates = np.array([max(len(one.records), 1) for one in settings], dtype=float)
        found = self._draws
        if (covariance := seed_covariance(settings, self.names, split)).any():
            of_seeds = random.standard_normal(found.shape) @ root(covariance).T
            found = found + self._paired * of_seeds / np.sqrt(replicates)[:, None]
        for metric, name in enumerate(self.names):
            if name in measured:  # unpaired documents: errors are independent and already include the seeds
                alone = np.flatnonzero(~self._paired[:, metric] & ~np.isnan(measured[name].stderr))
                found[:, alone, metric] = random.standard_normal((len(found), len(alone))) * measured[name].stderr[alone]
        return found


def seed_covariance(settings: Sequence[Setting], names: Sequence[str], split: Split) -> np.ndarray:
    """Covariance (m, m) between replicates of a setting, pooled over the settings; 0 without replicates.

    It includes the variance of single documents, so that it is too wide with few of them.
    """
    several = [one for one in settings if len(one.records) > 1]
    total, freedom = np.zeros((len(names), len(names))), 0
    singles = [Setting([record], one.base) for one in several for record in one.records]
    if not singles:
        return total
    measured = measure_all(singles, split, errors=False, only=names)
    values = np.column_stack([measured[name].value if name in measured else np.full(len(singles), np.nan) for name in names])
    start = 0
    for one in several:
        own = values[start : start + len(one.records)]
        start += len(one.records)
        if np.isfinite(own).all():
            total += (own - own.mean(axis=0)).T @ (own - own.mean(axis=0))
            freedom += len(own) - 1
    return total / max(freedom, 1)
