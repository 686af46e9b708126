"""Scores of a response against a known answer, for tasks that are made of a file of questions (trials/tasks/questions.py).

Each is lm-eval's `process_results`: from a document with its `answer`, and the filtered responses, the metrics by name.
"""

import re
from collections.abc import Mapping, Sequence
from decimal import Decimal
from typing import Any

_CURRENCY = re.compile(r"[$€£¥]\s?")
# a dash between two numbers is a range or a difference, not a sign
_NUMBER = re.compile(
    r"(?:(?<![\w.)])[-\N{MINUS SIGN}])?"
    r"(?:(?:\d{1,3}(?:,\d{3})+(?!\d)|\d+)(?:\.\d+)?|\.\d+)(?:[eE][-+]?\d{1,3}(?!\d))?",
    re.ASCII,
)

Doc = Mapping[str, Any]


def exact(doc: Doc, responses: Sequence[str]) -> dict[str, float]:
    """1 where the response is the answer, but for white space around it."""
    return {"exact": float(responses[0].strip() == doc["answer"].strip())}


def contains(doc: Doc, responses: Sequence[str]) -> dict[str, float]:
    """1 where the answer is part of the response, in upper or lower case."""
    return {"contains": float(doc["answer"].strip().casefold() in responses[0].casefold())}


def numeric(doc: Doc, responses: Sequence[str]) -> dict[str, float]:
    """1 where the last number of the response is the last number of the answer."""
    found = number(responses[0])
    return {"numeric": float(found is not None and found == number(doc["answer"]))}


def number(text: str) -> Decimal | None:
    """The last number of a text, without currency signs and with commas between thousands; None without a number."""
    found = _NUMBER.findall(_CURRENCY.sub("", text))
    return Decimal(found[-1].replace(",", "").replace("\N{MINUS SIGN}", "-")) if found else None
