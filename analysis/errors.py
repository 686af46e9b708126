"""Joint draws of the sampling errors of many settings' metrics: what other documents and other seeds would have changed.

Documents: a Bayesian bootstrap over clusters whose weights are the same for all settings and sweeps (see `answers.weights`), so
that what two settings share, the base's own answers above all, is shared in every draw. Seeds: normal errors, independent
between settings, whose covariance is pooled over all settings with replicates; where none has any, seeds are left out.
"""

from collections.abc import Sequence

import numpy as np

from analysis.answers import answers, weights
from analysis.kinds import ALL_KINDS
from analysis.measure import Measured, Setting, groups, measure_all
from analysis.metrics import LEARNING, split_metric


def draws_for(settings: int) -> int:
    """As many as a probability needs (its own error is then below 0.016), fewer where thousands of settings are drawn."""
    return 1000 if settings <= 2000 else 250


def errors(settings: Sequence[Setting], measured: dict[str, Measured], names: Sequence[str], half: str) -> np.ndarray:
    """Shape (draws, t, m) for the metrics `names`, with mean 0; 0 where nothing is known of a metric's error."""
    t, count = len(settings), draws_for(len(settings))
    random = np.random.default_rng(0)
    found = np.zeros((count, t, len(names)))
    drawn: dict[bytes, np.ndarray] = {}
    left = {name: ~np.isnan(measured[name].stderr) if name in measured else np.zeros(t, bool) for name in names}
    for places, group in groups(settings, half):
        for role in dict.fromkeys(split_metric(name)[0] for name in names):
            pairing = None if role == LEARNING else answers([one.records for one in group], group[0].base, role, half)
            if pairing is None:
                continue
            own, inside = pairing
            label = own.clusters.tobytes()
            if label not in drawn:
                drawn[label] = weights(own.clusters, count)
            for metric, name in enumerate(names):
                if split_metric(name)[0] != role or not own.has(kind := ALL_KINDS[split_metric(name)[1]]):
                    continue
                redrawn = own.redrawn(kind, drawn[label]).mean(axis=2)
                found[:, places[inside], metric] = np.nan_to_num(redrawn - redrawn.mean(axis=0))
                left[name][places[inside]] = False
    for metric, name in enumerate(names):  # documents that do not pair: each setting's error is its own
        alone = np.flatnonzero(left[name])
        if len(alone):
            found[:, alone, metric] = random.standard_normal((count, len(alone))) * measured[name].stderr[alone]
    return found + _of_seeds(settings, names, half, left, random, count)


def _of_seeds(
    settings: Sequence[Setting],
    names: Sequence[str],
    half: str,
    counted: dict[str, np.ndarray],
    random: np.random.Generator,
    count: int,
) -> np.ndarray:
    """Shape (draws, t, m). `counted` are those whose standard error holds the seeds already."""
    covariance = seed_covariance(settings, names, half)
    replicates = np.array([max(len(one.records), 1) for one in settings])
    noise = random.standard_normal((count, len(settings), len(names))) @ _root(covariance).T
    noise /= np.sqrt(replicates)[:, None]
    for metric, name in enumerate(names):
        noise[:, counted[name], metric] = 0.0
    return noise


def seed_covariance(settings: Sequence[Setting], names: Sequence[str], half: str) -> np.ndarray:
    """Shape (m, m): between replicates of one setting, pooled over the settings; 0 where there are no replicates.

    What two replicates answer differently by the luck of single documents is in it too: with few documents it is too wide.
    """
    several = [one for one in settings if len(one.records) > 1]
    total, freedom = np.zeros((len(names), len(names))), 0
    singles = [Setting([record], one.base) for one in several for record in one.records]
    if not singles:
        return total
    measured = measure_all(singles, half, errors=False)
    values = np.column_stack([measured[name].value if name in measured else np.full(len(singles), np.nan) for name in names])
    start = 0
    for one in several:
        own = values[start : start + len(one.records)]
        start += len(one.records)
        if np.isfinite(own).all():
            total += (own - own.mean(axis=0)).T @ (own - own.mean(axis=0))
            freedom += len(own) - 1
    return total / max(freedom, 1)


def _root(covariance: np.ndarray) -> np.ndarray:
    """A matrix whose product with its transpose is `covariance`, rounding errors below 0 taken as 0."""
    values, vectors = np.linalg.eigh(covariance)
    root: np.ndarray = vectors * np.sqrt(np.maximum(values, 0.0))
    return root
