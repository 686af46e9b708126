"""Looks: what a trial has shown of itself before its end, after a share of its training rows and of the searched documents."""

import math
from collections.abc import Mapping, Sequence
from typing import Annotated, Any

import numpy as np
from optuna.trial import FrozenTrial, TrialState, create_trial
from pydantic import BaseModel, ConfigDict, Field

from orchestrator.search.evidence import ERRORS

LOOKS = "looks"
"""User attribute of a trial: its looks, the newest last."""
ROWS = "rows"
DOCUMENTS = "documents"
"""User attributes of a look as `evidence` shows it: shares of the training rows and of the searched documents."""
Share = Annotated[float, Field(gt=0, le=1)]
Finite = Annotated[float, Field(allow_inf_nan=False)]


class Look(BaseModel):
    """A trial's outcome so far, as a user attribute of the study holds it."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    rows: Share
    """Of the training rows."""
    documents: Share
    """Of the clusters of documents that the search sees."""
    values: tuple[Finite, ...]
    """Of the objectives."""
    violations: dict[str, Finite]
    """By constraint: how far it is violated, 0 or less where it is kept."""
    errors: dict[str, Annotated[float, Field(ge=0, allow_inf_nan=False)]]
    """Known standard errors of objectives and constraints, by metric."""
    seconds: Annotated[float, Field(ge=0, allow_inf_nan=False)]
    """Seconds of the worker, in all runs of the trial so far."""


def of(attributes: Mapping[str, Any]) -> list[Look]:
    """The looks in a trial's user attributes, the newest last."""
    return [Look.model_validate(one) for one in attributes.get(LOOKS, [])]


def newest(attributes: Mapping[str, Any]) -> Look | None:
    found = of(attributes)
    return found[-1] if found else None


def evidence(trials: Sequence[FrozenTrial]) -> list[FrozenTrial]:
    """What the trials teach: finished trials, and looks as if they were complete trials with large errors.

    Of several looks after the same rows the newest knows all documents of the others. A complete trial, or a look at all
    rows, takes nothing from a look at fewer rows: that is an outcome of another training.
    """
    found = []
    for trial in trials:
        looks = {look.rows: look for look in of(trial.user_attrs)}
        if trial.state == TrialState.COMPLETE:
            looks.pop(1.0, None)
        found += [_shown(trial, look) for look in looks.values()]
        if trial.state == TrialState.COMPLETE or (trial.state.is_finished() and not looks):
            found.append(trial)
    return found


def _shown(trial: FrozenTrial, look: Look) -> FrozenTrial:
    made = create_trial(
        state=TrialState.COMPLETE,
        values=list(look.values),
        params=trial.params,
        distributions=trial.distributions,
        user_attrs={ERRORS: look.errors, ROWS: look.rows, DOCUMENTS: look.documents},
        constraints=look.violations,
    )
    made.number = trial.number
    return made


def seen_after(trial: FrozenTrial) -> dict[str, float]:
    """The share of the training rows, for the coordinates of an outcome; empty for all of them."""
    return {ROWS: trial.user_attrs[ROWS]} if trial.user_attrs.get(ROWS, 1.0) < 1 else {}


def rows_unit(share: float) -> float:
    """A share of the training rows as a coordinate: 1 for all of them, 0 for a quarter."""
    return 1 + math.log2(share) / 2


def parts(trials: Sequence[FrozenTrial]) -> np.ndarray:
    """Numbers (n,) of the parts of the documents that outcomes are from, 0 for all: trials answer the same ones first."""
    shares = np.array([trial.user_attrs.get(DOCUMENTS, 1.0) for trial in trials], dtype=float)
    found: np.ndarray = np.unique(-shares, return_inverse=True)[1] + 1
    return np.where(shares < 1, found, 0)
