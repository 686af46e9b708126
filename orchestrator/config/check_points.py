"""Checks of the values in `space`, `derive` and `search.first`, by making trials of them."""

import difflib
from collections.abc import Iterator
from itertools import islice
from typing import Any

from pydantic import ValidationError

from orchestrator.config.check_space import searchable, unknown
from orchestrator.config.model import COUNTABLE, SweepConfig
from orchestrator.config.parameters import PAIRED, Categorical
from orchestrator.config.shorthand import scalars
from orchestrator.config.space import Axis, Mixture, Pairs, Single, corners, every_point, with_parents
from trials import dotted_path
from trials.dotted_path import MIX
from trials.explain import Place, Problem, found
from trials.explain import problems as explained
from trials.spec import TrialSpec

_SEEDS = {"data.seed", "train.seed"}
_BASELINES = 1_000  # combinations of base and eval settings, each of which needs a baseline


def problems(config: SweepConfig) -> Iterator[Problem]:
    of_axes = [problem for current in config.axes for problem in _axis(config, current)]
    yield from of_axes
    yield from _top_shares(config)
    baselines = islice(corners(config.touching(("base.", "eval.")), {}), _BASELINES + 1)
    if len(list(baselines)) > _BASELINES:
        yield ("space",), f"space: more than {_BASELINES:,} combinations of base and eval settings, each with its own baseline"
    if config.search.sampler == "grid" and not of_axes:
        size = config.size()
        if size == 0:
            yield ("space",), "space: no point is a valid trial: its settings contradict each other everywhere"
        elif size is None:
            yield (
                ("space",),
                f"space: too many points for the grid sampler ({COUNTABLE} at most); take wider steps or another sampler",
            )
    varied = sorted(_SEEDS & set(config.paths()))
    if config.search.replicates > 1 and varied:
        yield (
            ("search", "replicates"),
            f"search.replicates: they differ in their seeds, and the space varies {', '.join(varied)}",
        )
    for i, point in enumerate(config.search.first):
        for path, problem in _first(config, point):
            yield ("search", "first", i, *([path] if path else [])), f"search.first: {problem}"
    yield from _derived_from(config)
    yield from _derived(config)


def _place(current: Axis) -> Place:
    if isinstance(current, Pairs):
        return ("space", PAIRED)
    return ("space", MIX if isinstance(current, Mixture) else current.paths[0])


def _axis(config: SweepConfig, current: Axis) -> Iterator[Problem]:
    place, path = _place(current), ", ".join(current.paths)
    if isinstance(current, Single) and path.startswith(("base.", "eval.")) and not isinstance(current.parameter, Categorical):
        yield place, f"space: {path} needs its own baseline for each value, so it takes `type: categorical` alone"
    if config.search.sampler == "grid" and current.points() is None:
        yield place, f"space: the grid sampler needs choices or a step for {_place(current)[1]}"
    parents = [axis for axis in with_parents(config.axes, [current]) if axis is not current]
    above = next((point for point in every_point(parents) if current.active(point)), None)
    if above is None:
        yield (*place, "when"), f"space: {path}: its conditions are never all met"
        return
    for i, part in enumerate(_probes(current)):
        if problem := _invalid(config, {**above, **part}):
            where = (*place, i) if isinstance(current, Pairs) else place
            at = ", ".join(f"{name} = {value!r}" for name, value in part.items())
            yield where, f"space: {at}: {problem}"
            break


def _probes(current: Axis) -> list[dict[str, Any]]:
    if isinstance(current, Single):
        return [{current.path: value} for value in current.parameter.probes()]
    return list(current.extremes())


def _invalid(config: SweepConfig, settings: dict[str, Any]) -> str | None:
    """Why the settings are no trial; None for a valid one."""
    if settings.get("base.dtype") == "auto":
        return "auto is one type on each machine; name the types to compare, such as bfloat16 and float16"
    for path, value in settings.items():
        takes = scalars(path)
        if isinstance(value, str) and takes and str not in takes:
            right = "true or false" if bool in takes else "a number"
            return f"{found(value)} is a text; write {right} without quotes"
    try:
        config.spec(settings)
    except ValidationError as error:
        return next(text for _, text in explained(error, TrialSpec))
    except (ValueError, TypeError) as error:
        return str(error)
    return None


def _top_shares(config: SweepConfig) -> Iterator[Problem]:
    """Shares that are searched one by one may exceed 1 together."""
    tops = []
    for current in config.axes:
        shares = [[value for path, value in part.items() if path.startswith(f"{MIX}.")] for part in current.extremes()]
        if not isinstance(current, Mixture) and not current.when and any(shares):
            tops.append(max(sum(part) for part in shares))
    if len(tops) > 1 and sum(tops) > 1 + 1e-9:
        yield ("space",), f"space: the largest shares of {MIX} add up to {sum(tops):g}, more than 1"


def _first(config: SweepConfig, point: dict[str, Any]) -> Iterator[tuple[str, str]]:
    """Problems of a point to try first, each with its path; "" is the whole point."""
    unknown = [path for path in point if path not in config.paths()]
    for path in unknown:
        near = difflib.get_close_matches(path, config.paths(), n=1)
        hint = f"did you mean {near[0]!r}?" if near else f"there are {', '.join(config.paths())}"
        yield path, f"{path!r} is not in the space; {hint}"
    settings: dict[str, Any] = {}
    for current in config.axes:
        given = {path: point[path] for path in current.paths if path in point}
        if not given:
            continue
        if not current.active(settings):
            conditions = " and ".join(f"{path} is {' or '.join(map(repr, allowed))}" for path, allowed in current.when.items())
            yield next(iter(given)), f"{', '.join(given)} has a place only in a point in which {conditions}"
        elif problem := current.refusal(given):
            yield next(iter(given)), problem
        else:
            settings |= current.given(given)
    if set(point) <= set(settings) and (problem := _invalid(config, settings)):
        yield "", problem


def _derived(config: SweepConfig) -> Iterator[Problem]:
    for point in config.derive.points()[1:]:
        if not any(True for _ in config.corners(("derive.", "lora.", "train.", "data."), point)):
            name = next(path for path, value in point.items() if value != config.derive.points()[0][path])
            reason = _invalid(config, point) or f"{name} {point[name]} goes with no point of the space"
            yield ("derive", name.partition(".")[2]), reason


def _derived_from(config: SweepConfig) -> Iterator[Problem]:
    """`derive.of`: its paths are settings, and some training has their values."""
    known = searchable(config)
    for path, value in config.derive.of.items():
        place = ("derive", "of", path)
        if path not in known:
            yield place, f"derive.of: {unknown(path, config, known)}"
        elif not _attained(config, path, value):
            yield place, f"derive.of: {path} is never {found(value)}"


def _attained(config: SweepConfig, path: str, value: Any) -> bool:
    """Whether some training has this value of the setting."""
    current = next((axis for axis in config.axes if path in axis.paths), None)
    if current is None or current.when:
        own = dotted_path.read(config, path)
        if own == value and isinstance(own, bool) == isinstance(value, bool):
            return True
    if isinstance(current, Single):
        return current.parameter.holds(value)
    if isinstance(current, Pairs):
        return any(point[path] == value for point in current.choices)
    return current is not None  # a share of a simplex
