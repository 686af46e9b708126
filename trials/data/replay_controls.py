"""Replayed solutions with one thing taken away, to tell what of them restores a skill.

`permuted` leaves the format and takes the mathematics: every question gets the solution of another one. `prose` leaves the
mathematics and takes the format: no calculator annotations, no marker before the result, no line for each step.
"""

import re

import numpy as np

from trials.errors import InputError

_CALCULATOR = re.compile(r"<<[^<>]*>>")
_RESULT = re.compile(r"\s*####\s*(\S[^\n]*?)\s*$")


def others(numbers: np.ndarray) -> dict[int, int]:
    """For each of the row numbers (n,) another one of them, each taken once: the next, for the last the first."""
    return dict(zip(numbers.tolist(), np.roll(numbers, -1).tolist(), strict=True))


def prose(name: str, response: str) -> str:
    """A GSM8K solution of lines that ends in `#### RESULT` as a paragraph that ends in a sentence with the result."""
    plain, results = _RESULT.subn(r"\nThe answer is \1.", _CALCULATOR.sub("", response))
    if not results:
        raise InputError(
            f"data.replay.control: source {name!r} has a response without a line '#### RESULT' to write as prose: "
            f"{response[-60:]!r}"
        )
    return " ".join(plain.split())
