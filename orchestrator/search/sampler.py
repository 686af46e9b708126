"""Proposes points of the space: the config's sampler, wrapped so that it proposes no point twice."""

import warnings
from collections.abc import Callable, Mapping, Sequence
from random import Random
from typing import Any

import optuna
from optuna.distributions import BaseDistribution
from optuna.samplers import BaseGASampler, BaseSampler
from optuna.trial import FrozenTrial, Trial, TrialState

from orchestrator.config.model import SweepConfig
from orchestrator.config.space import distance
from orchestrator.search.bayesian import Gaussian
from orchestrator.search.optuna_space import axis_settings, distributions, enqueueable, of_axis, walk
from orchestrator.search.prospects import Prospects

Seen = Callable[[dict[str, Any]], bool]
_TRIES = 5  # draws until a point is new; a sampler that is sure of its best point repeats it for ever
_DESIGN = 6  # trials before a Gaussian process proposes
_RANDOM_TRIES = 100  # uniform draws after that, in a space that is too large to be enumerated
_UNLIMITED_POPULATION = 16  # population of a genetic sampler in a sweep without a budget in trials


# ---------------------------------------------------------------------- asking


def ask(study: optuna.Study) -> Trial | None:
    """The next trial, queued ones first; None where every point of the space has been seen. Needs `make_sampler`'s sampler."""
    sampler = study.sampler
    assert isinstance(sampler, Distinct)
    if sampler.exhausted() and not study.get_trials(deepcopy=False, states=(TrialState.WAITING,)):
        return None
    return study.ask()


def begin(study: optuna.Study, config: SweepConfig, settings: Mapping[str, Any], attributes: dict[str, Any]) -> FrozenTrial:
    """Starts a trial at this point, without the sampler and ahead of the queued trials."""
    params = enqueueable(config, settings)
    among = {name: one for name, one in distributions(config).items() if name in params}
    template = optuna.trial.create_trial(state=TrialState.RUNNING, params=params, distributions=among, user_attrs=attributes)
    number = study._storage.create_new_trial(study._study_id, template_trial=template)
    return study._storage.get_trial(number)


def weigh(study: optuna.Study, paused: Sequence[int]) -> Prospects | None:
    """What going on with the paused trials promises, beside the most promising new point. Needs `make_sampler`'s sampler; None
    during the design of a Gaussian process, and for samplers that weigh nothing."""
    sampler = study.sampler
    assert isinstance(sampler, Distinct)
    return sampler.gaussian.weigh(study, paused) if sampler.gaussian is not None else None


def make_sampler(config: SweepConfig, asked: int, seen: Seen) -> "Distinct":
    """The config's sampler.

    `asked` is the number of the study's trials. `seen` reports whether settings were proposed, here or by another driver, and
    never takes that back.
    """
    seed = config.search.seed + asked  # with the first seed a resumed sampler would repeat its first draws
    return Distinct(config, _inner(config, seed, seen), seen, seed)


def _inner(config: SweepConfig, seed: int, seen: Seen) -> BaseSampler:
    budget = config.budget
    startup = 10 if budget is None else min(10, max(4, budget // 3))
    population = _UNLIMITED_POPULATION if budget is None else min(50, max(4, budget // 4))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
        match config.sampler:
            case "tpe":  # Optuna 5 counts running trials as bad ones by default, so that workers spread
                return optuna.samplers.TPESampler(seed=seed, n_startup_trials=startup)
            case "nsga2":
                return optuna.samplers.NSGAIISampler(seed=seed, population_size=population)
            case "nsga3":
                return optuna.samplers.NSGAIIISampler(seed=seed, population_size=population)
            case "gp":
                return Gaussian(config, lambda settings: config.valid(settings) and not seen(settings), _DESIGN)
    return optuna.samplers.RandomSampler(seed=seed)  # a grid draws where no unseen point goes with a queued trial


class Distinct(BaseSampler):
    """Draws whole points from a sampler until one is valid and unseen; then takes the nearest such point of the space.

    In a space that is not countable the last draw stands. A queued trial keeps its fixed parameters, even where that repeats a
    point. The grid sampler takes the first unseen point.
    """

    def __init__(self, config: SweepConfig, inner: BaseSampler, seen: Seen, seed: int):
        self._config, self._inner, self._seen, self._random = config, inner, seen, Random(seed)
        # unseen points in reverse order: the next one is popped from the end
        self._open = None if config.size() is None else list(config.grid())[::-1]
        self._space = distributions(config)

    @property
    def gaussian(self) -> Gaussian | None:
        return self._inner if isinstance(self._inner, Gaussian) else None

    def exhausted(self) -> bool:
        """Whether every point has been seen."""
        if self._open is None:
            return False
        while self._open and self._seen(self._open[-1]):
            self._open.pop()
        return not self._open

    # ------------------------------------------------------------------ what Optuna calls

    def infer_relative_search_space(self, study: optuna.Study, trial: FrozenTrial) -> dict[str, BaseDistribution]:
        return self._space

    def sample_relative(
        self, study: optuna.Study, trial: FrozenTrial, search_space: dict[str, BaseDistribution]
    ) -> dict[str, Any]:
        """Optuna's parameters of a whole point."""
        # a queued trial has fixed parameters; a trial whose proposal was cut off has some of its own
        fixed = {**trial.system_attrs.get("fixed_params", {}), **trial.params}
        drawn: dict[str, Any] = {}
        tries = 0 if self._config.search.sampler == "grid" else 1 if isinstance(self._inner, Gaussian) else _TRIES
        for _ in range(tries):
            drawn, settings = self._draw(study, trial, fixed)
            if self._new(settings):
                return drawn
        point = self._unseen(self._settings_of(drawn), self._settings_of(fixed))
        if point is not None:
            return {**enqueueable(self._config, point), **fixed}
        return drawn or self._draw(study, trial, fixed)[0]

    def sample_independent(
        self, study: optuna.Study, trial: FrozenTrial, param_name: str, param_distribution: BaseDistribution
    ) -> Any:
        return self._inner.sample_independent(study, trial, param_name, param_distribution)

    def before_trial(self, study: optuna.Study, trial: FrozenTrial) -> None:
        self._inner.before_trial(study, trial)
        if (
            isinstance(self._inner, BaseGASampler)
            and trial.state == TrialState.RUNNING
            and "fixed_params" in trial.system_attrs
        ):
            # otherwise a trial whose parameters are all fixed would belong to no generation: it asks the sampler nothing
            self._inner.get_trial_generation(study, trial)

    def after_trial(self, study: optuna.Study, trial: FrozenTrial, state: TrialState, values: Sequence[float] | None) -> None:
        self._inner.after_trial(study, trial, state, values)

    def reseed_rng(self) -> None:
        self._inner.reseed_rng()
        self._random.seed()

    # ------------------------------------------------------------------ points

    def _draw(self, study: optuna.Study, trial: FrozenTrial, fixed: dict[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
        """(Optuna's parameters, settings) of a point from the inner sampler; writes nothing to the storage."""
        together = self._inner.infer_relative_search_space(study, trial)
        relative = {**self._inner.sample_relative(study, trial, together), **fixed}

        def value(name: str, among: BaseDistribution) -> Any:
            return relative[name] if name in relative else self._inner.sample_independent(study, trial, name, among)

        return walk(self._config, value)

    def _new(self, settings: dict[str, Any]) -> bool:
        return self._config.valid(settings) and not self._seen(settings)

    def _settings_of(self, params: Mapping[str, Any]) -> dict[str, Any]:
        """The settings of the axes whose parameters are all given."""
        whole = [axis for axis in self._config.axes if all(name in params for name in of_axis(axis))]
        return {path: value for axis in whole for path, value in axis_settings(axis, params).items()}

    def _unseen(self, near: dict[str, Any], fixed: dict[str, Any]) -> dict[str, Any] | None:
        """The new point with the fixed settings that is nearest to `near`; the first one where `near` is empty."""
        if self._open is None:
            drawn = (self._config.draw(self._random) for _ in range(0 if fixed else _RANDOM_TRIES))
            return next((point for point in drawn if self._new(point)), None)
        points = [point for point in reversed(self._open) if all(point.get(path) == value for path, value in fixed.items())]
        if near:
            self._random.shuffle(points)  # ties of the stable sort below are broken at random
            points.sort(key=lambda point: distance(self._config.axes, near, point))
        return next((point for point in points if not self._seen(point)), None)
