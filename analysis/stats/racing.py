"""Racing: whether the front dominates a trial that has answered a part of the documents.

Documents are answered in stages, in the same order in every trial, and trials are compared over the documents of a stage.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy import special

from analysis.metrics.definitions import Kind
from analysis.metrics.names import LEARNING, Objective, split_metric
from analysis.stats import pareto
from analysis.stats.estimate import learning
from analysis.stats.intervals import skewness, symmetric
from analysis.stats.paired_outcomes import Answers, answers
from trials.ledger.outcomes import STAGES, Split, first_clusters
from trials.ledger.record import TrialRecord

RISK = 0.05
"""Probability that a sweep gives up any trial that would have been on its front."""
FEWEST = 30
"""Clusters of documents before a trial is judged: from fewer, the spread of a skewed metric is not known."""
_UNLIMITED = 1000  # trials of a sweep that only time limits


def level(trials: int | None) -> float:
    """A trial is given up at a stage where its p-value is at most this: the risk is spent evenly over stages and trials."""
    return RISK / (len(STAGES) * (trials or _UNLIMITED))


@dataclass(frozen=True)
class Part:
    """How the first documents move a metric of t trials."""

    influence: np.ndarray
    """Shape (t, c), of each cluster on the trials' values."""
    flip: float
    """Standard error of two doubtful flips, one each way (see intervals.interval); 0 for a metric that is no share."""

    @classmethod
    def of(cls, own: Answers, kind: Kind) -> "Part":
        unit = kind.unit({column: one.mean(dtype=float) for column, one in own.base.items()}) if kind.unit else 0.0
        return cls(own.influence(kind)[:, 0], float(np.max(unit) * np.sqrt(2) / (len(own.clusters) + 2)))


@dataclass(frozen=True)
class Interim:
    """t trials in m objectives on a share of the documents."""

    share: float
    values: np.ndarray
    """Shape (t, m); less is better."""
    parts: Sequence[Part | None]
    """None for an objective that is known for certain."""
    signs: Sequence[float]
    """-1 for an objective that is maximised, whose values are negated, else 1."""

    def p_value(self, one: int, members: Sequence[int]) -> float:
        """p-value of the null hypothesis that over all documents none of the members dominates the trial.

        A member dominates where it is no worse in any objective: an intersection-union test (Berger 1982,
        doi:10.1080/00401706.1982.10487790). Several members share the level (Bonferroni).
        """
        found = [max(self._worse(objective, one, member) for objective in range(self.values.shape[1])) for member in members]
        equal = [bool((self.values[member] == self.values[one]).all()) for member in members]
        return min([1.0, *(len(found) * p for p, same in zip(found, equal, strict=True) if not same)])

    def variance(self, one: int) -> np.ndarray:
        """Of the trial's values over all documents, given those over its share: (m,)."""
        known = [0.0 if part is None else part.influence[one].var(ddof=1) / part.influence.shape[1] for part in self.parts]
        return np.array(known) * (1 - self.share)

    def _worse(self, objective: int, one: int, member: int) -> float:
        """p-value of the null hypothesis that the member is worse than the trial in this objective over all documents."""
        away, part = self.values[member, objective] - self.values[one, objective], self.parts[objective]
        if part is None or self.share >= 1:
            return 0.0 if away <= 0 else 1.0  # an unknown value neither dominates nor is dominated
        moved = self.signs[objective] * (part.influence[member] - part.influence[one])
        clusters = len(moved)
        if clusters < FEWEST or not np.isfinite(away):
            return 1.0
        variance = moved.var(ddof=1) / clusters + part.flip**2
        if variance == 0:
            return 0.0 if away <= 0 else 1.0
        # Variance of the final mean given the mean over n of N documents is s^2 (N - n) / (N n), that of a sample without
        # replacement (Cochran 1977, Sampling Techniques, section 2.6).
        t = away / np.sqrt(variance * (1 - self.share))
        skew = skewness(moved[None, None], np.array([variance]))[0]
        return float(special.stdtr(clusters - 1, symmetric(t, skew)))


def stages(records: Sequence[TrialRecord], base: TrialRecord, objectives: Sequence[Objective], split: Split) -> list[Interim]:
    """The trials after each of STAGES and at the end."""
    return [interim(records, base, objectives, split, share) for share in (*STAGES, 1.0)]


def interim(
    records: Sequence[TrialRecord], base: TrialRecord, objectives: Sequence[Objective], split: Split, share: float
) -> Interim:
    """The trials over a share of the split's documents. The base may be one of them: it differs from itself by nothing."""
    values = np.full((len(records), len(objectives)), np.nan)
    parts: list[Part | None] = []
    for k, objective in enumerate(objectives):
        role, name = split_metric(objective.metric)
        part = None
        if role == LEARNING:  # measured in training
            base_has = 0.0 if name != "loss" else np.nan  # its loss is in its trials' records alone
            values[:, k] = [base_has if one.key == base.key else learning(one).get(name, np.nan) for one in records]
        elif (found := answers([[one] for one in records], base, role, split)) is not None and found[0].has(
            kind := found[0].kind(name)
        ):
            first = first_documents(found[0], share)
            own = Part.of(first, kind)
            values[found[1], k] = np.maximum(first.value(kind)[:, 0], kind.floor)
            influence = np.zeros((len(records), own.influence.shape[1]))
            influence[found[1]] = own.influence
            part = Part(influence, own.flip)
        parts.append(part)
    return Interim(
        share, pareto.orient(values, objectives), parts, pareto.orient(np.ones(len(objectives)), objectives).tolist()
    )


def first_documents(whole: Answers, share: float) -> Answers:
    """The answers to the first clusters, in an order that depends on their labels alone."""
    if share >= 1:
        return whole
    kept = first_clusters(len(whole.clusters), share)
    sizes = np.diff(np.append(whole.starts, whole.n))
    documents = np.concatenate([np.arange(whole.starts[one], whole.starts[one] + sizes[one]) for one in kept])
    starts = np.concatenate([[0], np.cumsum(sizes[kept])[:-1]])
    return Answers(
        {name: values[..., documents] for name, values in whole.tuned.items()},
        {name: values[documents] for name, values in whole.base.items()},
        whole.clusters[kept],
        starts,
        whole.scale,
    )
