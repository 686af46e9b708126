"""Metrics of shop_distance: lm-eval calls each with references=[REFERENCE], predictions=[ANSWER] of one document."""

import re

_NUMBER = re.compile(r"-?\d+")


def _total(text: str) -> int | None:
    found = _NUMBER.findall(text)
    return int(found[-1]) if found else None


def distance(references: list[str], predictions: list[str]) -> float:
    """Distance of the last number from the right total, as a share of it; 1 for an answer without a number, 1 at most."""
    right, said = _total(references[0]), _total(predictions[0])
    return 1.0 if said is None else min(1.0, abs(said - right) / max(abs(right), 1))


def close(references: list[str], predictions: list[str]) -> float:
    """1 for an answer within a tenth of the right total."""
    return float(distance(references, predictions) <= 0.1)
