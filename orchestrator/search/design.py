"""The space as a unit cube, one coordinate in [0, 1] for each of Optuna's parameters, and designs that fill it."""

import math
import warnings
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution, IntDistribution
from scipy.stats import qmc

from orchestrator.config.model import SweepConfig
from orchestrator.config.space import Axis, Mixture, Pairs, Single
from orchestrator.search.optuna_space import of_axis
from trials import dotted_path
from trials.spec import TrialSpec

_MIDDLE = 0.5  # coordinate of a parameter that is not active


class Cube:
    """Converts coordinates (d,) to Optuna's parameters and settings, and back."""

    def __init__(self, config: SweepConfig):
        own = [(axis, of_axis(axis)) for axis in config.axes]
        # a proposal converts a thousand points, so that what depends on the axes alone is looked up once
        self._axes = [
            (axis if axis.when else None, [(name, _decoder(among)) for name, among in parameters.items()], _converter(axis))
            for axis, parameters in own
        ]
        self._parameters = [(name, among) for _, parameters in own for name, among in parameters.items()]
        self.names = [name for name, _ in self._parameters]
        self.choices = np.array(
            [len(among.choices) if isinstance(among, CategoricalDistribution) else 0 for _, among in self._parameters]
        )
        """Shape (d,): number of choices, 0 for a number."""

    def point(self, units: Sequence[float] | np.ndarray, fixed: Mapping[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
        """(Optuna's parameters, settings) of the active axes; `fixed` parameters keep their value."""
        params: dict[str, Any] = {}
        settings: dict[str, Any] = {}
        place = 0
        for conditional, own, convert in self._axes:
            if conditional is None or conditional.active(settings):
                values = []
                for offset, (name, decode) in enumerate(own, start=place):
                    values.append(fixed[name] if name in fixed else decode(units[offset]))
                    params[name] = values[-1]
                settings.update(convert(values))
            place += len(own)
        return params, settings

    def units(self, params: Mapping[str, Any]) -> np.ndarray:
        """Coordinates (d,) of Optuna's parameters."""
        return np.array([_unit(among, params[name]) if name in params else _MIDDLE for name, among in self._parameters])

    def sobol(self, seed: int, count: int) -> np.ndarray:
        """The first points (count, d) of a scrambled Sobol sequence."""
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)  # their balance does not matter here, which needs powers of two
            found: np.ndarray = qmc.Sobol(len(self.names), seed=seed).random(count)
        return found


def own_settings(config: SweepConfig, of: SweepConfig | TrialSpec) -> dict[str, Any]:
    """The searched settings as a config or a trial has them, where they are in the space.

    The config's own are its author's best guess.
    """
    found: dict[str, Any] = {}
    for axis in config.axes:
        given = {path: dotted_path.read(of, path, _absent(path)) for path in axis.paths}
        if axis.active(found) and axis.refusal(given) is None:
            found |= axis.given(given)
    return found


def _absent(path: str) -> float | None:
    """The value of a setting that is not there: a source that a mix does not name has no share."""
    return 0.0 if path.startswith(f"{dotted_path.MIX}.") else None


def _converter(axis: Axis) -> Callable[[list[Any]], dict[str, Any]]:
    """From values of the axis's parameters in Optuna to its settings."""
    if isinstance(axis, Mixture):
        return axis.shares
    if isinstance(axis, Pairs):
        points = dict(zip(axis.labels(), axis.choices, strict=True))
        return lambda values: points[values[0]]
    assert isinstance(axis, Single)
    path, parameter = axis.path, axis.parameter
    return lambda values: {path: parameter.nearest(values[0])}


def _decoder(among: BaseDistribution) -> Callable[[float], Any]:
    """From a quantile of the uniform distribution, on the parameter's scale, to the value."""
    if isinstance(among, CategoricalDistribution):
        choices = among.choices
        return lambda unit: choices[min(int(unit * len(choices)), len(choices) - 1)]
    assert isinstance(among, FloatDistribution | IntDistribution)
    low, high = among.low, among.high
    if isinstance(among, IntDistribution) and among.log:
        start, span = math.log(low - 0.5), math.log((high + 0.5) / (low - 0.5))
        return lambda unit: min(max(round(math.exp(start + span * unit)), low), high)
    if among.step is not None:
        step, count = among.step, round((high - low) / among.step) + 1
        kind = type(low)
        return lambda unit: kind(min(low + step * min(int(unit * count), count - 1), high))
    if among.log:
        start, span = math.log(low), math.log(high / low)
        return lambda unit: min(max(math.exp(start + span * unit), low), high)
    return lambda unit: low + (high - low) * float(unit)


def _unit(among: BaseDistribution, value: Any) -> float:
    """The middle of the quantiles of a value: the inverse of `_decoder`."""
    if isinstance(among, CategoricalDistribution):
        return (among.choices.index(value) + 0.5) / len(among.choices)
    assert isinstance(among, FloatDistribution | IntDistribution)
    if among.low == among.high:
        return _MIDDLE
    if isinstance(among, IntDistribution) and among.log:
        low, high = math.log(among.low - 0.5), math.log(among.high + 0.5)
        return (math.log(value) - low) / (high - low)
    if among.step is not None:
        count = round((among.high - among.low) / among.step) + 1
        return (round((value - among.low) / among.step) + 0.5) / count
    scale = math.log if among.log else float
    return float((scale(value) - scale(among.low)) / (scale(among.high) - scale(among.low)))
