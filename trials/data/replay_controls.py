"""Ablated replay data: solutions without one property, to find which property restores a skill.

`permuted` keeps the format and removes the mathematics: every question gets another one's solution. `prose` keeps the
mathematics and removes the format: no calculator annotations, no marker before the result, no line for each step.
"""

import re

import numpy as np

from trials.errors import InputError

_CALCULATOR = re.compile(r"<<[^<>]*>>")
_RESULT = re.compile(r"\s*####\s*(\S[^\n]*?)\s*$")


def others(numbers: np.ndarray) -> dict[int, int]:
    """Maps each of the row numbers (n,) to the next one, and the last to the first: a permutation without fixed points."""
    return dict(zip(numbers.tolist(), np.roll(numbers, -1).tolist(), strict=True))


def prose(name: str, response: str) -> str:
    """Rewrites a GSM8K solution, whose last line is `#### RESULT`, as one paragraph with the result in its last sentence."""
    plain, results = _RESULT.subn(r"\nThe answer is \1.", _CALCULATOR.sub("", response))
    if not results:
        raise InputError(
            f"data.replay.control: source {name!r} has a response without a line '#### RESULT' to write as prose: "
            f"{response[-60:]!r}"
        )
    return " ".join(plain.split())
