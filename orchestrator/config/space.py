"""The search space of a sweep: its axes, parents before children, and its points.

A point is a mapping of settings (dotted path -> value) that holds the paths of the active axes alone.
"""

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from random import Random
from typing import Any

from orchestrator.config.parameters import PAIRED, Categorical, Float, Int, Paired, Simplex, as_text
from trials.dotted_path import MIX, source_of

Settings = Mapping[str, Any]
_DIGITS = 6  # of a drawn share; at the simplex's corners the way to quantiles and back loses all others


@dataclass(frozen=True)
class Axis(ABC):
    """Settings that vary together. Active if each path of `when` has one of its values."""

    paths: tuple[str, ...]
    when: Mapping[str, tuple[Any, ...]]

    def active(self, settings: Settings) -> bool:
        """Whether this axis varies at these settings of its parents."""
        return all(path in settings and settings[path] in allowed for path, allowed in self.when.items())

    @abstractmethod
    def points(self) -> Iterable[dict[str, Any]] | None:
        """Settings at every value; None for a continuous axis."""

    @abstractmethod
    def extremes(self) -> Iterable[dict[str, Any]]:
        """Settings at the ends of the range, or at every choice."""

    @abstractmethod
    def draw(self, random: Random) -> dict[str, Any]:
        """Settings at a uniformly random value."""

    @abstractmethod
    def distance(self, one: Settings, other: Settings) -> float:
        """Distance of two active settings, 0..1."""

    @abstractmethod
    def refusal(self, given: Settings) -> str | None:
        """Why some or all settings of this axis do not name one of its points; None if they do."""

    @abstractmethod
    def given(self, given: Settings) -> dict[str, Any]:
        """All settings at the point that `given` names."""


@dataclass(frozen=True)
class Single(Axis):
    """One setting."""

    parameter: Categorical | Float | Int

    @property
    def path(self) -> str:
        return self.paths[0]

    def points(self) -> Iterable[dict[str, Any]] | None:
        values = self.parameter.values()
        return None if values is None else ({self.path: value} for value in values)

    def extremes(self) -> Iterable[dict[str, Any]]:
        return ({self.path: value} for value in self.parameter.extremes())

    def draw(self, random: Random) -> dict[str, Any]:
        return {self.path: self.parameter.draw(random)}

    def distance(self, one: Settings, other: Settings) -> float:
        return self.parameter.distance(one[self.path], other[self.path])

    def refusal(self, given: Settings) -> str | None:
        value = given[self.path]
        return None if self.parameter.holds(value) else f"{self.path} = {value!r} is outside of {self.parameter}"

    def given(self, given: Settings) -> dict[str, Any]:
        return {self.path: self.parameter.nearest(given[self.path])}


@dataclass(frozen=True)
class Pairs(Axis):
    """A list of points over several settings."""

    choices: tuple[dict[str, Any], ...]

    @property
    def name(self) -> str:
        return ", ".join(self.paths)

    def labels(self) -> list[str]:
        """Each point as text, in the order of the paths."""
        return [", ".join(as_text(point[path]) for path in self.paths) for point in self.choices]

    def points(self) -> Iterable[dict[str, Any]]:
        return (dict(point) for point in self.choices)

    def extremes(self) -> Iterable[dict[str, Any]]:
        return self.points()

    def draw(self, random: Random) -> dict[str, Any]:
        return dict(random.choice(self.choices))

    def distance(self, one: Settings, other: Settings) -> float:
        return float(not all(_same(one[path], other[path]) for path in self.paths))

    def refusal(self, given: Settings) -> str | None:
        settings = ", ".join(f"{path} = {value!r}" for path, value in given.items())
        matching = len(self._matching(given))
        if matching == 1:
            return None
        if matching == 0:
            return f"no point of `{PAIRED}` has {settings}"
        missing = ", ".join(path for path in self.paths if path not in given)
        return f"several points of `{PAIRED}` have {settings}; name {missing} too"

    def given(self, given: Settings) -> dict[str, Any]:
        return dict(self._matching(given)[0])

    def _matching(self, given: Settings) -> list[dict[str, Any]]:
        return [point for point in self.choices if all(_same(point[path], value) for path, value in given.items())]


def _same(one: Any, other: Any) -> bool:
    """A list of the config is a tuple in a spec."""
    one, other = (list(value) if isinstance(value, tuple) else value for value in (one, other))
    return bool(one == other)


@dataclass(frozen=True)
class Mixture(Axis):
    """Shares that add up to `total`, uniform over the simplex, given by len(paths) - 1 quantiles in [0, 1].

    Stick breaking: with K parts to come, the next share of the rest has the distribution Beta(1, K - 1), whose quantile is
    1 - (1 - u)^(1 / (K - 1)) (Devroye, Non-Uniform Random Variate Generation, 1986, ch. XI.4). Uniform quantiles give uniform
    mixes, and a sampler sees a box. With a step, the same holds on the lattice of m = rest / step: P(j) is the share of lattice
    points that begin with j units, C(m - j + K - 2, K - 2) / C(m + K - 1, K - 1).
    """

    total: float
    step: float | None

    @property
    def sources(self) -> list[str]:
        return [source_of(path) for path in self.paths]

    @property
    def units(self) -> int | None:
        """The total in steps; None without a step."""
        return None if self.step is None else round(self.total / self.step)

    def shares(self, quantiles: Sequence[float]) -> dict[str, float]:
        """The settings at quantiles, one for each source but the last."""
        made: list[float] = []
        left, units = self.total, self.units or 0
        for i, quantile in enumerate(quantiles):
            parts = len(self.paths) - i
            if self.step is None:
                share = min(round(left * (1.0 - (1.0 - quantile) ** (1.0 / (parts - 1))), _DIGITS), left)
            else:
                taken = _unit(quantile, units, parts)
                share, units = round(taken * self.step, 12), units - taken
            made.append(share)
            left = max(self.total - sum(made), 0.0)
        made.append(round(left if self.step is None else units * self.step, 12))
        return dict(zip(self.paths, made, strict=True))

    def quantiles(self, settings: Settings) -> list[float]:
        """The inverse of `shares`; the middle of the quantiles that give the same shares."""
        made: list[float] = []
        left, units = self.total, self.units or 0
        for i, path in enumerate(self.paths[:-1]):
            parts = len(self.paths) - i
            if self.step is None:
                made.append(1.0 - (1.0 - min(settings[path] / left, 1.0)) ** (parts - 1) if left > 1e-9 else 0.5)
                left -= settings[path]
            else:
                taken = round(settings[path] / self.step)
                low, high = unit_interval(taken, units, parts)
                made.append((low + high) / 2)
                units -= taken
        return made

    def points(self) -> Iterable[dict[str, Any]] | None:
        if self.step is None or self.units is None:
            return None
        step = self.step
        return (
            dict(zip(self.paths, (round(unit * step, 12) for unit in units), strict=True))
            for units in _compositions(self.units, len(self.paths))
        )

    def extremes(self) -> Iterable[dict[str, Any]]:
        return ({path: self.total if path == whole else 0.0 for path in self.paths} for whole in self.paths)

    def draw(self, random: Random) -> dict[str, Any]:
        return self.shares([random.random() for _ in self.paths[1:]])

    def distance(self, one: Settings, other: Settings) -> float:
        return sum(abs(one[path] - other[path]) for path in self.paths) / (2 * self.total)

    def refusal(self, given: Settings) -> str | None:
        if missing := [path for path in self.paths if path not in given]:
            return f"the shares of a simplex are given together; {', '.join(missing)} is missing"
        for path, share in given.items():
            if isinstance(share, bool) or not isinstance(share, int | float) or not 0 <= share <= self.total + 1e-9:
                return f"{path} = {share!r} is no share of 0 to {self.total:g}"
            if self.step is not None and abs(round(share / self.step) * self.step - share) > 1e-9:
                return f"{path} = {share!r} is no multiple of the step {self.step:g}"
        if abs(sum(given.values()) - self.total) > 1e-6:
            return f"the shares add up to {sum(given.values()):g}, they must add up to {self.total:g}"
        return None

    def given(self, given: Settings) -> dict[str, Any]:
        return self.shares(self.quantiles(given))


def unit_interval(taken: int, units: int, parts: int) -> tuple[float, float]:
    """Range of quantiles at which the first of `parts` shares of `units` units is `taken` units."""
    whole = math.comb(units + parts - 1, parts - 1)
    # points that begin with `first` units or more are those of a simplex smaller by `first`
    beyond = [math.comb(units - first + parts - 1, parts - 1) if first <= units else 0 for first in (taken, taken + 1)]
    return (whole - beyond[0]) / whole, (whole - beyond[1]) / whole


def _unit(quantile: float, units: int, parts: int) -> int:
    return next((taken for taken in range(units) if quantile < unit_interval(taken, units, parts)[1]), units)


def _compositions(units: int, parts: int) -> Iterator[tuple[int, ...]]:
    if parts == 1:
        yield (units,)
        return
    for first in range(units + 1):
        for rest in _compositions(units - first, parts - 1):
            yield (first, *rest)


# ---------------------------------------------------------------------- the space


def axes(space: Mapping[str, Any], mix: Mapping[str, float]) -> tuple[Axis, ...]:
    """The axes of a config's `space` over its `data.mix`, parents first. Raises ValueError for circular conditions."""
    return parents_first([axis(path, parameter, mix) for path, parameter in space.items()])


def derived(points: Sequence[dict[str, Any]]) -> tuple[Axis, ...]:
    """The points derived from a training, as an axis."""
    return (Pairs(tuple(points[0]), {}, choices=tuple(points)),)


def axis(path: str, parameter: Any, mix: Mapping[str, float]) -> Axis:
    """One parameter of the config's `space`."""
    if isinstance(parameter, Paired):
        return Pairs(tuple(parameter.root[0]), {}, choices=parameter.root)
    when = {parent: allowed if isinstance(allowed, tuple) else (allowed,) for parent, allowed in parameter.when.items()}
    if isinstance(parameter, Simplex):
        sources = parameter.sources or tuple(mix)
        total = round(sum(mix.get(source, 0.0) for source in sources), 12)
        return Mixture(tuple(f"{MIX}.{source}" for source in sources), when, total=total, step=parameter.step)
    return Single((path,), when, parameter=parameter)


def parents_first(space: Sequence[Axis]) -> tuple[Axis, ...]:
    ordered: list[Axis] = []
    waiting = list(space)
    while waiting:
        placed = {path for axis in ordered for path in axis.paths}
        ready = next((axis for axis in waiting if placed.issuperset(axis.when)), None)
        if ready is None:
            raise ValueError(
                f"the conditions of {' and '.join(path for axis in waiting for path in axis.paths)} wait for one another"
            )
        ordered.append(ready)
        waiting.remove(ready)
    return tuple(ordered)


def with_parents(space: Sequence[Axis], wanted: Iterable[Axis]) -> tuple[Axis, ...]:
    """The wanted axes and the parents that make them active, in the space's order."""
    found: set[int] = set()
    waiting = list(wanted)
    while waiting:
        current = waiting.pop()
        if id(current) not in found:
            found.add(id(current))
            waiting += [parent for parent in space if any(path in parent.paths for path in current.when)]
    return tuple(axis for axis in space if id(axis) in found)


def every_point(space: Sequence[Axis]) -> Iterator[dict[str, Any]]:
    """Every point of a finite space, the last axis running fastest."""
    yield from _combine(space, lambda axis: axis.points() or ())


def corners(space: Sequence[Axis], fixed: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    """Every combination of the axes' extremes; `fixed` settings keep their value."""
    yield from _combine(
        space,
        lambda axis: [{path: fixed[path] for path in axis.paths}] if set(axis.paths) <= set(fixed) else _largest_first(axis),
    )


def _largest_first(axis: Axis) -> list[dict[str, Any]]:
    """The extremes, the largest number first: it needs most memory and rows."""
    points = list(axis.extremes())
    if len(axis.paths) > 1 or not all(isinstance(value, int | float) for point in points for value in point.values()):
        return points
    return sorted(points, key=lambda point: float(point[axis.paths[0]]), reverse=True)


def _combine(
    space: Sequence[Axis], values: Callable[[Axis], Iterable[dict[str, Any]]], settings: Settings | None = None
) -> Iterator[dict[str, Any]]:
    settings = settings or {}
    if not space:
        yield dict(settings)
        return
    first, rest = space[0], space[1:]
    for part in values(first) if first.active(settings) else ({},):
        yield from _combine(rest, values, {**settings, **part})


def draw(space: Sequence[Axis], random: Random) -> dict[str, Any]:
    """A random point, uniform in every axis."""
    settings: dict[str, Any] = {}
    for axis in space:
        if axis.active(settings):
            settings |= axis.draw(random)
    return settings


def distance(space: Sequence[Axis], one: Settings, other: Settings) -> float:
    """Distance of two points: the sum over the axes, 1 for an axis active at one of them alone."""
    total = 0.0
    for axis in space:
        active = axis.active(one), axis.active(other)
        total += axis.distance(one, other) if all(active) else float(any(active))
    return total
