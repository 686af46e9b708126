"""A task's YAML file as lm-eval reads it, with its functions as text: nothing is imported."""

from collections.abc import Iterator
from functools import lru_cache
from pathlib import Path
from typing import Any, NamedTuple

import yaml

from trials.errors import InputError


class Function(str):
    """The text behind a tag `!function`, and the line that it stands in."""

    line: int


class Parsed(NamedTuple):
    data: Any
    """Shared by all callers, who must not change it."""
    lines: dict[str, int]
    """By top-level key."""
    functions: tuple[Function, ...]
    """In the order of their lines."""


class _Loader(getattr(yaml, "CSafeLoader", yaml.SafeLoader)):  # type: ignore[misc]  # lm-eval's: YAML 1.1
    pass


def _function(loader: Any, node: Any) -> Function:
    found = Function(loader.construct_scalar(node))
    found.line = node.start_mark.line + 1
    return found


_Loader.add_constructor("!function", _function)


def parse(path: Path) -> Parsed:
    """Raises InputError, `file:line:column`, for a file that is no YAML."""
    try:
        return _parsed(path.read_bytes(), path)
    except OSError as error:
        raise InputError(f"{path}: cannot be read: {error.strerror or error}") from None


@lru_cache(maxsize=4096)  # a sweep opens its folders for every check of a point
def _parsed(text: bytes, path: Path) -> Parsed:
    try:
        data = yaml.load(text, Loader=_Loader)  # a safe loader
        top = yaml.compose(text, Loader=_Loader)
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        where = f":{mark.line + 1}:{mark.column + 1}" if mark else ""
        raise InputError(f"{path}{where}: not YAML: {error.problem or error.context}") from None
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        raise InputError(f"{path}:1: not YAML: {' '.join(str(error).split())[:160]}") from None
    lines = {}
    if isinstance(top, yaml.MappingNode):
        lines = {str(key.value): key.start_mark.line + 1 for key, _ in top.value}
    return Parsed(data, lines, tuple(sorted(_functions(data), key=lambda one: one.line)))


def _functions(value: Any) -> Iterator[Function]:
    if isinstance(value, Function):
        yield value
    inner = value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
    for one in inner:
        yield from _functions(one)
