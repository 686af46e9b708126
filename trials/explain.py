"""What is wrong with data that a pydantic model refuses, in sentences that say what would be right."""

import datetime as dt
import difflib
import types
import typing
from collections.abc import Iterable, Iterator
from functools import cache
from typing import Any

import annotated_types
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
_WORDS = {
    **dict.fromkeys(("lr", "learn_rate"), "train.learning_rate"),
    **dict.fromkeys(("num_epochs", "num_train_epochs", "n_epochs"), "train.epochs"),
    **dict.fromkeys(("dataset", "datasets", "train_data", "train_file"), "data.mix"),
    **dict.fromkeys(("num_samples", "n_samples", "max_samples"), "data.samples"),
    **dict.fromkeys(("max_seq_length", "max_seq_len", "seq_len", "cutoff_len", "sequence_len"), "data.max_length"),
    **dict.fromkeys(("models", "base_model", "model_name", "model_name_or_path", "model_id"), "base.model"),
    **dict.fromkeys(("load_in_4bit", "bits", "quant"), "base.quantization"),
    **dict.fromkeys(("fp16", "bf16", "torch_dtype", "precision"), "base.dtype"),
    **dict.fromkeys(("r", "lora_r", "lora_rank"), "lora.rank"),
    **dict.fromkeys(("peft", "adapter"), "lora"),
    **dict.fromkeys(("task", "tasks", "benchmark", "benchmarks"), "eval"),
    **dict.fromkeys(("parameters", "params", "hyperparameters", "search_space", "param_space"), "space"),
    **dict.fromkeys(("objective", "metric", "metrics", "direction", "directions", "goal"), "search.objectives"),
    **dict.fromkeys(("minimize", "maximize", "minimise", "maximise", "optimize"), "search.objectives"),
    **dict.fromkeys(("constraint",), "search.constraints"),
    **dict.fromkeys(("method", "algorithm", "search_alg"), "search.sampler"),
    **dict.fromkeys(("n_trials", "num_trials", "max_trials", "budget", "count", "run_cap"), "search.trials"),
    **dict.fromkeys(("timeout", "time_budget", "time_budget_s", "max_hours"), "search.hours"),
    **dict.fromkeys(("seeds", "repeats", "repetitions", "n_seeds", "num_seeds"), "search.replicates"),
    **dict.fromkeys(("early_stopping", "pruner", "scheduler"), "search.racing"),
    **dict.fromkeys(("gpus", "num_gpus", "n_gpus", "gpu"), "resources.gpus_per_trial"),
    **dict.fromkeys(("cpus", "num_cpus", "n_cpus", "cpu"), "resources.cpus_per_trial"),
    **dict.fromkeys(("concurrency", "n_jobs", "max_concurrent_trials", "parallel", "workers"), "resources.max_concurrent"),
    **dict.fromkeys(("output_dir", "output", "out", "local_dir", "storage_path"), "storage"),
    **dict.fromkeys(("wandb", "mlflow", "tensorboard", "report_to", "logging"), "trackers"),
    **dict.fromkeys(("description", "notes", "note", "comment", "version", "tags", "metadata"), "about"),
}
"""What other tools call a setting of a sweep."""
_SEARCHED = (("base",), ("data",), ("lora",), ("train",), ("eval",))  # sections whose settings a space may vary
_YAML_1_1 = {"y": "true", "yes": "true", "on": "true", "n": "false", "no": "false", "off": "false"}


def placed(place: Place, text: str) -> PydanticCustomError:
    """For a validator that knows more exactly than pydantic where in its value the problem is."""
    return PydanticCustomError(_PLACED, "{text}", {"text": text, "place": list(place)})


def problems(error: ValidationError, model: type[BaseModel], data: Any = None) -> Iterator[Problem]:
    """Every problem with its place, that in the data where these are given."""
    missing: dict[Place, list[str]] = {}
    found: list[tuple[Place, str, bool]] = []
    for one in error.errors():
        place = _place(one, model, data)
        if one["type"] == "missing":
            missing.setdefault(place, []).append(".".join([*map(str, place), str(one["loc"][-1])]))
        else:
            found.append((place, explain(one, model, data), one["type"] in ("value_error", _PLACED, "extra_forbidden")))
    for place, names in missing.items():
        yield place, f"missing key{'s' if len(names) > 1 else ''} {', '.join(map(repr, names))}"
    for place, text, certain in found:
        deeper = any(other[: len(place)] == place and other != place for other, _, _ in found)
        if certain or not deeper:  # a union fails at each of its members; the one that came furthest was meant
            yield place, text


def explain(error: Any, model: type[BaseModel], data: Any = None) -> str:
    """One pydantic error as a sentence that names the key, what was found, and what is allowed."""
    location, place = _location(error), _place(error, model, data)
    name = ".".join(map(str, place))
    match error["type"]:
        case "extra_forbidden":
            key, allowed = str(location[-1]), sorted(_fields(model, location[:-1]))
            hint = _key_hint(key, place[:-1], error["input"], allowed, model)
            return f"unknown key {'.'.join(map(str, [*place[:-1], key]))!r}; {hint}allowed: {', '.join(allowed)}"
        case "missing":
            return f"missing key {'.'.join(map(str, location))!r}"
        case "value_error" | "placed":
            text = str(error["ctx"]["error" if error["type"] == "value_error" else "text"])
            return f"{name}: {text}" if name else text
    wanted, value = _refused(model, location), error["input"]
    hint = _hint(value, wanted)
    if (
        isinstance(value, list | dict)
        and value
        and place[:1] in _SEARCHED
        and "space" in model.model_fields
        and _single(wanted)
    ):
        hint = f"; to search it, write space: {{{name}: {found(value) if isinstance(value, list) else '{...}'}}}"
    return f"{name}: expected {' or '.join(expected(wanted))}, found {found(value)}{hint}"


def _single(wanted: list[Any]) -> bool:
    """Whether a value of these types is one value, no list and no mapping."""
    options = [one for kind in wanted for one in plain(kind)]
    return not any(typing.get_origin(one) in (list, tuple, dict) or _is_model(one) for one in options)


def _location(error: Any) -> Place:
    inner = error["ctx"]["place"] if error["type"] == _PLACED else ()
    return (*error["loc"], *inner)


def _place(error: Any, model: type[BaseModel], data: Any) -> Place:
    """An error's location without the names that pydantic adds for members of a union."""
    place: list[str | int] = []
    if data is None:
        found: list[Any] = [model]
        for part in _location(error):
            if inner := [one for kind in found for one in _inside(kind, part)]:
                found = inner
                place.append(part)
        return tuple(place)
    for part in _location(error):
        if (isinstance(data, dict) and part in data) or (isinstance(data, list) and isinstance(part, int) and part < len(data)):
            data = data[part]  # type: ignore[index]
            place.append(part)
    return tuple(place)


def found(value: Any) -> str:
    """A value as it stands in YAML, cut off where it is long."""
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


def _hint(value: Any, wanted: list[Any]) -> str:
    options = [one for kind in wanted for one in plain(kind)]
    if value is None:
        return "; give a value, or leave the key out"
    if str in options and isinstance(value, bool | int | float):
        return "; write it in quotes if it is a text"
    if any(typing.get_origin(one) in (list, tuple) for one in options) and isinstance(value, str | int | float) and str(value):
        return f"; a list is written [{', '.join(part.strip() for part in str(value)[:60].split(','))}]"
    if not isinstance(value, str):
        return ""
    if reading := _YAML_1_1.get(value.lower()):
        return f" (YAML 1.1 reads {value} as {reading})"
    if near := nearest(value, [option for kind in wanted for option in _options(kind)]):
        return f"; did you mean {near}?"
    parts = value.split(":")
    if len(parts) > 1 and all(part.isdecimal() for part in parts) and len(value) < 20:
        seconds = sum(int(part) * 60**i for i, part in enumerate(reversed(parts)))
        return f" (YAML 1.1 reads {value} as {seconds})"
    return ""


# ---------------------------------------------------------------------- keys


def _key_hint(key: str, section: Place, value: Any, allowed: list[str], model: type[BaseModel]) -> str:
    """The right spelling of an unknown key of a section, or where it stands; empty where nothing is near."""
    path = key.removeprefix("space.")
    if "." in key and kinds(model, keys(path)):
        if path != key or (isinstance(value, list | dict) and "space" in model.model_fields):
            return f"write it as space: {{{path}: {found(value) if isinstance(value, list) else '...'}}}; "
        first, *rest = keys(path)
        return f"write it as {first}: {': '.join(f'{{{part}' for part in rest)}: ...{'}' * len(rest)}; "
    named = _WORDS.get(key.lower(), "")
    *parents, last = keys(named)
    if not kinds(model, keys(named)):
        named = ""
    elsewhere = [repr(path) for path in _elsewhere(key, model)]
    near = nearest(key, allowed) or nearest(key.lower(), allowed)
    if named and parents == list(section):
        return f"did you mean {last!r}? "
    if named and not section:
        return f"did you mean {named!r}? "
    meant = " or ".join(elsewhere) or repr(near or named)
    return f"did you mean {meant}? " if elsewhere or near or named else ""


def nearest(key: str, allowed: Iterable[str]) -> str | None:
    """The allowed key that was meant: spelled nearly so, a part of what was written (per_device_batch_size), its initials (lr),
    or its beginning (r)."""
    known = list(allowed)
    if close := difflib.get_close_matches(key, known, n=1):
        return close[0]
    if len(key) > 40:
        return None
    rules = (
        lambda field: field in key,
        lambda field: "_" in field and "".join(word[0] for word in field.split("_")) == key,
        lambda field: field.startswith(key),
        lambda field: any(len(word) > 3 and word in field for word in key.split("_")),
    )
    return next((field for rule in rules for field in known if rule(field)), None)


def _elsewhere(key: str, model: type[BaseModel]) -> list[str]:
    """The dotted paths of fields of this name in the model's sections."""
    fields = [(name, field) for name, field in model.model_fields.items() if name != "pins"]  # nobody writes pins by hand
    sections = ((name, inner) for name, field in fields for inner in plain(field.annotation))
    return [f"{name}.{key}" for name, inner in sections if _is_model(inner) and key in inner.model_fields]


def required(model: type[BaseModel]) -> list[str]:
    return [name for name, field in model.model_fields.items() if field.is_required()]


# ---------------------------------------------------------------------- types


def expected(wanted: Iterable[Any]) -> list[str]:
    """What values of these types are, in words."""
    words: list[str] = []
    for kind in wanted:
        words += _words(kind, [])
    if {"a text", "true or false", "a whole number", "a number"} <= set(words):
        words = ["a single value", *(word for word in words if word not in _SIMPLE.values())]
    if "a number" in words:
        words = [word for word in words if word != "a whole number"]
    return list(dict.fromkeys(words)) or ["another value"]


def _words(kind: Any, limits: list[Any]) -> list[str]:
    origin, arguments = typing.get_origin(kind), typing.get_args(kind)
    if origin is typing.Annotated:
        return _words(arguments[0], limits + [limit for one in arguments[1:] for limit in getattr(one, "metadata", [one])])
    if origin in (typing.Union, types.UnionType):
        return [word for member in arguments if member is not type(None) for word in _words(member, limits)] + (
            ["null"] if type(None) in arguments else []
        )
    if origin is typing.Literal:
        return [f"{'one of ' if len(arguments) > 1 else ''}{', '.join(map(str, arguments))}"]
    if origin in (tuple, list):
        least = next((limit.min_length for limit in limits if isinstance(limit, annotated_types.MinLen)), 0)
        several = " or more" if least else ""
        return [f"a list of {least}{several} entries" if least > 1 else "a list" + (" that is not empty" if least else "")]
    if _is_model(kind) and issubclass(kind, RootModel):
        return _words(_annotated(kind.model_fields["root"]), [])
    if origin is dict or _is_model(kind):
        least = any(isinstance(limit, annotated_types.MinLen) for limit in limits)
        return ["keys and values" + (", at least one" if least else "")]
    return [_SIMPLE.get(kind, "another value") + _bounds(limits)]


def _bounds(limits: list[Any]) -> str:
    given = {name: getattr(limit, name) for limit in limits for name in ("ge", "gt", "le", "lt") if hasattr(limit, name)}
    if any(isinstance(limit, annotated_types.MinLen) for limit in limits):
        return " that is not empty"
    low = f"{given['ge']:,g}" if "ge" in given else None
    top = f"up to {given['le']:,.10g}" if "le" in given else f"below {given['lt']:,.10g}" if "lt" in given else None
    if low is not None:
        return f" from {low} to {top.removeprefix('up to ')}" if top else f" of {low} or more"
    if "gt" in given:
        return f" above {given['gt']:g}" + (f" and {top}" if top else "")
    return f" {top}" if top else ""


def _fields(model: type[BaseModel], location: Place) -> set[str]:
    """The keys allowed at a place of a model."""
    return {
        field for kind in _refused(model, location) for inner in plain(kind) if _is_model(inner) for field in inner.model_fields
    }


def kinds(model: type[BaseModel], path: Place) -> list[Any]:
    """The types at a path of a model; empty where it leads nowhere."""
    found: list[Any] = [model]
    for part in path:
        found = [one for kind in found for one in _inside(kind, part)]
    return found


def _refused(model: type[BaseModel], location: Place) -> list[Any]:
    """The types at an error's location, whose parts are also pydantic's names for members of a union."""
    found: list[Any] = [model]
    for part in location:
        found = [one for kind in found for one in _inside(kind, part)] or found
    return found


def _is_model(kind: Any) -> bool:
    return isinstance(kind, type) and issubclass(kind, BaseModel)


def plain(kind: Any) -> list[Any]:
    """A type without Optional, unions, Annotated and root models."""
    origin = typing.get_origin(kind)
    if origin is typing.Annotated:
        return plain(typing.get_args(kind)[0])
    if origin in (typing.Union, types.UnionType):
        return [one for member in typing.get_args(kind) for one in plain(member)]
    if isinstance(kind, type) and issubclass(kind, RootModel):
        return plain(kind.model_fields["root"].annotation)
    return [kind]


def _options(kind: Any) -> list[str]:
    return [str(value) for one in plain(kind) if typing.get_origin(one) is typing.Literal for value in typing.get_args(one)]


@cache
def leaves(kind: Any) -> frozenset[Any]:
    """The scalar types of which values of this type are made; of a choice of texts str."""
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
                found.append(one)  # pydantic names the tag of a union member in the place
        elif origin is dict and isinstance(part, str):
            found.append(arguments[-1])
        elif origin in (list, tuple) and isinstance(part, int):
            found.append(arguments[0])
    return found


def _annotated(field: FieldInfo) -> Any:
    return typing.Annotated[field.annotation, *field.metadata] if field.metadata else field.annotation
