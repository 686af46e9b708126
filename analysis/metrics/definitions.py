"""Formulas of a role's metrics, as functions of the means over its documents.

With t and b the tuned model's and the base's mean of a column over the same documents:

    value       t.score
    base        b.score
    gain        t.score - b.score
    drop        b.score - t.score
    forgetting  1 - t.score / b.score, the paper's forgetting rate (arXiv 2506.10885); undefined where the base is 0

A generated task whose answers carry a marker (GSM8K's ####) has two more columns: marker (the answer has it) and strict (the
answer is right under the filter that requires the marker). With m and s their means and q = s / m the change of s is exactly

    s_tuned - s_base = (m_tuned - m_base) * (q_tuned + q_base) / 2  +  (m_tuned + m_base) / 2 * (q_tuned - q_base)

The first part is format, the second skill (two-factor decomposition, Kitagawa 1955, doi:10.1080/01621459.1955.10501299).

    format_forgetting, skill_forgetting   minus these parts over s_base; their sum is the forgetting rate
    flexible_drop, marker_drop, stopped_drop   base - tuned, shares: right under the laxer filter, answers with the marker,
                                          answers that ended by themselves
    gold_bpb                              bits per byte of the gold solution, teacher-forced
    gold_bpb_delta                        tuned - base; above 0 is forgetting, even where exact match is at its floor
    gold_bpb_word_delta (digit, operator, format)   the same over one class of tokens
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np

Means = Mapping[str, np.ndarray]
"""Means over documents by column, arrays of one shape (or shapes that broadcast)."""
CLASSES = ("word", "digit", "operator", "format")  # of a gold solution's tokens


@dataclass(frozen=True)
class Kind:
    of: Callable[[Means, Means], np.ndarray]
    """From the means of the tuned model and of the base; NaN where it is undefined."""
    columns: tuple[str, ...]
    base: bool = True
    """Whether the metric depends on the base's answers."""
    unit: Callable[[Means], np.ndarray] | None = None
    """For a difference of shares: n times the effect of one document that flips (1; 1 / base for a rate)."""


def _difference(column: str, sign: float) -> Kind:
    return Kind(lambda t, b: sign * (t[column] - b[column]), (column,), unit=lambda b: np.ones_like(b[column]))


def _bits_delta(part: str) -> Kind:
    bits, length = f"bits{part}", f"bytes{part}"
    return Kind(lambda t, b: _ratio(t[bits] - b[bits], b[length]), (bits, length))


def _ratio(top: np.ndarray, bottom: np.ndarray) -> np.ndarray:
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.where(bottom > 0, top / bottom, np.nan)


def _format_and_skill(t: Means, b: Means) -> tuple[np.ndarray, np.ndarray]:
    q_base = _ratio(b["strict"], b["marker"])
    # A tuned model that never writes the marker has no q: it takes the base's, so that all of the change is format.
    q_tuned = np.where(t["marker"] > 0, _ratio(t["strict"], t["marker"]), q_base)
    by_format = (t["marker"] - b["marker"]) * (q_tuned + q_base) / 2
    by_skill = (t["marker"] + b["marker"]) / 2 * (q_tuned - q_base)
    return _ratio(-by_format, b["strict"]), _ratio(-by_skill, b["strict"])


def _per_strict(b: Means) -> np.ndarray:
    return _ratio(np.ones(()), b["strict"])


KINDS: dict[str, Kind] = {
    "value": Kind(lambda t, b: t["score"], ("score",), base=False),
    "gain": _difference("score", 1.0),
    "drop": _difference("score", -1.0),
    "forgetting": Kind(
        lambda t, b: _ratio(b["score"] - t["score"], b["score"]), ("score",), unit=lambda b: _ratio(np.ones(()), b["score"])
    ),
    "base": Kind(lambda t, b: b["score"] + 0.0 * t["score"], ("score",)),
}
MARKER_KINDS = {
    # One flip moves a part as much as it moves the rate: where all of a drop is skill, both have the same interval.
    "format_forgetting": Kind(lambda t, b: _format_and_skill(t, b)[0], ("strict", "marker"), unit=_per_strict),
    "skill_forgetting": Kind(lambda t, b: _format_and_skill(t, b)[1], ("strict", "marker"), unit=_per_strict),
    "marker_drop": _difference("marker", -1.0),
    "stopped_drop": _difference("stopped", -1.0),
}
FLEXIBLE_KINDS = {"flexible_drop": _difference("flexible", -1.0)}
GOLD_KINDS = {
    "gold_bpb": Kind(lambda t, b: _ratio(t["bits"], t["bytes"]), ("bits", "bytes"), base=False),
    "gold_bpb_delta": _bits_delta(""),
}
CLASS_KINDS = {f"gold_bpb_{part}_delta": _bits_delta(f".{part}") for part in CLASSES}
RATES = ("forgetting", "format_forgetting", "skill_forgetting")
"""Shares of the base's score, which are undefined where that is 0."""
PART_KINDS = MARKER_KINDS | FLEXIBLE_KINDS | GOLD_KINDS | CLASS_KINDS
ALL_KINDS = KINDS | PART_KINDS
