"""A YAML file, read with the position of every value and checked against a pydantic model.

Every problem becomes one line `file:line:column: what is wrong; what is allowed`, all of them together in one InputError.
"""

import difflib
import re
import types
import typing
from pathlib import Path
from typing import Any, TypeVar

import yaml
from pydantic import BaseModel, ValidationError

from trials.errors import InputError

Model = TypeVar("Model", bound=BaseModel)
Place = tuple[str | int, ...]


class _Loader(yaml.SafeLoader):
    """SafeLoader that reads 1e-3 as a number, as YAML 1.2 and every reader expect (YAML 1.1 asks for a dot)."""


_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:float", re.compile(r"^[-+]?[0-9][0-9_]*(\.[0-9_]*)?[eE][-+]?[0-9]+$"), list("-+0123456789")
)


class YamlFile:
    """The parsed file: `data` (dicts, lists, scalars) and `position(place)`, the 1-based line and column of a value."""

    def __init__(self, path: Path, text: str | None = None):
        self.path = path
        self._positions: dict[Place, tuple[int, int]] = {}
        self._named: dict[Place, str] = {}
        try:
            text = path.read_text(encoding="utf-8") if text is None else text
            loader = _Loader(text)
            node = loader.get_single_node()
            self.data: Any = {} if node is None else self._build(loader, node, ())
        except FileNotFoundError:
            raise InputError(f"{path}: no such file") from None
        except (OSError, UnicodeDecodeError) as error:
            raise InputError(f"{path}: cannot be read: {error}") from None
        except yaml.MarkedYAMLError as error:
            mark = error.problem_mark
            where = f":{mark.line + 1}:{mark.column + 1}" if mark else ""
            raise InputError(f"{path}{where}: not YAML: {error.problem}") from None
        except yaml.YAMLError as error:
            raise InputError(f"{path}: not YAML: {' '.join(str(error).split())}") from None
        if not isinstance(self.data, dict):
            raise InputError(f"{path}:1:1: expected keys and values, found {type(self.data).__name__}")

    def _build(self, loader: _Loader, node: yaml.Node, place: Place) -> Any:
        self._positions[place] = (node.start_mark.line + 1, node.start_mark.column + 1)
        if isinstance(node, yaml.MappingNode):
            loader.flatten_mapping(node)
            result = {}
            for key_node, value_node in node.value:
                key = loader.construct_object(key_node, deep=True)
                if not isinstance(key, str):
                    key = str(key_node.value)
                if key in result:
                    raise yaml.MarkedYAMLError(problem=f"key {key!r} stands here twice", problem_mark=key_node.start_mark)
                result[key] = self._build(loader, value_node, (*place, key))
                self._positions[(*place, key)] = (key_node.start_mark.line + 1, key_node.start_mark.column + 1)
            return result
        if isinstance(node, yaml.SequenceNode):
            return [self._build(loader, child, (*place, i)) for i, child in enumerate(node.value)]
        return loader.construct_object(node, deep=True)

    def where(self, place: Place) -> str:
        """`file:line:column` of the value at this place, or of the nearest thing around it that the file holds."""
        for end in range(len(place), 0, -1):
            if place[:end] in self._named:
                return self._named[place[:end]]
        while place not in self._positions:
            place = place[:-1]
        line, column = self._positions[place]
        return f"{self.path}:{line}:{column}"

    def name(self, place: Place, where: str) -> None:
        """Says where a value comes from that was put in after reading."""
        self._named[place] = where

    def take(self, key: str, other: "YamlFile") -> None:
        """Puts another file's section in the place of this one's; problems in it are then that file's."""
        self.data[key] = other.data[key]
        for place in other._positions:
            if place[:1] == (key,):
                self._named[place] = other.where(place)

    def check(self, model: type[Model]) -> Model:
        """The data as `model`; raises InputError with a line for every problem."""
        try:
            return model.model_validate(self.data)
        except ValidationError as error:
            lines = dict.fromkeys(f"{self.where(_in_file(e, self))}: {explain(e, model)}" for e in error.errors())
            raise InputError("\n".join(lines)) from None


def _in_file(error: Any, file: YamlFile) -> Place:
    """The error's place without the tags that pydantic adds for union members."""
    place, data = [], file.data
    for part in error["loc"]:
        if (isinstance(data, dict) and part in data) or (isinstance(data, list) and isinstance(part, int) and part < len(data)):
            data = data[part]
            place.append(part)
    return tuple(place)


def explain(error: Any, model: type[BaseModel]) -> str:
    """One pydantic error as a sentence that names the key, what was found, and what is allowed."""
    loc = error["loc"]
    name = ".".join(str(part) for part in loc)
    if error["type"] == "extra_forbidden":
        allowed = sorted(_fields(model, loc[:-1]))
        near = difflib.get_close_matches(str(loc[-1]), allowed, n=1)
        hint = f"did you mean {near[0]!r}? " if near else ""
        return f"unknown key {name!r}; {hint}allowed: {', '.join(allowed)}"
    if error["type"] == "missing":
        return f"missing key {name!r}"
    if error["type"] == "value_error":
        return f"{name}: {error['ctx']['error']}" if name else str(error["ctx"]["error"])
    message = error["msg"][0].lower() + error["msg"][1:]
    found = repr(error["input"])
    return f"{name}: {message}, found {found if len(found) < 60 else found[:57] + '...'}"


def _fields(model: type[BaseModel], place: Place) -> set[str]:
    """The keys allowed at a place of a model."""
    kinds: list[Any] = [model]
    for part in place:
        kinds = [inner for kind in kinds for inner in _inside(kind, part)]
    return {field for kind in kinds for plain in _plain(kind) if _is_model(plain) for field in plain.model_fields}


def _is_model(kind: Any) -> bool:
    return isinstance(kind, type) and issubclass(kind, BaseModel)


def _plain(kind: Any) -> list[Any]:
    """A type without Optional, unions and Annotated."""
    origin = typing.get_origin(kind)
    if origin is typing.Annotated:
        return _plain(typing.get_args(kind)[0])
    if origin in (typing.Union, types.UnionType):
        return [plain for member in typing.get_args(kind) for plain in _plain(member)]
    return [kind]


def _inside(kind: Any, part: str | int) -> list[Any]:
    found: list[Any] = []
    for plain in _plain(kind):
        if _is_model(plain):
            if part in plain.model_fields:
                found.append(plain.model_fields[part].annotation)
            elif any(field.annotation == typing.Literal[part] for field in plain.model_fields.values()):
                found.append(plain)  # pydantic names the tag of a union member in the place
        elif typing.get_origin(plain) in (dict, list, tuple):
            found.append(typing.get_args(plain)[-1 if typing.get_origin(plain) is dict else 0])
    return found
