"""A task's YAML file as lm-eval reads it, with its functions as text: nothing is imported."""

from collections.abc import Iterator
from functools import cached_property, lru_cache
from pathlib import Path
from typing import Any, NamedTuple

import yaml

from trials.errors import InputError

_MERGE = "tag:yaml.org,2002:merge"


class Function(str):
    """The text behind a tag `!function`, and the file and line that it stands in."""

    path: Path
    line: int

    def __repr__(self) -> str:
        return f"!function {self} of {self.place}"  # the same text in two files may name two functions

    @property
    def place(self) -> str:
        return f"{self.path}:{self.line}"

    @cached_property
    def file(self) -> Path:
        """The file that lm-eval imports where it exists; else it imports the module from Python's path."""
        return self.path.parent / f"{self.rpartition('.')[0].replace('.', '/')}.py"


class Parsed(NamedTuple):
    data: Any
    """Shared by all callers, who must not change it."""
    lines: dict[str, int]
    """By top-level key."""
    functions: tuple[Function, ...]
    """In the order of their lines. lm-eval imports each, wherever it stands."""


class _Loader(getattr(yaml, "CSafeLoader", yaml.SafeLoader)):  # type: ignore[misc]  # lm-eval's: YAML 1.1
    pass


def _loader(path: Path) -> type[_Loader]:
    """A loader whose functions know the file `path`."""

    class Loader(_Loader):
        pass

    Loader.add_constructor("!function", lambda loader, node: _function(path, loader.construct_scalar(node), node))
    return Loader


def _function(path: Path, text: str, node: yaml.Node) -> Function:
    found = Function(text)
    found.path, found.line = path, node.start_mark.line + 1
    return found


def parse(path: Path) -> Parsed:
    """Raises InputError, `file:line:column`, for a file that is no YAML."""
    try:
        return _parsed(path.read_bytes(), path)
    except OSError as error:
        raise InputError(f"{path}: cannot be read: {error.strerror or error}") from None


@lru_cache(maxsize=4096)  # a sweep opens its folders for every check of a point
def _parsed(text: bytes, path: Path) -> Parsed:
    try:
        top = yaml.compose(text, Loader=_Loader)
        nodes = list(_nodes(top, set()))
        _refuse_twins(nodes)
        data = yaml.load(text, Loader=_loader(path))  # a safe loader
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        where = f":{mark.line + 1}:{mark.column + 1}" if mark else ""
        raise InputError(f"{path}{where}: not YAML: {error.problem or error.context}") from None
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        raise InputError(f"{path}:1: not YAML: {' '.join(str(error).split())[:160]}") from None
    lines = {}
    if isinstance(top, yaml.MappingNode):
        lines = {str(key.value): key.start_mark.line + 1 for key, _ in top.value}
    functions = [_function(path, node.value, node) for node in nodes if node.tag == "!function"]
    return Parsed(data, lines, tuple(sorted(functions, key=lambda one: one.line)))


def _nodes(node: yaml.Node | None, seen: set[int]) -> Iterator[yaml.Node]:
    """A node and all below it, keys too; what an alias repeats comes once."""
    if node is None or id(node) in seen:
        return
    seen.add(id(node))
    yield node
    inner = node.value if isinstance(node, yaml.CollectionNode) else ()
    for one in inner:
        for part in one if isinstance(one, tuple) else (one,):
            yield from _nodes(part, seen)


def _refuse_twins(nodes: list[yaml.Node]) -> None:
    """Raises a YAML error for a key that a mapping has twice: the earlier value would be lost without a word."""
    for node in nodes:
        known: set[tuple[str, str]] = set()
        for key, _ in node.value if isinstance(node, yaml.MappingNode) else ():
            if isinstance(key, yaml.ScalarNode) and key.tag != _MERGE:  # YAML permits several merges
                if (key.tag, key.value) in known:
                    raise yaml.MarkedYAMLError(problem=f"the key {key.value!r} twice in a mapping", problem_mark=key.start_mark)
                known.add((key.tag, key.value))
