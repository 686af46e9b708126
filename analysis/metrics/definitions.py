"""Formulas of a role's metrics, as functions of the means over its documents.

With t and b the tuned model's and the base's mean of a column over the same documents:

    value       t.score
    base        b.score
    gain        t.score - b.score
    drop        b.score - t.score
    forgetting  1 - t.score / b.score, the paper's forgetting rate (arXiv 2506.10885); undefined where the base is 0

A role's score may have another `Scale`: better when lower (an error rate), or made of two columns (a perplexity). With
v = score, score / weight or exp(score / weight), as its form is, and d = 1 where higher is better, -1 where lower is:

    gain        d (v_tuned - v_base); a gain above 0 is better, whatever the metric
    drop        -gain
    forgetting  drop / v_base: the share of a score that is lost, or by which an error has grown, which may exceed 1; undefined
                where the base's score is not above 0

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

Two columns of paired documents are of neither model alone. With the shares t_i and b_i of document i:

    lost        mean of max(d (b_i - t_i), 0): right before the training and wrong after it
    won         mean of max(d (t_i - b_i), 0); gain = won - lost

Gain hides an exchange of answers: a model that loses 20 % of its answers and wins 20 % others has a gain of 0. Both are
defined for scores that are means of shares, and where a trial answered the base's documents.

Multiple choice is answered right by guessing, too. Let each model know an answer or guess one of k choices, independently of
the other model's guess, and let neither know a share u of the documents. Both are wrong in u (k-1)^2 / k^2 of the documents,
and guessing alone loses and wins u (k-1) / k^2. So what guessing changes is the share where both are wrong over k - 1:

    lost_adjusted   mean of lost - (1 - t_i) (1 - b_i) / (k_i - 1), but at least 0 (Harmon et al. 2025, arXiv 2510.17776)
    won_adjusted    the same of won

The paper takes (1 - t) (1 - b) of the two means for the share where both are wrong, which is too small for models that know the
same answers. At 0, no more answers changed than independent guesses would change.

Of several roles, with f their forgetting rates:

    mean_forgetting, worst_forgetting   the mean and the greatest f over the replicates; undefined where one of them is
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache, partial

import numpy as np

from trials.ledger.outcomes import SHARES_SCALE, Scale

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
    floor: float = -np.inf
    """A smaller value counts as this one, as do the ends of its interval."""
    near: Callable[[Means, Means], "Kind"] | None = None
    """For a metric with kinks: the smooth one that it is at these means, whose slopes are its own."""


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


def _of_pairs(column: str, t: Means, b: Means) -> np.ndarray:
    return t[column] + 0.0 * b[column]


def paired_columns(
    tuned: np.ndarray, base: np.ndarray, scale: Scale, choices: np.ndarray | None = None
) -> dict[str, np.ndarray]:
    """The columns of PAIRED_KINDS from the scores of the same documents, arrays that broadcast. Empty for a score that is no
    mean of shares; without CHANCE_KINDS where the documents' numbers of `choices` are unknown."""
    if scale.form != "mean" or not scale.share:
        return {}
    if not scale.higher_is_better:
        tuned, base = 1 - tuned, 1 - base
    found = {"lost": np.maximum(base - tuned, 0), "won": np.maximum(tuned - base, 0)}
    if choices is None:
        return found
    guessed = (1 - tuned) * (1 - base) / (choices - 1)
    return found | {f"{name}_adjusted": column - guessed for name, column in found.items()}


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
CHANGES = ("lost", "won")
CHANCE_KINDS = ("lost_adjusted", "won_adjusted")
PAIRED_KINDS = {
    name: Kind(partial(_of_pairs, name), (name,), unit=lambda b: np.ones(()), floor=0.0) for name in (*CHANGES, *CHANCE_KINDS)
}
JOINT_KINDS = ("mean_forgetting", "worst_forgetting")
RATES = (*JOINT_KINDS, "forgetting", "format_forgetting", "skill_forgetting")
"""Shares of the base's score, which are undefined where that is 0."""
PART_KINDS = PAIRED_KINDS | MARKER_KINDS | FLEXIBLE_KINDS | GOLD_KINDS | CLASS_KINDS
ALL_KINDS = KINDS | PART_KINDS


@cache
def kinds(scale: Scale) -> Mapping[str, Kind]:
    """ALL_KINDS for a role whose score has this scale."""
    return ALL_KINDS if scale == SHARES_SCALE else ALL_KINDS | _on_scale(scale)


def joint_kind(name: str, parts: Mapping[str, tuple[Kind, float]]) -> Kind:
    """One of JOINT_KINDS; `parts` are, by role, its forgetting rate and the share of all documents that are its own.

    Its columns are COLUMN:ROLE, 0 at the documents of other roles, and part:ROLE, 1 at the role's own.
    """

    def rates(t: Means, b: Means) -> np.ndarray:
        sides = [[_own(means, role, kind.columns) for means in (t, b)] for role, (kind, _) in parts.items()]
        found = [kind.of(*both) for (kind, _), both in zip(parts.values(), sides, strict=True)]
        return np.stack(np.broadcast_arrays(*map(np.atleast_1d, found)))

    def worst(t: Means, b: Means) -> np.ndarray:
        # along the last axis are replicates: the role that forgets most in their mean
        place: np.ndarray = rates(t, b).mean(axis=-1, keepdims=True).argmax(axis=0)
        return place

    def of(t: Means, b: Means) -> np.ndarray:
        found: np.ndarray = rates(t, b).mean(axis=0) if name == "mean_forgetting" else chosen(worst(t, b))(t, b)
        return found

    def chosen(place: np.ndarray) -> Callable[[Means, Means], np.ndarray]:
        return lambda t, b: np.take_along_axis(rates(t, b), place[None], axis=0)[0]

    def near(t: Means, b: Means) -> Kind:
        return Kind(chosen(worst(t, b)), tuple(columns))

    def unit(b: Means) -> np.ndarray:
        flips = [kind.unit(_own(b, role, kind.columns)) / share for role, (kind, share) in parts.items() if kind.unit]
        greatest: np.ndarray = np.max(np.stack(np.broadcast_arrays(*flips)), axis=0)
        return greatest / len(parts) if name == "mean_forgetting" else greatest

    columns = [f"{column}:{role}" for role, (kind, _) in parts.items() for column in ("part", *kind.columns)]
    shares = all(kind.unit is not None for kind, _ in parts.values())
    return Kind(of, tuple(columns), unit=unit if shares else None, near=near if name == "worst_forgetting" else None)


def _own(means: Means, role: str, columns: Sequence[str]) -> Means:
    return {column: means[f"{column}:{role}"] / means[f"part:{role}"] for column in columns}


def _on_scale(scale: Scale) -> dict[str, Kind]:
    columns = ("score",) if scale.form == "mean" else ("score", "weight")
    sign = 1.0 if scale.higher_is_better else -1.0

    def value(m: Means) -> np.ndarray:
        natural = m["score"] if scale.form == "mean" else m["score"] / m["weight"]
        return np.exp(natural) if scale.form == "exp" else natural

    def kind(of: Callable[[Means, Means], np.ndarray], unit: Callable[[Means], np.ndarray]) -> Kind:
        # a document of a metric that is no share does not flip between 0 and 1
        return Kind(of, columns, unit=unit if scale.form == "mean" and scale.share else None)

    return {
        "value": Kind(lambda t, b: value(t), columns, base=False),
        "gain": kind(lambda t, b: sign * (value(t) - value(b)), lambda b: np.ones_like(b["score"])),
        "drop": kind(lambda t, b: sign * (value(b) - value(t)), lambda b: np.ones_like(b["score"])),
        "forgetting": kind(
            lambda t, b: _ratio(sign * (value(b) - value(t)), value(b)), lambda b: _ratio(np.ones(()), b["score"])
        ),
        "base": Kind(lambda t, b: value(b) + 0.0 * t["score"], columns),
    }
