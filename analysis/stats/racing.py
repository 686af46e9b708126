"""Racing: whether a trial that has answered a part of the documents can still reach the front, judged against those on it.

A trial's documents are answered in stages, each twice as large as the one before it and holding it, the same in every trial.
After a stage the trial is compared with each trial of the front over the documents that both have answered, paired. What both
will come to over all documents is the value so far with an error that shrinks as the rest does: for a mean over n of N
documents with a standard deviation s per document the variance of (final - so far) is s^2 (N - n) / (N n), that of a sample
without replacement (Cochran 1977, Sampling Techniques, section 2.6). Two documents that flip are added, one each way, as to
every interval here. Errors are drawn jointly for all trials, with the same weight for a document in each (answers.weights).
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from analysis.metrics.definitions import ALL_KINDS, Kind
from analysis.metrics.names import LEARNING, Objective, split_metric
from analysis.stats import pareto
from analysis.stats.estimate import learning
from analysis.stats.paired_outcomes import Answers, answers, weights
from trials.ledger.outcomes import STAGES, Split, first_clusters
from trials.ledger.record import TrialRecord

LEVEL = 0.99
"""A trial is given up where with at least this probability some trial of the front dominates it."""
_DRAWS = 500


@dataclass(frozen=True)
class Seen:
    """What t trials have come to in m objectives on a share of the documents; less is better."""

    share: float
    values: np.ndarray
    """Shape (t, m)."""
    draws: np.ndarray
    """Shape (draws, t, m): what they may come to over all documents."""

    def p_beaten(self, one: int, members: Sequence[int]) -> float:
        """The probability that one of the members dominates the trial over all documents."""
        if not len(members):
            return 0.0
        own, others = self.draws[:, one, None], self.draws[:, list(members)]
        return float(pareto.dominates(others, own).any(axis=1).mean())


def stages(records: Sequence[TrialRecord], base: TrialRecord, objectives: Sequence[Objective], split: Split) -> list[Seen]:
    """The trials as they stood after each of STAGES and at the end."""
    return [see(records, base, objectives, split, share) for share in (*STAGES, 1.0)]


def see(records: Sequence[TrialRecord], base: TrialRecord, objectives: Sequence[Objective], split: Split, share: float) -> Seen:
    """The trials over their first documents, such a share of all in the split."""
    values = np.full((len(records), len(objectives)), np.nan)
    errors = np.zeros((_DRAWS, *values.shape))
    for k, objective in enumerate(objectives):
        role, name = split_metric(objective.metric)
        if role == LEARNING:  # known before the first document is answered
            values[:, k] = [learning(one).get(name, np.nan) for one in records]
        elif (found := answers([[one] for one in records], base, role, split)) is not None and found[0].has(ALL_KINDS[name]):
            part = first(found[0], share)
            values[found[1], k] = part.value(ALL_KINDS[name])[:, 0]
            errors[:, found[1], k] = drawn(part, ALL_KINDS[name]) * np.sqrt(1 - share)
    return Seen(share, pareto.orient(values, objectives), pareto.orient(values + errors, objectives))


def drawn(part: Answers, kind: Kind) -> np.ndarray:
    """Shape (draws, t): errors of the metric over these documents, for those that they were drawn from."""
    influence = part.influence(kind)[:, 0]
    moved = (weights(part.clusters, _DRAWS) - 1) @ influence.T / influence.shape[1]
    if kind.unit is None:
        return moved
    unit = float(np.max(kind.unit({column: one.mean(dtype=float) for column, one in part.base.items()})))
    flips = np.random.default_rng(part.n).standard_normal(moved.shape) * unit / (part.n + 2)  # one each: two for a difference
    return moved + flips


def first(whole: Answers, share: float) -> Answers:
    """The answers to the clusters that come first in an order that follows from their labels alone."""
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
    )
