"""Trials of other sweeps, as a study keeps them for the sampler of a new sweep."""

import json
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Any

import numpy as np
import optuna
from optuna.trial import FrozenTrial, TrialState
from pydantic import BaseModel, ConfigDict, Field, TypeAdapter

from analysis.results.manifest import Settings
from orchestrator.config.model import SweepConfig
from orchestrator.search.evidence import ERRORS
from orchestrator.search.looks import Finite
from orchestrator.search.optuna_space import distributions, enqueueable

EARLIER = "earlier"
"""User attribute of a study: its EarlierTrials as JSON values."""


class EarlierTrial(BaseModel):
    """A trial of another sweep at a point of this sweep's space, as a user attribute of the study holds it."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    key: str
    settings: Settings
    """The searched ones."""
    context: dict[str, Any]
    """Its other settings that differ from this sweep's, by dotted path; empty where at most the seeds differ."""
    values: tuple[Finite, ...]
    """Of the objectives."""
    violations: dict[str, Finite]
    """By constraint."""
    errors: dict[str, Annotated[float, Field(ge=0, allow_inf_nan=False)]]
    """Known standard errors, by metric."""


_TRIALS = TypeAdapter(list[EarlierTrial])


@dataclass(frozen=True)
class Earlier:
    """Earlier trials as Optuna's, with their contexts (n,), 0 for the sweep's own."""

    trials: Sequence[FrozenTrial]
    contexts: np.ndarray

    @classmethod
    def read(cls, study: optuna.Study, config: SweepConfig, told: Collection[str]) -> "Earlier":
        """Those that the study keeps, without the keys that it was `told`."""
        kept = [one for one in stored(study.user_attrs) if one.key not in told]
        named = [json.dumps(one.context, sort_keys=True) if one.context else "" for one in kept]
        names = ["", *sorted({*named} - {""})]
        return cls([as_trial(one, config) for one in kept], np.array([names.index(name) for name in named], dtype=int))

    @property
    def own(self) -> int:
        """Number of trials of the sweep's own context."""
        return int((self.contexts == 0).sum())

    def first(self, count: int) -> "Earlier":
        return Earlier(self.trials[:count], self.contexts[:count])


def keep(study: optuna.Study, trials: Sequence[EarlierTrial]) -> None:
    study.set_user_attr(EARLIER, [one.model_dump(mode="json") for one in trials])


def stored(attributes: Mapping[str, Any]) -> list[EarlierTrial]:
    """The trials in a study's user attributes."""
    return _TRIALS.validate_python(attributes.get(EARLIER, []))


def as_trial(one: EarlierTrial, config: SweepConfig) -> FrozenTrial:
    """As Optuna's. Raises ValueError or KeyError for settings outside the space."""
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
