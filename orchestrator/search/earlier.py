"""Trials of other sweeps, as a study keeps them for the sampler of a new sweep."""

import json
from collections.abc import Collection, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import optuna
from optuna.trial import FrozenTrial, TrialState

from orchestrator.config.model import SweepConfig
from orchestrator.search.evidence import ERRORS
from orchestrator.search.optuna_space import distributions, enqueueable

EARLIER = "earlier"
"""User attribute of a study: its EarlierTrials as JSON values."""


@dataclass(frozen=True)
class EarlierTrial:
    """A trial of another sweep at a point of this sweep's space. All values are plain."""

    key: str
    settings: Mapping[str, Any]
    """The searched ones."""
    context: Mapping[str, Any]
    """Its other settings that differ from this sweep's, by dotted path; empty where at most the seeds differ."""
    values: Sequence[float]
    """Of the objectives."""
    violations: Mapping[str, float]
    """By constraint."""
    errors: Mapping[str, float]
    """Known standard errors, by metric."""


@dataclass(frozen=True)
class Earlier:
    """Earlier trials as Optuna's, with their contexts (n,), 0 for the sweep's own."""

    trials: Sequence[FrozenTrial]
    contexts: np.ndarray

    @classmethod
    def read(cls, study: optuna.Study, config: SweepConfig, told: Collection[str]) -> "Earlier":
        """Those that the study keeps, without the keys that it was `told`."""
        kept = [one for one in map(_restored, study.user_attrs.get(EARLIER, [])) if one.key not in told]
        named = [json.dumps(one.context, sort_keys=True) if one.context else "" for one in kept]
        names = ["", *sorted({*named} - {""})]
        return cls([_as_trial(one, config) for one in kept], np.array([names.index(name) for name in named], dtype=int))

    @property
    def own(self) -> int:
        """Number of trials of the sweep's own context."""
        return int((self.contexts == 0).sum())

    def first(self, count: int) -> "Earlier":
        return Earlier(self.trials[:count], self.contexts[:count])


def keep(study: optuna.Study, trials: Sequence[EarlierTrial]) -> None:
    study.set_user_attr(EARLIER, [asdict(one) for one in trials])


def _restored(stored: Mapping[str, Any]) -> EarlierTrial:
    return EarlierTrial(**stored)


def _as_trial(one: EarlierTrial, config: SweepConfig) -> FrozenTrial:
    params = enqueueable(config, one.settings)
    among = distributions(config)
    return optuna.trial.create_trial(
        state=TrialState.COMPLETE,
        params=params,
        distributions={name: among[name] for name in params},
        values=list(one.values),
        constraints=dict(one.violations),
        user_attrs={ERRORS: dict(one.errors)},
    )
