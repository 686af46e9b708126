"""Finds a trial by what a user calls it."""

import re

from analysis.results.sweep import Sweep
from trials.errors import InputError


def key_of(sweep: Sweep, name: str) -> str:
    """The key that `name` means: a trial's number, an imported model, a key, or its first characters; in this order."""
    frame = sweep.trials
    if number := re.fullmatch(r"#?(\d{1,9})", name):
        own = frame[frame["number"] == int(number[1])]
        if len(own):
            return str(own.iloc[0]["key"])
    if name.startswith("#"):
        raise InputError(f"{sweep.name} has no trial {name}; it has {len(frame)}, from #0 on")
    if "model" in sweep.space and len(own := frame[frame["model"] == name]) == 1:
        return str(own.iloc[0]["key"])
    keys = {key for key in [*frame["key"], *sweep.records] if key and key.startswith(name)}
    if len(keys) != 1:
        help_text = (
            f"several keys begin so: {', '.join(sorted(keys)[:4])}" if keys else "slimsweep status DIR lists those on the front"
        )
        raise InputError(f"{sweep.name} has no one record {name!r}; {help_text}")
    return keys.pop()
