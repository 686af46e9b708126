"""Turns the errors of a pydantic model into sentences that name the key, the value found and the values allowed."""

import datetime as dt
import difflib
import types
import typing
from collections.abc import Iterable, Iterator
from functools import cache
from pathlib import Path
from typing import Any

import annotated_types
import yaml
from pydantic import BaseModel, RootModel, ValidationError
from pydantic.fields import FieldInfo
from pydantic_core import PydanticCustomError

from trials.dotted_path import keys

Place = tuple[str | int, ...]
Problem = tuple[Place, str]
_PLACED = "placed"
_SIMPLE = {
    int: "a whole number",
    float: "a number",
    bool: "true or false",
    str: "a text",
    dt.date: "a date",
    type(None): "null",
    Any: "any value",
}
_SEARCHED = ("base", "data", "lora", "train", "eval")  # sections whose settings a space may vary
_YAML_1_1 = {"y": "true", "yes": "true", "on": "true", "n": "false", "no": "false", "off": "false"}


def placed(place: Place, text: str) -> PydanticCustomError:
    """An error for a validator to raise that knows the place of the problem within its value."""
    return PydanticCustomError(_PLACED, "{text}", {"text": text, "place": list(place)})


def problems(error: ValidationError, model: type[BaseModel], data: Any = None) -> Iterator[Problem]:
    """Every problem with its place, that in the data where these are given."""
    missing: dict[Place, list[str]] = {}
    refused: list[tuple[Place, str, bool]] = []
    for one in error.errors():
        place = _place(one, model, data)
        if one["type"] == "missing":
            missing.setdefault(place, []).append(".".join([*map(str, place), str(one["loc"][-1])]))
        else:
            refused.append((place, _sentence(one, model, place), one["type"] in ("value_error", _PLACED, "extra_forbidden")))
    for place, names in missing.items():
        # a misspelt key is one mistake: the sentence about it says which key was meant
        meant = [text for unknown, text, _ in refused if unknown[:-1] == place or unknown == place]
        names = [name for name in names if not any(f"did you mean {name.rpartition('.')[2]!r}?" in text for text in meant)]
        if not names:
            continue
        yield place, f"missing key{'s' if len(names) > 1 else ''} {', '.join(map(repr, names))}"
    for place, text, certain in refused:
        deeper = any(other[: len(place)] == place and other != place for other, _, _ in refused)
        if certain or not deeper:  # a union fails at each of its members; the deepest error is of the member that was meant
            yield place, text


def _sentence(error: Any, model: type[BaseModel], place: Place) -> str:
    location, name, value = _location(error), ".".join(map(str, place)), error["input"]
    wanted, _ = _walk(model, location)
    if error["type"] == "extra_forbidden":
        key, section = str(location[-1]), place[:-1]
        sections = [kind for outer in _walk(model, location[:-1])[0] for kind in plain(outer) if _is_model(kind)]
        allowed = sorted({field for kind in sections for field in [*kind.model_fields, *getattr(kind, "written", ())]})
        hint = _key_hint(key, section, value, allowed, model)
        return f"unknown key {'.'.join(map(str, [*section, key]))!r}; {hint}allowed: {', '.join(allowed)}"
    if error["type"] in ("value_error", _PLACED):
        text = str(error["ctx"]["error" if error["type"] == "value_error" else "text"])
        return f"{name}: {text}" if name else text
    options = [one for kind in wanted for one in plain(kind)]
    hint = _hint(value, wanted, options)
    takes_one_value = not any(typing.get_origin(one) in (list, tuple, dict) or _is_model(one) for one in options)
    if value and isinstance(value, list | dict) and takes_one_value and place[0] in _SEARCHED and "space" in model.model_fields:
        hint = f"; to search it, write space: {{{name}: {found(value) if isinstance(value, list) else '{...}'}}}"
    return f"{name}: expected {' or '.join(expected(wanted))}, found {found(value)}{hint}"


def _location(error: Any) -> Place:
    inner = error["ctx"]["place"] if error["type"] == _PLACED else ()
    return (*error["loc"], *inner)


def _place(error: Any, model: type[BaseModel], data: Any) -> Place:
    """An error's location without the names that pydantic adds for members of a union."""
    if data is None:
        return _walk(model, _location(error))[1]
    place: list[str | int] = []
    for part in _location(error):
        if (isinstance(data, dict) and part in data) or (isinstance(data, list) and isinstance(part, int) and part < len(data)):
            data = data[part]  # type: ignore[index]
            place.append(part)
    return tuple(place)


def found(value: Any) -> str:
    """A value as YAML writes it, truncated."""
    match value:
        case None:
            return "null"
        case bool():
            return str(value).lower()
        case dict() if not value:
            return "{}"
        case dict():
            return f"keys and values ({', '.join(map(str, list(value)[:3]))}{', ...' if len(value) > 3 else ''})"
        case list() | tuple():
            shown = f"[{', '.join(found(inner) for inner in value[:20])}]"
        case float():
            shown = {"inf": ".inf", "-inf": "-.inf", "nan": ".nan"}.get(str(value), str(value))
        case _:
            shown = repr(value)
    return shown if len(shown) < 60 else f"{shown[:57]}..."


def _hint(value: Any, wanted: list[Any], options: list[Any]) -> str:
    if value is None:
        return "; give a value, or leave the key out"
    if str in options and isinstance(value, bool | int | float):
        return "; write it in quotes if it is a text"
    words = [str(word) for one in options if typing.get_origin(one) is typing.Literal for word in typing.get_args(one)]
    if isinstance(value, str) and (close := difflib.get_close_matches(value, words, n=1)):
        return f"; did you mean {close[0]}?"
    if any(typing.get_origin(one) in (list, tuple) for one in options) and isinstance(value, str | int | float) and str(value):
        return f"; a list is written [{', '.join(part.strip() for part in str(value)[:60].split(','))}]"
    if not isinstance(value, str):
        return ""
    if reading := _YAML_1_1.get(value.lower()):
        return f" (YAML 1.1 reads {value} as {reading})"
    if near := nearest(value, words):
        return f"; did you mean {near}?"
    parts = value.split(":")  # YAML 1.1 reads 1:30 in base 60
    if len(parts) > 1 and all(part.isdecimal() for part in parts) and len(value) < 20:
        seconds = sum(int(part) * 60**i for i, part in enumerate(reversed(parts)))
        return f" (YAML 1.1 reads {value} as {seconds})"
    return ""


# ---------------------------------------------------------------------- keys


def _key_hint(key: str, section: Place, value: Any, allowed: list[str], model: type[BaseModel]) -> str:
    """The spelling or the section that was meant by an unknown key; empty where nothing is near."""
    path = key.removeprefix("space.")  # a parameter of the space, written as a key
    if "." in key and kinds(model, keys(path)):
        if path != key or (isinstance(value, list | dict) and "space" in model.model_fields):
            return f"write it as space: {{{path}: {found(value) if isinstance(value, list) else '...'}}}; "
        first, *rest = keys(path)
        return f"write it as {first}: {': '.join(f'{{{part}' for part in rest)}: ...{'}' * len(rest)}; "
    named = _synonyms().get(key.lower(), "")
    *parents, last = keys(named)
    if not kinds(model, keys(named)):
        named = ""
    if named and parents == list(section):
        return f"did you mean {last!r}? "
    if named and not section:
        return f"did you mean {named!r}? "
    meant = _elsewhere(key, model) or [nearest(key, allowed) or nearest(key.lower(), allowed) or named]
    return f"did you mean {' or '.join(map(repr, meant))}? " if any(meant) else ""


@cache
def _synonyms() -> dict[str, str]:
    """The dotted path of a setting by the names that other tools give it."""
    names = yaml.safe_load(Path(__file__).with_name("synonyms.yaml").read_text(encoding="utf-8"))
    return {word: path for path, words in names.items() for word in words}


def nearest(key: str, allowed: Iterable[str]) -> str | None:
    """The allowed key that was meant: close in spelling, contained in it (per_device_batch_size), or abbreviated (lr, r)."""
    known = list(allowed)
    if close := difflib.get_close_matches(key, known, n=1):
        return close[0]
    if len(key) > 40:  # a sentence, not a key; the rules below would match by chance
        return None
    rules = (
        lambda field: field in key,
        lambda field: "_" in field and "".join(word[0] for word in field.split("_")) == key,
        lambda field: field.startswith(key),
        lambda field: any(len(word) > 3 and word in field for word in key.split("_")),
    )
    return next((field for rule in rules for field in known if rule(field)), None)


def _elsewhere(key: str, model: type[BaseModel]) -> list[str]:
    """The dotted paths of the fields with this name in the model's sections."""
    fields = [(name, field) for name, field in model.model_fields.items() if name != "pins"]  # pins are not written by hand
    sections = ((name, inner) for name, field in fields for inner in plain(field.annotation))
    return [f"{name}.{key}" for name, inner in sections if _is_model(inner) and key in inner.model_fields]


def required(model: type[BaseModel]) -> list[str]:
    return [name for name, field in model.model_fields.items() if field.is_required()]


# ---------------------------------------------------------------------- types


def expected(wanted: Iterable[Any]) -> list[str]:
    """Descriptions of the values that these types take."""
    words = [_word(*member) for kind in wanted for member in _members(kind)]
    words.sort(key=lambda word: word == "null")  # `null` is read as the exception that it is when it comes last
    if {"a text", "true or false", "a whole number", "a number"} <= set(words):
        words = ["a single value", *(word for word in words if word not in _SIMPLE.values())]
    if "a number" in words:  # a float field accepts integers too
        words = [word for word in words if word != "a whole number"]
    return list(dict.fromkeys(words)) or ["another value"]


def _members(kind: Any, limits: tuple[Any, ...] = ()) -> Iterator[tuple[Any, tuple[Any, ...]]]:
    """(type, its limits) of each member of a type: without Optional, unions, Annotated and root models."""
    origin, arguments = typing.get_origin(kind), typing.get_args(kind)
    if origin is typing.Annotated:
        own = [limit for one in arguments[1:] for limit in getattr(one, "metadata", [one])]
        yield from _members(arguments[0], (*limits, *own))
    elif origin in (typing.Union, types.UnionType):
        for member in arguments:
            yield from _members(member, limits)
    elif _is_model(kind) and issubclass(kind, RootModel):
        yield from _members(_annotated(kind.model_fields["root"]))
    else:
        yield kind, limits


def _word(kind: Any, limits: tuple[Any, ...]) -> str:
    origin, arguments = typing.get_origin(kind), typing.get_args(kind)
    least = next((limit.min_length for limit in limits if isinstance(limit, annotated_types.MinLen)), 0)
    if origin is typing.Literal:
        return f"{'one of ' if len(arguments) > 1 else ''}{', '.join(map(str, arguments))}"
    if origin in (tuple, list):
        return f"a list of {least} or more entries" if least > 1 else "a list" + (" that is not empty" if least else "")
    if origin is dict or _is_model(kind):
        return "keys and values" + (", at least one" if least else "")
    bounds = "" if kind is type(None) else " that is not empty" if least else _bounds(limits)
    return _SIMPLE.get(kind, "another value") + bounds


def _bounds(limits: Iterable[Any]) -> str:
    given = {name: getattr(limit, name) for limit in limits for name in ("ge", "gt", "le", "lt") if hasattr(limit, name)}
    low = f"{given['ge']:,g}" if "ge" in given else None
    top = f"up to {given['le']:,.10g}" if "le" in given else f"below {given['lt']:,.10g}" if "lt" in given else None
    if low is not None:
        return f" from {low} to {top.removeprefix('up to ')}" if top else f" of {low} or more"
    if "gt" in given:
        return f" above {given['gt']:g}" + (f" and {top}" if top else "")
    return f" {top}" if top else ""


def kinds(model: type[BaseModel], path: Place) -> list[Any]:
    """The types at a path of a model; empty where the model has no such path."""
    found, known = _walk(model, path)
    return found if known == path else []


def _walk(model: type[BaseModel], location: Place) -> tuple[list[Any], Place]:
    """The types at an error's location, and the location without the names that pydantic adds for members of a union."""
    found: list[Any] = [model]
    place: list[str | int] = []
    for part in location:
        if inner := [one for kind in found for one in _inside(kind, part)]:
            found = inner
            place.append(part)
    return found, tuple(place)


def _is_model(kind: Any) -> bool:
    return isinstance(kind, type) and issubclass(kind, BaseModel)


def plain(kind: Any) -> list[Any]:
    """The members of a type: without Optional, unions, Annotated and root models."""
    return [member for member, _ in _members(kind)]


@cache
def leaves(kind: Any) -> frozenset[Any]:
    """The scalar types in values of this type; str for a choice of texts."""
    found: set[Any] = set()
    for one in plain(kind):
        if typing.get_origin(one) is typing.Literal:
            found |= {type(value) for value in typing.get_args(one)}
        elif arguments := [argument for argument in typing.get_args(one) if argument is not ...]:
            found |= leaves(arguments[-1])
        else:
            found.add(one)
    return frozenset(found)


def _inside(kind: Any, part: str | int) -> list[Any]:
    found: list[Any] = []
    for one in plain(kind):
        origin, arguments = typing.get_origin(one), typing.get_args(one)
        if _is_model(one):
            if part in one.model_fields:
                found.append(_annotated(one.model_fields[str(part)]))
            elif any(field.annotation == typing.Literal[part] for field in one.model_fields.values()):
                found.append(one)  # pydantic puts the tag of a union member into the location
        elif origin is dict and isinstance(part, str):
            found.append(arguments[-1])
        elif origin in (list, tuple) and isinstance(part, int):
            found.append(arguments[0])
    return found


def _annotated(field: FieldInfo) -> Any:
    return typing.Annotated[field.annotation, *field.metadata] if field.metadata else field.annotation
