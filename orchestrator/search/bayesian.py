"""Proposes points by a Gaussian process that knows the errors of its measurements, after a design that fills the space."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np
import optuna
from optuna.distributions import BaseDistribution
from optuna.samplers import BaseSampler
from optuna.trial import FrozenTrial, TrialState

from orchestrator.config.model import SweepConfig
from orchestrator.search import looks
from orchestrator.search.design import Cube, own_settings
from orchestrator.search.earlier import Earlier
from orchestrator.search.evidence import KEY, Aim, Evidence
from orchestrator.search.features import Features
from orchestrator.search.gaussian import Inputs
from orchestrator.search.optuna_space import enqueueable
from orchestrator.search.prospects import Field, Prospects, prospects
from orchestrator.search.score import Known, Score

_ANYWHERE = 2048  # candidates all over the space
_KEPT = 256  # of them, for a closer look
_BEST = 10  # points to look around
_NEAR, _FINER = 40, 20  # candidates around each of them
_FIRST, _ROUNDS = 0.15, (0.1, 0.05, 0.02)  # their standard deviations, as shares of a range, ever finer
_LEARNT = 250  # trials; the time of a proposal grows with their cube
_PENDING = 100  # running trials, the latest ones, beside those that are weighed
_FREE = 0.5  # of the best score: a point that another sweep measured is taken from there on, because it costs nothing
_CHECKED = 50  # candidates that are tried for validity, the most promising ones first


@dataclass(frozen=True)
class Candidates:
    units: np.ndarray
    """Shape (c, d)."""
    points: list[tuple[dict[str, Any], dict[str, Any]]]
    """(Optuna's parameters, settings) of each."""
    rows: np.ndarray
    """Shape (c, columns)."""

    def at(self, places: np.ndarray) -> "Candidates":
        return Candidates(self.units[places], [self.points[place] for place in places], self.rows[places])


@dataclass
class _Learnt:
    """What the trials teach for one proposal."""

    state: Any
    """The proposal's number and what was known of the trials."""
    score: Score
    earlier: Earlier
    field: Field
    best: tuple[dict[str, Any], float] | None = None
    """Optuna's parameters of the most promising new point, and its score."""


class Gaussian(BaseSampler):
    """Begins with the config's own settings and a Sobol design. Deterministic given the seed and the study's trials."""

    def __init__(self, config: SweepConfig, new: Callable[[dict[str, Any]], bool], startup: int):
        """`new` reports whether settings are valid and unseen; `startup` is the size of the design, queued points included."""
        self._config, self._new, self._startup = config, new, startup
        self._cube, self._features, self._aim = Cube(config), Features(config), Aim.of(config)
        self._learnt: _Learnt | None = None

    def infer_relative_search_space(self, study: optuna.Study, trial: FrozenTrial) -> dict[str, BaseDistribution]:
        return {}

    def sample_relative(
        self, study: optuna.Study, trial: FrozenTrial, search_space: dict[str, BaseDistribution]
    ) -> dict[str, Any]:
        """Optuna's parameters of a whole point."""
        fixed = {**trial.system_attrs.get("fixed_params", {}), **trial.params}
        params = self._cube.point(np.full(len(self._cube.names), 0.5), fixed)[0]
        if params.keys() <= fixed.keys():  # a whole point was queued
            return params
        others = [one for one in study.get_trials(deepcopy=False) if one.params and one.number != trial.number]
        learnt = self._learn(study, others, trial.number)
        if learnt is None:
            return self._design(trial.number, fixed)
        return (learnt.best if not fixed and learnt.best else self._best(learnt, fixed))[0]

    def weigh(self, study: optuna.Study, paused: Sequence[int]) -> Prospects | None:
        """What going on with the paused trials promises, beside a new one; None during the design."""
        every = study.get_trials(deepcopy=False)
        trials = [one for one in every if one.params]
        learnt = self._learn(study, trials, len(every), frozenset(paused))
        if learnt is None:
            return None
        learnt.best = learnt.best or self._best(learnt, {})
        shown = {
            one.number: look for one in trials if one.number in paused and (look := looks.newest(one.user_attrs)) is not None
        }
        return prospects(learnt.score, learnt.field, shown, learnt.best[1])

    def _learn(
        self, study: optuna.Study, others: Sequence[FrozenTrial], number: int, weighed: frozenset[int] = frozenset()
    ) -> _Learnt | None:
        """What the other trials teach for the proposal of this number; None before they teach enough. The trials that are
        `weighed` have a place in its field."""
        seen = sum(one.state == TrialState.COMPLETE or looks.newest(one.user_attrs) is not None for one in others)
        earlier = Earlier.read(study, self._config, {one.user_attrs[KEY] for one in others if KEY in one.user_attrs})
        if number == 0 or seen + earlier.own < self._startup or not len(self._features.groups):
            return None
        state = (number, [(one.number, one.state, one.user_attrs.get(looks.LOOKS)) for one in others])
        if self._learnt is not None and self._learnt.state == state:  # weighed a moment ago, for the proposal that comes now
            return self._learnt
        random = np.random.default_rng([self._config.search.seed, number])
        ended = self._aim.best(looks.evidence(others), _LEARNT)
        earlier = earlier.first(_LEARNT - len(ended))
        whole = np.array([one.user_attrs.get(looks.ROWS, 1.0) == 1 for one in ended], dtype=bool)
        known = {one.number for one, there in zip(ended, whole, strict=True) if there}
        running = [one for one in others if one.state == TrialState.RUNNING and one.number not in known]
        running = [one for place, one in enumerate(running, _PENDING - len(running)) if place >= 0 or one.number in weighed]
        bases = self._aim.bases(study)
        score = Score(self._aim, self._aim.reference(self._config, bases), bases, random)
        score.learn(replace(self._known(ended, earlier), whole=whole), self._rows(running))
        self._learnt = _Learnt(state, score, earlier, Field(self._aim, ended, running, bases))
        return self._learnt

    def sample_independent(
        self, study: optuna.Study, trial: FrozenTrial, param_name: str, param_distribution: BaseDistribution
    ) -> Any:
        raise AssertionError(f"{param_name} is drawn with the other parameters")

    # ------------------------------------------------------------------ points

    def _design(self, place: int, fixed: Mapping[str, Any]) -> dict[str, Any]:
        if place == 0:
            own = {**enqueueable(self._config, own_settings(self._config, self._config)), **fixed}
            params, settings = self._cube.point(np.full(len(self._cube.names), 0.5), own)
            if self._new(settings):
                return params
        return self._cube.point(self._cube.sobol(self._config.search.seed, place + 1)[-1], fixed)[0]

    def _known(self, ended: Sequence[FrozenTrial], earlier: Earlier) -> Known:
        every = [*ended, *earlier.trials]
        contexts = np.concatenate([np.zeros(len(ended), dtype=int), earlier.contexts])
        inputs = Inputs(self._rows(every), self._features.groups, contexts, looks.parts(every))
        return Known(inputs, Evidence.of(every, self._aim), len(earlier.trials))

    def _rows(self, trials: Sequence[FrozenTrial]) -> np.ndarray:
        points = [
            {**self._cube.point(self._cube.units(trial.params), trial.params)[1], **looks.seen_after(trial)} for trial in trials
        ]
        return self._features.rows(points).reshape(len(points), len(self._features.groups))

    def _best(self, learnt: _Learnt, fixed: Mapping[str, Any]) -> tuple[dict[str, Any], float]:
        """Optuna's parameters of the most promising candidate that is new, and its score."""
        score, ended, earlier = learnt.score, learnt.field.known, learnt.earlier
        known = np.array([self._cube.units(one.params) for one in [*ended, *earlier.trials]])
        around, random = known[score.promising(_BEST)], score.random
        anywhere = self._anywhere if not fixed else self._candidates(self._anywhere.units, fixed)
        found = [
            self._again(known[len(ended) :], earlier.trials, fixed),
            anywhere.at(np.argsort(-score(anywhere.rows, quickly=True), kind="stable")[:_KEPT]),
            self._candidates(self._near(np.repeat(around, _NEAR, axis=0), _FIRST, random), fixed),
        ]
        scores = [score(some.rows) for some in found]
        for sd in _ROUNDS:
            order = np.argsort(-np.concatenate(scores), kind="stable")[:_BEST]
            around = np.vstack([some.units for some in found])[order]
            found.append(self._candidates(self._near(np.repeat(around, _FINER, axis=0), sd, random), fixed))
            scores.append(score(found[-1].rows))
        points = [point for some in found for point in some.points]
        every = np.concatenate(scores)
        order = np.argsort(-every, kind="stable")
        free = [place for place in order if place < len(earlier.trials) and earlier.contexts[place] == 0]
        worth = [place for place in free if every[place] >= _FREE * every.max()]
        best = next((place for place in [*worth, *order[:_CHECKED]] if self._new(points[place][1])), order[0])
        return points[best][0], float(every[best])

    @cached_property
    def _anywhere(self) -> Candidates:
        """The same points for all proposals, because their conversion takes longest."""
        return self._candidates(self._cube.sobol(self._config.search.seed, _ANYWHERE), {})

    def _near(self, around: np.ndarray, sd: float, random: np.random.Generator) -> np.ndarray:
        """Points (c, d) near those (c, d): a third of the coordinates moves, or one at least; a choice is drawn anew."""
        moved = random.random(around.shape) < 1 / 3
        moved[np.arange(len(around)), random.integers(around.shape[1], size=len(around))] = True
        steps = np.where(
            self._cube.choices > 0, random.random(around.shape), around + sd * random.standard_normal(around.shape)
        )
        found: np.ndarray = np.clip(np.where(moved, steps, around), 0.0, 1.0 - 1e-9)
        return found

    def _again(self, units: np.ndarray, trials: Sequence[FrozenTrial], fixed: Mapping[str, Any]) -> Candidates:
        """The exact points of earlier trials: coordinates lose the last digits of a number."""
        points = [self._cube.point(row, {**one.params, **fixed}) for row, one in zip(units, trials, strict=True)]
        return Candidates(units, points, self._features.rows([settings for _, settings in points]))

    def _candidates(self, units: np.ndarray, fixed: Mapping[str, Any]) -> Candidates:
        points = [self._cube.point(row, fixed) for row in units.tolist()]
        return Candidates(units, points, self._features.rows([settings for _, settings in points]))
