"""Dotted paths: `lora.rank` and `data.mix.gsm8k` address the settings of a trial in specs, configs and their dumps."""

from collections.abc import Iterator, Mapping, MutableMapping
from typing import Any

from pydantic import BaseModel

MIX = "data.mix"


def keys(path: str) -> tuple[str, ...]:
    """The keys that a path leads through, outermost first."""
    # a source's name may have dots itself, and nothing lies below it
    if path.startswith(f"{MIX}."):
        return (*MIX.split("."), source_of(path))
    return tuple(path.split("."))


def source_of(path: str) -> str:
    """The source whose share a path below `data.mix` sets."""
    return path.removeprefix(f"{MIX}.")


def read(settings: Any, path: str, default: Any = None) -> Any:
    """The value at a path of nested mappings or models; `default` if the path leads nowhere."""
    for key in keys(path):
        if isinstance(settings, Mapping):
            if key not in settings:
                return default
            settings = settings[key]
        elif isinstance(settings, BaseModel) and key in type(settings).model_fields:
            settings = getattr(settings, key)
        else:
            return default
    return settings


def write(settings: MutableMapping[str, Any], path: str, value: Any) -> None:
    """Sets the value at a path of nested mappings; sections that are missing are made."""
    *parents, last = keys(path)
    for key in parents:
        settings = settings.setdefault(key, {})
    settings[last] = value


def paths(prefix: str, value: Any) -> Iterator[str]:
    """Every path below `prefix` that leads to a value of its own: fields of models and entries of mappings."""
    if isinstance(value, BaseModel):
        value = {name: getattr(value, name) for name in type(value).model_fields}
    elif not isinstance(value, Mapping) or not value:  # an empty mapping is a value
        yield prefix
        return
    for name, inner in value.items():
        yield from paths(f"{prefix}.{name}", inner)


def longest_keys(data: Any, path: str) -> list[str]:
    """The keys that a path leads through in `data`, whose keys may have dots: the longest key that `data` has wins."""
    parts, found = path.split("."), []
    while parts:
        ends = range(len(parts), 0, -1)
        end = next((end for end in ends if isinstance(data, Mapping) and ".".join(parts[:end]) in data), 1)
        found.append(".".join(parts[:end]))
        data = data.get(found[-1]) if isinstance(data, Mapping) else None
        parts = parts[end:]
    return found
