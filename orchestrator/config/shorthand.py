"""Short and foreign spellings of a config. One with several meanings is refused with the right spelling."""

import re
from collections.abc import Iterator, Mapping
from typing import Any

from orchestrator.config.parameters import PAIRED, as_text
from trials import dotted_path
from trials.explain import found, kinds, leaves, nearest, placed
from trials.spec import TrialSpec

_KEYS = {"min": "low", "max": "high", "lower": "low", "upper": "high", "values": "choices", "distribution": "type", "q": "step"}
_MEANINGS: tuple[tuple[dict[str, Any], tuple[str, ...]], ...] = (
    ({"type": "categorical"}, ("categorical", "choice", "choices", "suggest_categorical")),
    ({"type": "float"}, ("float", "real", "suggest_float")),
    ({"type": "int"}, ("int", "integer", "int_uniform", "suggest_int")),
    ({"type": "simplex"}, ("simplex",)),
    ({}, ("uniform", "quniform", "q_uniform", "range", "suggest_uniform", "suggest_discrete_uniform")),
    ({"log": True}, ("loguniform", "log_uniform_values", "suggest_loguniform")),
)
"""Meanings of words for types. A range without a type takes the type of its setting."""
_TYPES = {word: meaning for meaning, words in _MEANINGS for word in words}
# words that other tools define differently
_DOUBTFUL = {
    "log_uniform": "elsewhere its ends are exponents; write {type: float, low: ..., high: ..., log: true} with the values",
    "randint": "elsewhere its upper end is left out; write {type: int, low: ..., high: ...}, which includes both ends",
    "constant": "one value is no search; set it in its section",
}
_SHAPE = "expected {type: categorical, float, int or simplex, ...}, or a list of choices"
_DIRECTIONS = {
    **dict.fromkeys(("maximize", "maximise", "max"), "maximize"),
    **dict.fromkeys(("minimize", "minimise", "min"), "minimize"),
}
_OBJECTIVE_KEYS = {"name": "metric", "objective": "metric", "goal": "direction", "mode": "direction"}
_METRIC = re.compile(r"[A-Za-z_][\w+-]*\.\w+")


def scalars(name: str) -> frozenset[Any]:
    """Scalar types of a setting; empty for an unknown path."""
    found = frozenset(one for kind in kinds(TrialSpec, dotted_path.keys(name)) for one in leaves(kind))
    return found & {str, bool, int, float}


# ---------------------------------------------------------------------- space


def space(given: Any) -> Any:
    """`space` with all parameters spelled out."""
    if not isinstance(given, dict):
        return given
    return {path: value if path == PAIRED else _parameter(str(path), value) for path, value in given.items()}


def _parameter(path: str, value: Any) -> Any:
    place = (path,)
    if isinstance(value, list):
        if any(isinstance(one, list) for one in value) and not any(isinstance(one, dict) for one in value):
            points = ", ".join(f"{{{path}: {as_text(one)}}}" for one in value[:2])
            raise placed(place, f"a choice that is itself a list stands under `{PAIRED}`: [{points}, ...]")
        whole = path == PAIRED or (bool(value) and all(isinstance(one, dict) for one in value))
        return value if whole else {"type": "categorical", "choices": value}
    if not isinstance(value, dict):
        one = isinstance(value, bool | int | float) or value is None
        hint = f"; one value is no search: set {path} in its section" if one else ""
        raise placed(place, f"{_SHAPE}, found {found(value)}{hint}")
    if not scalars(path) and (inner := [key for key in value if scalars(f"{path}.{key}")]):
        raise placed(place, f"a setting has its whole path: write {path}.{inner[0]}: ... in `space`")
    return _full(path, {_KEYS.get(str(key), str(key)): one for key, one in value.items()}, value)


def _full(path: str, made: dict[str, Any], value: Mapping[Any, Any]) -> dict[str, Any]:
    if len(made) < len(value):
        raise placed((path,), f"two keys say the same; {_SHAPE}, found {found(dict(value))}")
    kind = made.pop("type", None)
    named = next((key for key in ("type", "distribution") if key in value), None)
    place = (path, named) if named else (path,)
    if kind is None:
        if {"choices", "low", "high"}.isdisjoint(made):
            raise placed(place, f"{_SHAPE}, found {found(dict(value))}")
        means: dict[str, Any] = {"type": "categorical"} if "choices" in made else {}
    elif isinstance(kind, str) and kind.lower().replace("-", "_") in _TYPES:
        means = _TYPES[kind.lower().replace("-", "_")]
    else:
        doubt = _DOUBTFUL.get(str(kind).lower().replace("-", "_"))
        near = nearest(str(kind), ("categorical", "float", "int", "simplex")) if isinstance(kind, str) else None
        raise placed(
            place, f"{_SHAPE}, found type {found(kind)}; {doubt or (f'did you mean {near}?' if near else '')}".rstrip("; ")
        )
    if "type" not in means:
        means = {"type": "int" if float not in scalars(path) and int in scalars(path) else "float", **means}
    return {**means, **made}


# ---------------------------------------------------------------------- objectives and constraints


def natural(metric: str) -> str | None:
    """Direction in which a metric is better; None for one that no training moves."""
    kind = metric.rpartition(".")[2]
    if kind == "base":
        return None
    return "maximize" if kind in ("gain", "value", "won", "won_adjusted") else "minimize"


def objectives(given: Any) -> Any:
    """`search.objectives` as a list of {metric, direction}."""
    if isinstance(given, str):
        return [_objective((), given)]
    if isinstance(given, dict):
        whole = not {"metric", "direction"}.isdisjoint(_renamed(given))
        return [_objective((), given)] if whole else [_objective((name,), {name: way}) for name, way in given.items()]
    return [_objective((i,), one) for i, one in enumerate(given)] if isinstance(given, list) else given


def _objective(place: tuple[str | int, ...], given: Any) -> Any:
    if isinstance(given, str):
        given = dict(_words(place, given))
    if not isinstance(given, dict):
        raise placed(place, f"expected {_spelled(str(given))}, found {found(given)}")
    given = _renamed(given)
    metric, way = given.get("metric"), given.get("direction")
    if metric is None:
        raise placed(place, f"expected {_spelled(_dotted(given))}, found {found(given)}")
    if way is None and isinstance(metric, str):
        way = natural(metric)
        if way is None:
            raise placed(place, f"is {metric} to be larger or smaller? Write {{metric: {metric}, direction: maximize}}")
    return {**given, "direction": _DIRECTIONS.get(way.lower(), way) if isinstance(way, str) else way}


def _renamed(given: Mapping[Any, Any]) -> dict[str, Any]:
    """{maximize: METRIC}, {METRIC: maximize} and {name: METRIC, mode: max} with the keys metric and direction."""
    if len(given) == 1:
        (key, value), *_ = given.items()
        if str(key).lower() in _DIRECTIONS and isinstance(value, str):
            return {"metric": value, "direction": str(key).lower()}
        if "." in str(key) and (value is None or isinstance(value, str)):
            return {"metric": str(key), "direction": value}
    named = {_OBJECTIVE_KEYS.get(str(key), str(key)): value for key, value in given.items()}
    return named if len(named) == len(given) else dict(given)


def _spelled(text: str) -> str:
    """Full spelling of the objective in a text."""
    match = _METRIC.search(text)
    metric = match[0] if match else "commonsense.gain"
    return f"{{metric: {metric}, direction: {natural(metric) or 'maximize'}}}"


def _dotted(given: Mapping[str, Any]) -> str:
    """{commonsense: {gain: maximize}} as commonsense.gain."""
    for role, kind in given.items():
        inner = next(iter(kind), None) if isinstance(kind, dict) else kind
        if isinstance(inner, str) and role != "direction":
            return f"{role}.{inner}" if "." not in inner else inner
    return " ".join(map(str, given))


def _words(place: tuple[str | int, ...], text: str) -> Iterator[tuple[str, str]]:
    """The metric of "commonsense.gain" and, where it says one, the direction: "maximize commonsense.gain"."""
    words = [word for word in re.split(r"[\s:()]+", text) if word]
    directions = [word for word in words if word.lower() in _DIRECTIONS]
    metrics = [word for word in words if word.lower() not in _DIRECTIONS]
    if len(metrics) != 1 or len(directions) > 1 or metrics[0][0] in "-+":
        several = [word for word in re.split(r"[\s,;]+", text) if _METRIC.fullmatch(word)]
        right = f"a list, [{', '.join(several)}]" if len(several) > 1 else _spelled(text)
        dash = "; an entry of a list has a blank behind its dash" if text.startswith("-") else ""
        raise placed(place, f"expected {right}, found {found(text)}{dash}")
    yield "metric", metrics[0]
    if directions:
        yield "direction", directions[0].lower()


def constraints(given: Any) -> Any:
    """`search.constraints` as a list of texts."""
    if isinstance(given, str):
        return [given]
    if isinstance(given, dict):
        given = [given]
    for i, one in enumerate(given if isinstance(given, list) else ()):
        if isinstance(one, dict):
            raise placed((i,), f'a constraint is a text: write "{_constraint(one)}"')
    return given


def _constraint(given: Mapping[Any, Any]) -> str:
    """Probable meaning of a constraint that is a mapping, as text."""
    metric, bound = str(given.get("metric", next(iter(given), "math.forgetting"))), None
    for key in ("max", "upper", "high", "bound", "threshold", "value", "min", "lower", "low", metric):
        if isinstance(given.get(key), int | float):
            bound = given[key]
            return f"{metric} {'>=' if key in ('min', 'lower', 'low') else '<='} {bound}"
        if isinstance(given.get(key), str):
            return f"{metric} {given[key]}"
    return f"{metric} <= 0.1"
