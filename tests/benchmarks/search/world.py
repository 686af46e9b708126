"""Measured outcomes of a synthetic trial: right and wrong answers to documents that all trials and the base share."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy.special import ndtri

from tests.benchmarks.search.families import BASE, DOCUMENTS, Family, metrics_of

_KEPT = 0.5  # share of a trial's own noise that it has after a part of its rows already
_SHARED = 0.7  # share of the variance of an answer that is the document's difficulty


class World:
    """A draw of documents, of the base's answers, and of every trial's own noise."""

    def __init__(self, family: Family, seed: int):
        self._family = family
        self._random = np.random.default_rng(seed)
        self._difficulty = {role: self._random.standard_normal(n) for role, n in DOCUMENTS.items()}
        self._base = {role: self._answers(role, accuracy) for role, accuracy in BASE.items()}

    def _answers(self, role: str, accuracy: float) -> np.ndarray:
        own = self._random.standard_normal(DOCUMENTS[role])
        right = np.sqrt(_SHARED) * self._difficulty[role] + np.sqrt(1 - _SHARED) * own < ndtri(accuracy)
        return right.astype(float)

    def measure(self, settings: Mapping[str, Any]) -> tuple[dict[str, float], dict[str, float]]:
        """(metrics, their standard errors) of a trial with these settings, against the base document by document."""
        answers = {role: self._answers(role, accuracy) for role, accuracy in self._family.accuracies(settings).items()}
        return metrics_and_errors(answers, self._base)

    def trial(self, settings: Mapping[str, Any]) -> "Trial":
        """A trial that can be looked at before its end."""
        own = {role: self._random.standard_normal((2, n)) for role, n in DOCUMENTS.items()}
        return Trial(self, settings, own)

    def look(self, trial: "Trial", rows: float, documents: float) -> tuple[dict[str, float], dict[str, float]]:
        """(metrics, their standard errors) after shares of the training rows and of the documents."""
        answers, base = {}, {}
        for role, accuracy in self._family.accuracies(trial.settings, rows).items():
            n = round(documents * DOCUMENTS[role])
            same, other = trial.own[role]
            # a training goes on from its own state: most of its luck stays
            own = same if rows == 1 else np.sqrt(_KEPT) * same + np.sqrt(1 - _KEPT) * other
            right = np.sqrt(_SHARED) * self._difficulty[role] + np.sqrt(1 - _SHARED) * own < ndtri(accuracy)
            answers[role], base[role] = right[:n].astype(float), self._base[role][:n]
        return metrics_and_errors(answers, base)


def metrics_and_errors(
    answers: Mapping[str, np.ndarray], own_base: Mapping[str, np.ndarray]
) -> tuple[dict[str, float], dict[str, float]]:
    """(metrics, their standard errors) of right and wrong answers (n,) by role, and of the base's to the same documents."""
    means = {role: float(own.mean()) for role, own in answers.items()}
    base = {role: float(own.mean()) for role, own in own_base.items()}
    changes = {
        "commonsense.gain": answers["commonsense"] - own_base["commonsense"],
        "math.forgetting": answers["math"] / base["math"] - own_base["math"] * means["math"] / base["math"] ** 2,
        "knowledge.drop": own_base["knowledge"] - answers["knowledge"],
    }
    errors = {name: float(own.std(ddof=1) / np.sqrt(len(own))) for name, own in changes.items()}
    return metrics_of(means, base), errors


@dataclass(frozen=True)
class Trial:
    world: World
    settings: Mapping[str, Any]
    own: Mapping[str, np.ndarray]
    """By role: two draws (2, n) of the trial's own noise."""
