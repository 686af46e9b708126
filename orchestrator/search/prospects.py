"""What going on with a paused trial promises: the hypervolume that it would add, and its chance to be on the front."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from optuna.trial import FrozenTrial, TrialState

from orchestrator.search.evidence import Aim
from orchestrator.search.improvement import gain
from orchestrator.search.looks import DOCUMENTS, ROWS, Look
from orchestrator.search.score import Score

_LUCK = 16  # drawn outcomes of the documents that are not answered yet, for each draw of a trial's true values


@dataclass(frozen=True)
class Prospects:
    """Of paused trials, by number."""

    new: float
    """Expected gain of hypervolume of the most promising new point."""
    gains: dict[int, float]
    """Expected gain of hypervolume over the trials whose values are final; of such a one itself nothing."""
    chances: dict[int, float]
    """Probability to be on the front of the measured values of all trials, once all are complete."""


@dataclass(frozen=True)
class Field:
    """The trials of a proposal."""

    aim: Aim
    known: Sequence[FrozenTrial]
    """n outcomes and looks."""
    pending: Sequence[FrozenTrial]
    bases: np.ndarray
    """Shape (b, m)."""

    @property
    def standing(self) -> np.ndarray:
        """Places of the trials whose values are final: complete ones, and looks at all rows and searched documents."""
        return np.array([i for i, one in enumerate(self.known) if one.state == TrialState.COMPLETE and _final_values(one)], int)

    @property
    def measured(self) -> np.ndarray:
        """Their oriented objectives and constraints (n, m + k)."""
        found = [_outcome(self.aim, self.known[place].values, self.known[place].constraints) for place in self.standing]
        return np.array(found).reshape(len(found), len(self.aim.signs) + len(self.aim.constraints))

    def place(self, number: int) -> int:
        """The place, among the known and the pending rows, of a trial after all of its training rows."""
        numbers = [one.number if one.user_attrs.get(ROWS, 1.0) == 1 else -1 for one in self.known]
        return [*numbers, *(one.number for one in self.pending)].index(number)


def _outcome(aim: Aim, values: Sequence[float], violations: Mapping[str, float]) -> np.ndarray:
    return np.array([*np.array(values) * aim.signs, *(-violations.get(name, 0.0) for name in aim.constraints)])


def _final_values(trial: FrozenTrial) -> bool:
    return trial.user_attrs.get(ROWS, 1.0) == trial.user_attrs.get(DOCUMENTS, 1.0) == 1


def prospects(score: Score, field: Field, paused: Mapping[int, Look], new: float) -> Prospects:
    """`paused` are the newest looks, of one trial at least; `new` is the score of the most promising new point."""
    places = np.array([field.place(number) for number in paused], int)
    m, standing = len(field.aim.signs), field.standing
    gains = np.zeros(len(places))
    for one in score.values:
        gains += score.feasible(one[places]) * gain(one[places, :m], score.corners(one[standing]))
    chances = _chances(score, field, list(paused.values()), places)
    return Prospects(
        new,
        dict(zip(paused, (gains / len(score.values)).tolist(), strict=True)),
        dict(zip(paused, chances.tolist(), strict=True)),
    )


def _chances(score: Score, field: Field, paused: Sequence[Look], places: np.ndarray) -> np.ndarray:
    """Of each to be on the front that all trials would make, the paused ones brought to their end.

    The value that is measured in the end is that of the look, for the documents that it has answered, and the true value
    with its own luck for the others.
    """
    m, columns = len(field.aim.signs), len(field.aim.signs) + len(field.aim.constraints)
    standing = field.measured
    told = [_final(look, field.aim) for look in paused]
    seen, answered, rest = (np.array(one) for one in zip(*told, strict=True))
    random = np.random.default_rng(0)
    found = np.zeros(len(places))
    for values, factors in zip(score.values, score.factors, strict=True):
        luck = random.standard_normal((_LUCK, len(places), columns)) * np.sqrt(factors[:columns] * rest)
        final = answered[:, None] * seen + (1 - answered[:, None]) * (values[places, :columns] + luck)
        for one in final:
            together = np.vstack([one, standing])
            kept = score.feasible(together)
            front = np.vstack([together[kept, :m], field.bases])
            beaten = (front[None] >= one[:, None, :m]).all(axis=2) & (front[None] > one[:, None, :m]).any(axis=2)
            found += ~beaten.any(axis=1) & kept[: len(places)]
    return found / (len(score.values) * _LUCK)


def _final(look: Look, aim: Aim) -> tuple[np.ndarray, float, np.ndarray]:
    """(the look's oriented values (columns,), the share of the final documents that it answers, variances (columns,) of the
    mean over the others)."""
    seen = _outcome(aim, look.values, look.violations)
    variances = np.array([look.errors.get(name, 0.0) ** 2 for name in (*aim.metrics, *aim.constrained)])
    if look.rows < 1:
        return seen, 0.0, variances * look.documents
    left = 1 - look.documents
    return seen, look.documents, variances * look.documents / left if left > 0 else np.zeros_like(variances)
