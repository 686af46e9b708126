"""Simulated answers whose truth is known: outcomes by document and seed, as a base and its fine-tunings give them.

Nothing here knows the formulas of `analysis.stats`: errors follow from the outcomes alone. A world is made of parts, each of
which makes columns and knows their means over the population of documents and seeds.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from scipy.special import ndtr, ndtri
from scipy.stats import multivariate_normal

from analysis.metrics.definitions import ALL_KINDS, PAIRED_KINDS, paired_columns
from analysis.stats.estimate import Measured, _Columns, _Joint, _measured
from analysis.stats.paired_outcomes import Answers, _together
from trials.ledger.outcomes import SHARES_SCALE, of_document
from trials.ledger.record import Score

Columns = dict[str, np.ndarray]


class Part(Protocol):
    def answer(self, random: np.random.Generator, shifts: np.ndarray, r: int, n: int) -> tuple[Columns, Columns]:
        """Columns (t, r, n) of t settings with these `shifts` (t,) under r seeds, and of the base (n,)."""

    def means(self, shifts: np.ndarray) -> tuple[Columns, Columns]:
        """The same in the mean over all documents and seeds, (t,) and ()."""


@dataclass(frozen=True)
class Shares:
    """Right or wrong: a document's margin is normal, the base is right where it is above 0, and a setting shifts it.

    The margin also moves by what all settings share, what a setting does to a document, a seed's shift of all documents, and a
    seed's luck with a document; these are standard deviations.
    """

    right: float
    """The base's share of right answers."""
    shared: float = 0.1
    own: float = 0.15
    seeds: float = 0.0
    luck: float = 0.1
    topic: tuple[float, float] = (0.0, 0.0)
    """A share of the documents, and by how much more a setting shifts their margins: two kinds of documents."""
    name: str = "score"

    def answer(self, random: np.random.Generator, shifts: np.ndarray, r: int, n: int) -> tuple[Columns, Columns]:
        t = len(shifts)
        margin = ndtri(self.right) + random.standard_normal(n)
        moved = self.shared * random.standard_normal(n) + self.topic[1] * (random.random(n) < self.topic[0])
        moved = moved + shifts[:, None] + self.own * random.standard_normal((t, n))
        seed = self.seeds * random.standard_normal((t, r, 1)) + self.luck * random.standard_normal((t, r, n))
        return {self.name: margin + moved[:, None] + seed > 0}, {self.name: margin > 0}

    @property
    def _spread(self) -> float:
        return float(np.sqrt(1 + self.shared**2 + self.own**2 + self.seeds**2 + self.luck**2))

    def means(self, shifts: np.ndarray) -> tuple[Columns, Columns]:
        share, more = self.topic
        inside, outside = (ndtr((ndtri(self.right) + shifts + one) / self._spread) for one in (more, 0.0))
        return {self.name: share * inside + (1 - share) * outside}, {self.name: np.array(self.right)}

    def shift(self, gain: np.ndarray) -> np.ndarray:
        """The shifts (t,) with these true gains, where there is one kind of documents."""
        found: np.ndarray = ndtri(np.clip(self.right + gain, 1e-3, 1 - 1e-3)) * self._spread - ndtri(self.right)
        return found


@dataclass(frozen=True)
class Marked:
    """Answers with a marker, and right ones among them. A shift moves the marker's margin by `format` and the answer's by
    `skill` of it."""

    marker: Shares
    right: Shares
    format: float
    skill: float

    def answer(self, random: np.random.Generator, shifts: np.ndarray, r: int, n: int) -> tuple[Columns, Columns]:
        marker = self.marker.answer(random, self.format * shifts, r, n)
        right = self.right.answer(random, self.skill * shifts, r, n)
        both = []
        for one, other in zip(marker, right, strict=True):
            strict = one["score"] & other["score"]
            both.append({"score": strict, "strict": strict, "marker": one["score"]})
        return both[0], both[1]

    def means(self, shifts: np.ndarray) -> tuple[Columns, Columns]:
        marker, right = self.marker.means(self.format * shifts), self.right.means(self.skill * shifts)
        both = [
            {"marker": one["score"], "strict": one["score"] * other["score"]} for one, other in zip(marker, right, strict=True)
        ]
        for one in both:
            one["score"] = one["strict"]
        return both[0], both[1]


@dataclass(frozen=True)
class Exchanged:
    """Answers that are right before and wrong after, and the reverse, to questions with four choices."""

    answers: Shares

    def answer(self, random: np.random.Generator, shifts: np.ndarray, r: int, n: int) -> tuple[Columns, Columns]:
        tuned, base = self.answers.answer(random, shifts, r, n)
        after, before = tuned["score"], base["score"]
        paired = paired_columns(after.astype(float), before.astype(float), SHARES_SCALE, np.full(n, 4.0))
        return tuned | paired, base | dict.fromkeys(PAIRED_KINDS, np.zeros(n))

    def means(self, shifts: np.ndarray) -> tuple[Columns, Columns]:
        (tuned, base), world = self.answers.means(shifts), self.answers
        assert not world.topic[0]
        # both margins are above 0: two normal variables with a covariance of 1
        covariance = [[1.0, 1.0], [1.0, world._spread**2]]
        kept = np.array(
            [
                multivariate_normal.cdf([ndtri(world.right), ndtri(world.right) + one], cov=covariance, allow_singular=True)
                for one in shifts
            ]
        )
        lost, won = base["score"] - kept, tuned["score"] - kept
        guessed = (1 - kept - lost - won) / 3
        paired = {"lost": lost, "won": won, "lost_adjusted": lost - guessed, "won_adjusted": won - guessed}
        return tuned | paired, base | dict.fromkeys(PAIRED_KINDS, np.zeros(()))


@dataclass(frozen=True)
class Suite:
    """Several roles."""

    roles: tuple[Shares, ...]
    sizes: tuple[float, ...] = ()
    """Their documents by those of the case; as many without it."""

    def rates(self, shifts: np.ndarray) -> np.ndarray:
        """The forgetting rates (roles, t) over all documents and seeds."""
        return np.array([ALL_KINDS["forgetting"].of(*one.means(shifts)) for one in self.roles])


@dataclass(frozen=True)
class Bits:
    """Bits of gold solutions: a document's bits per byte rise by a random amount, whose mean is the setting's shift."""

    shape: str
    """Of the rises: even (normal), skewed (lognormal, sigma 1), rare (all of it is in one document of 20), or bimodal (in
    one of five)."""
    noise: float = 0.02
    seeds: float = 0.0
    luck: float = 0.01
    tokens: float = 0.0
    """Mean number of one-byte tokens, many documents without any; 0 for solutions of about 300 bytes."""

    def answer(self, random: np.random.Generator, shifts: np.ndarray, r: int, n: int) -> tuple[Columns, Columns]:
        t = len(shifts)
        size = random.poisson(self.tokens * random.gamma(2, 0.5, n)) if self.tokens else 40 + random.gamma(2, 130, n)
        rise = shifts[:, None] * self._shape(random, (t, n)) + self.noise * random.standard_normal((t, n))
        seed = self.seeds * random.standard_normal((t, r, 1)) + self.luck * random.standard_normal((t, r, n))
        base = size * random.gamma(9, 0.6 / 9, n)
        length = np.broadcast_to(size.astype(float), (t, r, n))
        tuned = {"score": np.ones((t, r, n)), "bits": base + size * (rise[:, None] + seed), "bytes": length}
        return tuned, {"score": np.ones(n), "bits": base, "bytes": size.astype(float)}

    def _shape(self, random: np.random.Generator, shape: tuple[int, int]) -> np.ndarray:
        if self.shape == "skewed":
            return np.exp(random.standard_normal(shape) - 0.5)
        share = {"rare": 0.05, "bimodal": 0.2}.get(self.shape, 1.0)
        return (random.random(shape) < share) / share

    def means(self, shifts: np.ndarray) -> tuple[Columns, Columns]:
        one = np.ones(())
        return {"bits": 0.6 + shifts, "bytes": one, "score": one}, {"bits": 0.6 * one, "bytes": one, "score": one}


def answers(
    part: Part | Suite, random: np.random.Generator, shifts: np.ndarray, n: int, r: int = 1, cluster: int = 1
) -> Answers:
    """Of t settings with these `shifts` to n documents of each role, of which each `cluster` are copies of one."""
    if isinstance(part, Suite):
        sizes = [int(n * size) for size in part.sizes or np.ones(len(part.roles))]
        own = [answers(one, random, shifts, size, r, cluster) for one, size in zip(part.roles, sizes, strict=True)]
        each = [(one, np.arange(len(shifts))) for one in own]
        together = _together({f"role{number}": one for number, one in enumerate(each)})
        assert together is not None
        return together[0]
    tuned, base = part.answer(random, shifts, r, n // cluster)
    starts = np.arange(0, n, cluster)
    labels = np.sort(random.choice(2**32, len(starts), replace=False)).astype(np.uint32)
    sides = [
        {name: np.repeat(values, cluster, axis=-1).astype(np.float32) for name, values in side.items()}
        for side in (tuned, base)
    ]
    return Answers(sides[0], sides[1], labels, starts)


def some(own: Answers, clusters: np.ndarray) -> Answers:
    """The answers to these clusters (places)."""
    size = own.n // len(own.starts)
    documents = (clusters[:, None] * size + np.arange(size)).ravel()
    sides = [{name: values[..., documents] for name, values in side.items()} for side in (own.tuned, own.base)]
    return Answers(sides[0], sides[1], own.clusters[clusters], np.arange(0, len(documents), size))


def truth(part: Part | Suite, name: str, shifts: np.ndarray) -> np.ndarray:
    """The metric (t,) over all documents and seeds."""
    if isinstance(part, Suite):
        rates = part.rates(shifts)
        whole: np.ndarray = rates.mean(axis=0) if name == "mean_forgetting" else rates.max(axis=0)
        return whole
    tuned, base = part.means(shifts)
    found: np.ndarray = np.maximum(np.broadcast_to(ALL_KINDS[name].of(tuned, base), shifts.shape), ALL_KINDS[name].floor)
    return found


def measured(own: Answers, name: str) -> Measured:
    """As `measure_all` gives the metric of t settings for records with these outcomes."""
    t, r, _ = next(iter(own.tuned.values())).shape
    if own.joint:
        joined = (own, np.arange(t))
        return _measured(name, own.joint[name], _Joint(joined, t), joined)
    tuned = [[_scores({name: values[i, j] for name, values in own.tuned.items()}) for j in range(r)] for i in range(t)]
    columns = _Columns(tuned, _scores(own.base), SHARES_SCALE)
    columns.pair(pairing := (own, np.arange(t)))
    return _measured(name, ALL_KINDS[name], columns, pairing)


def _scores(columns: Mapping[str, np.ndarray]) -> dict[str, Score]:
    found, n = {}, len(columns["score"])
    for name, values in columns.items():
        if name == "bits":
            ratio = values.sum(dtype=float) / columns["bytes"].sum(dtype=float)
            spread = float((values - ratio * columns["bytes"]).std(ddof=1)) / float(columns["bytes"].mean())
            found["bpb"] = Score(value=float(ratio), stderr=spread / n**0.5, n=n)
        elif not of_document(name):
            found[name] = Score(value=float(values.mean(dtype=float)), stderr=float(values.std(ddof=1)) / n**0.5, n=n)
    return found
