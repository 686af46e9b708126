"""Worlds for tests: simulated sweeps whose trainings follow a law of the mix, document by document."""

from dataclasses import dataclass, field

import numpy as np

from analysis.metrics.definitions import ALL_KINDS
from analysis.stats.bootstrap import Errors
from analysis.stats.paired_outcomes import Answers

RIGHT, CHURN = 0.6, 0.04  # of the base; of the documents beside those that are forgotten
DRAWS = 400


@dataclass(frozen=True)
class Simulated:
    shares: np.ndarray
    others: np.ndarray
    values: np.ndarray
    errors: np.ndarray
    truth: np.ndarray
    """The average training's forgetting in the population of documents, at `at`."""
    at: np.ndarray = field(default_factory=lambda: np.linspace(0, 1, 201))


def simulated(random, trials=40, documents=200, spread=0.25, rate=8.0, floor=0.02, seeds=0.01, multiplied=False) -> Simulated:
    """Trainings forget floor + spread exp(-rate share), more or less by two other settings and by their seeds.

    Documents are vulnerable to a different degree in all trainings alike, and some flip either way in each. Where `multiplied`,
    the settings multiply what is forgotten instead of adding to it, which is not the fitted model.
    """
    shares = random.choice(np.linspace(0, 1, 11), trials)
    others = random.normal(0, 1, (trials, 2))
    effect = 0.02 * others[:, 0] + 0.01 * others[:, 1]
    factor = np.exp(0.5 * others[:, 0] - 0.125)

    def forgotten(share):
        law = floor + spread * np.exp(-rate * share)
        return law * factor if multiplied else law + effect

    vulnerable = random.gamma(1, 1, documents)
    lost = np.clip((forgotten(shares) + random.normal(0, seeds, trials) + CHURN)[:, None] * vulnerable, 0, 1)
    won = np.clip(CHURN * RIGHT / (1 - RIGHT) * random.gamma(1, 1, documents), 0, 1)
    base, luck = random.random(documents) < RIGHT, random.random((trials, documents))
    tuned = {"score": np.where(base, luck >= lost, luck < won)[:, None].astype(np.float32)}
    labels = random.integers(0, 2**32, documents, np.uint32)
    own = Answers(tuned, {"score": base.astype(np.float32)}, labels, np.arange(documents))
    errors = Errors(trials, ("math.forgetting",), DRAWS)
    errors.add("math", np.arange(trials), own)
    values = own.value(ALL_KINDS["forgetting"])[:, 0]
    at = np.linspace(shares.min(), shares.max(), 201)
    truth = np.array([_lost(forgotten(share)).mean() for share in at])
    return Simulated(shares, others, values, errors.draws([], {}, "all")[:, :, 0], truth, at)


def _lost(forgotten):
    """The forgetting rate in the population: vulnerability is exponential, and a document is lost at most once."""
    scale = forgotten + CHURN
    won = CHURN * RIGHT / (1 - RIGHT)
    return _mean(scale) - _mean(won) * (1 - RIGHT) / RIGHT


def _mean(scale):
    """The mean of min(scale v, 1) for an exponential v of mean 1; negative scales stay 0."""
    positive = np.maximum(scale, 1e-9)
    return np.where(scale > 0, positive * (1 - np.exp(-1 / positive)), 0.0)


def holds(found, world: Simulated, bound: float) -> bool:
    """Whether everything that an analysis.stats.response.Needed of `forgetting <= bound` says is true in the world."""
    kept = world.truth <= bound
    if found.verdict in ("everywhere", "nowhere"):
        return bool(kept.all() if found.verdict == "everywhere" else not kept.any())
    ends = {"from": (found.low, found.high), "up to": (found.high, found.low)}.get(found.verdict, (None, None))
    true = [np.interp(end, world.at, world.truth) <= bound for end in ends if end is not None]
    expected = [kept for end, kept in zip(ends, (False, True), strict=True) if end is not None]
    return true == expected
