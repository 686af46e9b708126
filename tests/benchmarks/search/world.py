"""Measured outcomes of a synthetic trial: right and wrong answers to documents that all trials and the base share."""

from collections.abc import Mapping
from typing import Any

import numpy as np
from scipy.special import ndtri

from tests.benchmarks.search.families import BASE, DOCUMENTS, Family, metrics_of

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
        means = {role: float(own.mean()) for role, own in answers.items()}
        base = {role: float(own.mean()) for role, own in self._base.items()}
        changes = {
            "commonsense.gain": answers["commonsense"] - self._base["commonsense"],
            "math.forgetting": answers["math"] / base["math"] - self._base["math"] * means["math"] / base["math"] ** 2,
            "knowledge.drop": self._base["knowledge"] - answers["knowledge"],
        }
        errors = {name: float(own.std(ddof=1) / np.sqrt(len(own))) for name, own in changes.items()}
        return metrics_of(means, base), errors
