"""The bases as points of a sweep: a training must beat the model that nobody trained.

A base differs from itself by nothing: its gain, drop, forgetting and divergence are 0, without an error. Its scores have the
errors of their documents, which it shares with its trials.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np

from analysis.metrics.definitions import ALL_KINDS, JOINT_KINDS
from analysis.metrics.names import LEARNING, split_metric
from analysis.stats.bootstrap import Errors
from analysis.stats.estimate import Setting, measure_all, measure_joint, scores
from trials.ledger.outcomes import Split
from trials.ledger.record import TrialRecord


@dataclass(frozen=True)
class Untrained:
    """b bases in m metrics. A base with a value that is not finite takes no part."""

    values: np.ndarray
    """Shape (b, m)."""
    errors: np.ndarray
    """Shape (draws, b, m): joint with the draws of the trials' errors."""

    @property
    def draws(self) -> np.ndarray:
        """Joint draws (draws, b, m) of the true values."""
        return self.values - self.errors

    @classmethod
    def none(cls, draws: int, metrics: int) -> "Untrained":
        return cls(np.empty((0, metrics)), np.empty((draws, 0, metrics)))


def untrained_values(baselines: Sequence[TrialRecord | None], names: Sequence[str], split: Split) -> np.ndarray:
    """The metrics `names` (b, m) of the bases with these complete records; NaN where unknown or undefined."""
    measured = measure_all(_settings(baselines), split, errors=False, only=names)
    values = np.full((len(baselines), len(names)), np.nan)
    for column, name in enumerate(names):
        if name in measured:
            values[:, column] = measured[name].value
        elif split_metric(name)[0] == LEARNING and not name.endswith(
            ".loss"
        ):  # the base's loss is in its trials' records alone
            values[:, column] = [np.nan if record is None else 0.0 for record in baselines]
    return values


def untrained(baselines: Sequence[TrialRecord | None], names: Sequence[str], split: Split, draws: int) -> Untrained:
    """The bases with their errors."""
    settings = _settings(baselines)
    collected = Errors(len(settings), names, draws)
    measured = measure_all(settings, split, watch=collected.add) | measure_joint(settings, names, split, watch=collected.add)
    errors = collected.draws(settings, measured, split)
    errors[:, :, [_certain(name) for name in names]] = 0.0
    return Untrained(untrained_values(baselines, names, split), errors)


def _settings(baselines: Sequence[TrialRecord | None]) -> list[Setting]:
    return [Setting([record] if record is not None else [], record) for record in baselines]


def _certain(name: str) -> bool:
    """Whether the metric compares a model with its base."""
    role, kind = split_metric(name)
    return role == LEARNING or kind in JOINT_KINDS or (ALL_KINDS[kind].base and kind != "base")


def worst_scores(bases: Iterable[tuple[TrialRecord, Split]]) -> dict[str, float]:
    """ROLE.value of the bases on their documents of the split, the worst of several: a gain over any of them adds volume."""
    found: dict[str, float] = {}
    for base, split in bases:
        for role, named in scores(base, split).items():
            value, worst = named["score"].value, min if base.scale(role).higher_is_better else max
            found[f"{role}.value"] = worst(value, found.get(f"{role}.value", value))
    return found
