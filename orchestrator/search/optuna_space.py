"""Settings of a point as parameters of Optuna, and back.

Optuna's parameters have readable names: a setting its dotted path; the points of `_` are one categorical parameter, named after
their paths; a simplex has the quantiles of its shares, "data.mix.SOURCE (quantile)".
"""

from collections.abc import Callable, Mapping
from typing import Any

from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution, IntDistribution
from optuna.trial import FrozenTrial, Trial

from orchestrator.config.model import SweepConfig
from orchestrator.config.parameters import Categorical, Float
from orchestrator.config.space import Axis, Mixture, Pairs, Single


def of_axis(axis: Axis) -> dict[str, BaseDistribution]:
    if isinstance(axis, Mixture):
        return {f"{path} (quantile)": FloatDistribution(0.0, 1.0) for path in axis.paths[:-1]}
    if isinstance(axis, Pairs):
        return {axis.name: CategoricalDistribution(axis.labels())}
    assert isinstance(axis, Single)
    parameter = axis.parameter
    if isinstance(parameter, Categorical):
        return {axis.path: CategoricalDistribution(parameter.choices)}
    values = parameter.values()
    # Optuna warns of a step that misses `high`
    high = parameter.high if values is None or parameter.log else values[-1]
    if isinstance(parameter, Float):
        return {axis.path: FloatDistribution(parameter.low, high, log=parameter.log, step=parameter.step)}
    return {axis.path: IntDistribution(parameter.low, int(high), log=parameter.log, step=parameter.step or 1)}


def distributions(config: SweepConfig) -> dict[str, BaseDistribution]:
    """All of Optuna's parameters, by name."""
    return {name: among for axis in config.axes for name, among in of_axis(axis).items()}


def axis_settings(axis: Axis, params: Mapping[str, Any]) -> dict[str, Any]:
    """Converts Optuna's parameters to the axis's settings."""
    values = [params[name] for name in of_axis(axis)]
    if isinstance(axis, Mixture):
        return axis.shares(values)
    if isinstance(axis, Pairs):
        return dict(axis.choices[axis.labels().index(values[0])])
    assert isinstance(axis, Single)
    return {axis.path: axis.parameter.nearest(values[0])}


def _params(axis: Axis, settings: Mapping[str, Any]) -> dict[str, Any]:
    """Converts the axis's settings to Optuna's parameters: the inverse of `axis_settings`."""
    if isinstance(axis, Mixture):
        return dict(zip(of_axis(axis), axis.quantiles(settings), strict=True))
    if isinstance(axis, Pairs):
        return {axis.name: axis.labels()[axis.choices.index({path: settings[path] for path in axis.paths})]}
    return {path: settings[path] for path in axis.paths}


def _suggest(trial: Trial | FrozenTrial, name: str, among: BaseDistribution) -> Any:
    if isinstance(among, CategoricalDistribution):
        return trial.suggest_categorical(name, among.choices)
    if isinstance(among, IntDistribution):
        return trial.suggest_int(name, among.low, among.high, step=among.step, log=among.log)
    assert isinstance(among, FloatDistribution)
    return trial.suggest_float(name, among.low, among.high, step=among.step, log=among.log)


def walk(config: SweepConfig, value: Callable[[str, BaseDistribution], Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    """(Optuna's parameters, settings) of the axes that are active given the axes before them."""
    params: dict[str, Any] = {}
    settings: dict[str, Any] = {}
    for axis in config.axes:
        if axis.active(settings):
            params |= {name: value(name, among) for name, among in of_axis(axis).items()}
            settings |= axis_settings(axis, params)
    return params, settings


def suggest(config: SweepConfig, trial: Trial | FrozenTrial) -> dict[str, Any]:
    """The settings of a running trial, from the study's sampler; those of a frozen trial are its own."""
    return walk(config, lambda name, among: _suggest(trial, name, among))[1]


def settings(config: SweepConfig, params: Mapping[str, Any]) -> dict[str, Any]:
    """The settings at Optuna's parameters of a whole trial."""
    return walk(config, lambda name, among: params[name])[1]


def enqueueable(config: SweepConfig, settings: Mapping[str, Any]) -> dict[str, Any]:
    """Optuna's parameters for `study.enqueue_trial`. The sampler draws what the settings leave out."""
    params: dict[str, Any] = {}
    for axis in config.axes:
        if given := {path: settings[path] for path in axis.paths if path in settings}:
            params |= _params(axis, axis.given(given))
    return params
