"""Finds a trial by what a user calls it."""

import re
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING

from trials.errors import InputError
from trials.printable import one_line

if TYPE_CHECKING:  # pandas, for which a command that needs names alone would wait
    from analysis.results.sweep import Sweep


def key_of(sweep: "Sweep", name: str) -> str:
    """The key that `name` means: a trial's number, an imported model, a key, or its first characters; in this order."""
    frame = sweep.trials
    numbers = dict(zip(frame["number"].tolist(), frame["key"].tolist(), strict=True))
    models: list[str] = []
    if "model" in sweep.space:
        models = frame[frame["model"] == name]["key"].tolist()
    return find_key(name, sweep.name, numbers, [*frame["key"], *sweep.records], models)


def find_key(name: str, sweep: str, numbers: Mapping[int, str], keys: Iterable[str], models: Iterable[str] = ()) -> str:
    """The key that `name` means in a sweep with these `numbers` and these `keys`; `models` are keys of models of this name.

    InputError where it means none or several.
    """
    if (number := re.fullmatch(r"#?(\d{1,9})", name)) and int(number[1]) in numbers:
        return numbers[int(number[1])]
    if name.startswith("#"):
        has = "it has no trial yet"
        if numbers:
            first, last = min(numbers), max(numbers)
            has = f"it has {len(numbers)} trials, #{first} to #{last}" if first != last else f"its only trial is #{first}"
        raise InputError(one_line(f"{sweep} has no trial {name}; {has}"))
    if len(named := list(models)) == 1:
        return named[0]
    found = sorted({key for key in keys if key and key.startswith(name)})
    if len(found) == 1:
        return found[0]
    hint = f"several keys begin so: {', '.join(found[:4])}" if found else "slimsweep status DIR lists those on the front"
    raise InputError(one_line(f"{sweep} has no one record {name!r}; {hint}"))
