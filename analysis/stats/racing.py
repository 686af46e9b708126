"""Racing: the probability that the front dominates a trial that has answered a part of the documents.

Documents are answered in stages, in the same order in every trial, and trials are compared over the documents of a stage.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from analysis.metrics.definitions import Kind
from analysis.metrics.names import LEARNING, Objective, split_metric
from analysis.stats import pareto
from analysis.stats.estimate import learning
from analysis.stats.paired_outcomes import Answers, answers, weights
from trials.ledger.outcomes import STAGES, Split, first_clusters
from trials.ledger.record import TrialRecord

LEVEL = 0.99
"""A trial is given up where the front or its base dominates it with at least this probability."""
FEWEST = 30
"""Clusters of documents before a trial is judged: from fewer, the spread of a skewed metric is not known."""
_DRAWS = 500


@dataclass(frozen=True)
class Interim:
    """Values of t trials in m objectives on a share of the documents; less is better."""

    share: float
    values: np.ndarray
    """Shape (t, m)."""
    draws: np.ndarray
    """Shape (draws, t, m): draws of the values over all documents."""

    def p_dominated(self, one: int, members: Sequence[int]) -> float:
        """Probability that one of the members dominates the trial over all documents."""
        if not len(members):
            return 0.0
        own, others = self.draws[:, one, None], self.draws[:, list(members)]
        return float(pareto.dominates(others, own).any(axis=1).mean())


def stages(records: Sequence[TrialRecord], base: TrialRecord, objectives: Sequence[Objective], split: Split) -> list[Interim]:
    """The trials after each of STAGES and at the end."""
    return [interim(records, base, objectives, split, share) for share in (*STAGES, 1.0)]


def interim(
    records: Sequence[TrialRecord], base: TrialRecord, objectives: Sequence[Objective], split: Split, share: float
) -> Interim:
    """The trials over a share of the split's documents. The base may be one of them: it differs from itself by nothing."""
    values = np.full((len(records), len(objectives)), np.nan)
    errors = np.zeros((_DRAWS, *values.shape))
    for k, objective in enumerate(objectives):
        role, name = split_metric(objective.metric)
        if role == LEARNING:  # measured in training
            base_has = 0.0 if name != "loss" else np.nan  # its loss is in its trials' records alone
            values[:, k] = [base_has if one.key == base.key else learning(one).get(name, np.nan) for one in records]
        elif (found := answers([[one] for one in records], base, role, split)) is not None and found[0].has(
            kind := found[0].kind(name)
        ):
            part = first_documents(found[0], share)
            values[found[1], k] = part.value(kind)[:, 0]
            # Variance of the final mean given the mean over n of N documents is s^2 (N - n) / (N n), that of a sample without
            # replacement (Cochran 1977, Sampling Techniques, section 2.6).
            errors[:, found[1], k] = sampling_errors(part, kind) * np.sqrt(1 - share)
            if kind.base and name != "base":
                errors[:, [one.key == base.key for one in records], k] = 0.0
            if share < 1 and len(part.clusters) < FEWEST:
                errors[..., k] = np.nan  # an unknown value neither dominates nor is dominated
    return Interim(share, pareto.orient(values, objectives), pareto.orient(values + errors, objectives))


def sampling_errors(part: Answers, kind: Kind) -> np.ndarray:
    """Sampling errors (draws, t) of the metric over these documents; draws are joint, as trials share the weights."""
    influence = part.influence(kind)[:, 0]
    moved = (weights(part.clusters, _DRAWS) - 1) @ influence.T / influence.shape[1]
    # The spread is an estimate too: draws of a t distribution with one degree of freedom less than there are clusters.
    random, freedom = np.random.default_rng(part.n), influence.shape[1] - 1
    if freedom:
        moved *= np.sqrt(freedom / random.chisquare(freedom, _DRAWS))[:, None]
    if kind.unit is None:
        return moved
    unit = float(np.max(kind.unit({column: one.mean(dtype=float) for column, one in part.base.items()})))
    flips = random.standard_normal(moved.shape) * unit / (part.n + 2)  # a flip each way
    return moved + flips


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
