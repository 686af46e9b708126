"""Checks of the names and conditions in `space`."""

import difflib
from collections.abc import Iterator, Sequence
from typing import Any

from orchestrator.config.model import SPEC_SECTIONS, SweepConfig
from orchestrator.config.parameters import PAIRED, Categorical, Paired, Simplex
from orchestrator.config.space import Mixture, Pairs, axis
from trials import dotted_path
from trials.dotted_path import MIX
from trials.explain import Problem


def searchable(config: SweepConfig) -> list[str]:
    """Every dotted path that a trial's numbers depend on."""
    return sorted(path for section in SPEC_SECTIONS for path in dotted_path.paths(section, getattr(config, section)))


def problems(config: SweepConfig) -> Iterator[Problem]:
    known = searchable(config)
    for path, parameter in config.space.items():
        place = ("space", path)
        if path == PAIRED and isinstance(parameter, Paired):
            yield from _paired(config, parameter, known)
        elif path == PAIRED or isinstance(parameter, Paired):
            yield place, f"space: a list of points stands under `{PAIRED}`, one parameter under its path, but got {path!r}"
        elif isinstance(parameter, Simplex):
            yield from _simplex(config, path, parameter)
        elif path not in known:
            yield place, f"space: {unknown(path, config, known)}"
        yield from _conditions(config, path, parameter)
    yield from _circle(config)


def unknown(path: str, config: SweepConfig, known: Sequence[str]) -> str:
    near = [name for name in known if name.endswith(f".{path}")] or difflib.get_close_matches(path, known, n=1)
    hint = f"did you mean {' or '.join(map(repr, near[:3]))}?" if near else f"paths start with {', '.join(SPEC_SECTIONS)}"
    if path.startswith(f"{MIX}."):
        hint = f"name the source in {MIX} too; there are {', '.join(config.data.mix)}"
    if path == MIX:
        hint = "its shares are searched one by one, or together by `type: simplex`"
    return f"no setting {path!r}; {hint}"


def _paired(config: SweepConfig, parameter: Paired, known: Sequence[str]) -> Iterator[Problem]:
    paths = list(parameter.root[0])
    if not paths:
        yield ("space", PAIRED, 0), f"space: a point of `{PAIRED}` names at least one setting"
    for path in paths:
        if path not in known:
            yield ("space", PAIRED, 0, path), f"space: {unknown(path, config, known)}"
        elif path in config.space:
            yield ("space", path), f"space: {path} is varied by `{PAIRED}` already"
    for i, point in enumerate(parameter.root):
        if set(point) != set(paths):
            yield ("space", PAIRED, i), f"space: the points of `{PAIRED}` name the same settings, here {', '.join(paths)}"
            return
    labels = Pairs(tuple(paths), {}, choices=parameter.root).labels()
    for i, label in enumerate(labels):
        if label in labels[:i]:
            yield ("space", PAIRED, i), f"space: the point {label} of `{PAIRED}` stands there twice"


def _simplex(config: SweepConfig, path: str, parameter: Simplex) -> Iterator[Problem]:
    place = ("space", path)
    if path != MIX:
        yield place, f"space: a simplex is the whole of {MIX}, but got {path!r}"
        return
    mix = config.data.mix
    unknown = [source for source in parameter.sources or () if source not in mix]
    if unknown:
        yield (*place, "sources"), f"space: {MIX} has no source {unknown[0]!r}; there are {', '.join(mix)}"
        return
    others = [*(other for other in config.space if other.startswith(f"{MIX}.")), *_paths_of_pairs(config, f"{MIX}.")]
    if others:
        yield place, f"space: {others[0]} and the simplex over {MIX} both set its shares"
    mixture = axis(path, parameter, mix)
    assert isinstance(mixture, Mixture)
    if len(mixture.paths) < 2:
        yield place, f"space: a simplex needs two sources; {MIX} has {', '.join(mix)}"
    elif mixture.total == 0:
        yield place, f"space: {', '.join(mixture.sources)} have no share in {MIX} that could be searched"
    elif parameter.step and (not mixture.units or abs(mixture.units * parameter.step - mixture.total) > 1e-6):
        yield (*place, "step"), f"space: step {parameter.step:g} does not divide the share {mixture.total:g} of these sources"


def _paths_of_pairs(config: SweepConfig, prefix: str = "") -> list[str]:
    paired = config.space.get(PAIRED)
    return [path for path in paired.root[0] if path.startswith(prefix)] if isinstance(paired, Paired) else []


def _conditions(config: SweepConfig, path: str, parameter: Any) -> Iterator[Problem]:
    paired = config.space.get(PAIRED)
    for parent, wanted in getattr(parameter, "when", {}).items():
        place = ("space", path, "when", parent)
        above = config.space.get(parent)
        if isinstance(above, Categorical):
            choices: list[Any] = list(above.choices)
        elif isinstance(paired, Paired) and parent in paired.root[0]:
            choices = [point.get(parent) for point in paired.root]
        else:
            named = [name for name, other in config.space.items() if isinstance(other, Categorical)] + _paths_of_pairs(config)
            near = difflib.get_close_matches(parent, named, n=1)
            hint = f"did you mean {near[0]!r}?" if near else f"there are {', '.join(named) or 'none'}"
            yield place, f"space: {path}: `when` names a categorical parameter of the space, but got {parent!r}; {hint}"
            continue
        for value in wanted if isinstance(wanted, tuple) else (wanted,):
            if value not in choices:
                yield place, f"space: {path}: {parent} is never {value!r}; its values are {', '.join(map(repr, choices))}"


def _circle(config: SweepConfig) -> Iterator[Problem]:
    """Conditions must not form a circle."""
    parents = {path: set(getattr(parameter, "when", {})) for path, parameter in config.space.items()}
    while free := [path for path, above in parents.items() if not above & parents.keys()]:
        for path in free:
            del parents[path]
    if parents:
        first = next(iter(parents))
        yield ("space", first, "when"), f"space: the conditions of {', '.join(parents)} lead back to themselves"
