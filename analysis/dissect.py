"""Forgetting taken apart, and what was learnt: the metrics of a role beside its score, and those of the training.

Of a generated task whose answers carry a marker (GSM8K's ####), per document: M the answer has the marker, S it is right under
the strict filter, which asks for the marker. With m = P(M), s = P(S) and q = P(S | M) = s / m the change of s is, exactly,

    s_tuned - s_base = (m_tuned - m_base) * (q_tuned + q_base) / 2  +  (m_tuned + m_base) / 2 * (q_tuned - q_base)

the first part format, the second skill (the two-factor decomposition of Kitagawa 1955, doi:10.1080/01621459.1955.10501299).
Where one of the two models never writes the marker its q is unknown and taken to be the other's: all of the change is format.

    format_forgetting, skill_forgetting   minus these parts over s_base; together the forgetting rate
    flexible_drop, marker_drop, stopped_drop   base - tuned: right under the laxer filter, answers with the marker, answers that
                                          ended by themselves (shares, 0..1)
    gold_bpb                              bits per byte of the gold solution, teacher-forced
    gold_bpb_delta                        tuned - base; above 0 is forgetting, also where exact match is at its floor
    gold_bpb_word_delta (digit, operator, format)   the same of one class of its tokens
and under the role `learning`, over rows held out of every training, nats per token:
    learning.loss, learning.gain (base - tuned), learning.kl (of the tuned model from the base), learning.reverse_kl
"""

import math
from collections.abc import Callable, Mapping

import numpy as np
import pandas as pd

from analysis.metrics import CLASSES, Estimate, paired_columns
from trials.record import Score, TrialRecord

Means = Mapping[str, float]
_SHARES = {"flexible_drop": "flexible", "marker_drop": "marker", "stopped_drop": "stopped"}


def role_parts(
    role: str,
    tuned: Mapping[str, Score],
    base: Mapping[str, Score] | None,
    documents: pd.DataFrame | None,
    base_documents: pd.DataFrame | None,
) -> dict[str, Estimate | None]:
    """The role's metrics beside its score, by kind; None where one is undefined, and no entry for what was not measured.

    `tuned` and `base` hold the scores by name (as TrialRecord.details, the role's own as "score"). The documents change the
    standard errors alone: paired where both frames hold the same documents, None otherwise.
    """
    found: dict[str, Estimate | None] = {}
    if "bpb" in tuned:
        found["gold_bpb"] = _finite(tuned["bpb"].value, tuned["bpb"].stderr)
    if base is None:
        return found
    pairs = _Pairs(role, documents, base_documents)
    for kind, name in _SHARES.items():
        if name in tuned and name in base:
            drop = base[name].value - tuned[name].value
            found[kind] = pairs.estimate(drop, lambda t, b, name=name: b[name] - t[name], [name])  # type: ignore[misc]
    if "bpb" in tuned and "bpb" in base:
        found["gold_bpb_delta"] = _bits(tuned, base, "bpb", "bits", "bytes", pairs)
    for part in CLASSES:
        if f"bpb.{part}" in tuned and f"bpb.{part}" in base:
            found[f"gold_bpb_{part}_delta"] = _bits(tuned, base, f"bpb.{part}", f"bits.{part}", f"bytes.{part}", pairs)
    if all("marker" in one and "strict" in one for one in (tuned, base)):
        found |= _by_format_and_skill(tuned, base, pairs)
    return found


def _by_format_and_skill(tuned: Mapping[str, Score], base: Mapping[str, Score], pairs: "_Pairs") -> dict[str, Estimate | None]:
    names = ["strict", "marker"]
    parts = forgetting_parts(*({name: one[name].value for name in names} for one in (tuned, base)))
    if parts is None:
        return {"format_forgetting": None, "skill_forgetting": None}

    def part(place: int) -> Callable[[Means, Means], float]:
        return lambda t, b: (forgetting_parts(t, b) or (math.nan, math.nan))[place]

    return {
        "format_forgetting": pairs.estimate(parts[0], part(0), names),
        "skill_forgetting": pairs.estimate(parts[1], part(1), names),
    }


def forgetting_parts(tuned: Means, base: Means) -> tuple[float, float] | None:
    """(format, skill): the two parts of (base - tuned) / base, from the shares `strict` and `marker`; None where base is 0."""
    if base["strict"] == 0:
        return None
    given = [one["strict"] / one["marker"] if one["marker"] > 0 else None for one in (tuned, base)]
    if given[1] is None:  # right without its marker: the strict filter of this task does not ask for it
        return None
    q_base = given[1]
    q_tuned = q_base if given[0] is None else given[0]
    by_format = (tuned["marker"] - base["marker"]) * (q_tuned + q_base) / 2
    by_skill = (tuned["marker"] + base["marker"]) / 2 * (q_tuned - q_base)
    return -by_format / base["strict"], -by_skill / base["strict"]


def learning(record: TrialRecord) -> dict[str, Estimate | None]:
    """The metrics under `learning` over the tokens of all sources, without standard errors; none where nothing was measured."""
    parts = list(record.learning.values())
    tokens = sum(part["tokens"] for part in parts)
    if not tokens:
        return {}
    mean = {
        name: sum(part[name] * part["tokens"] for part in parts) / tokens for name in ("loss", "base_loss", "kl", "reverse_kl")
    }
    values = {
        "loss": mean["loss"],
        "gain": mean["base_loss"] - mean["loss"],
        "kl": mean["kl"],
        "reverse_kl": mean["reverse_kl"],
    }
    return {f"learning.{kind}": _finite(value, None) for kind, value in values.items()}


def _bits(
    tuned: Mapping[str, Score], base: Mapping[str, Score], name: str, bits: str, length: str, pairs: "_Pairs"
) -> Estimate | None:
    def per_byte(t: Means, b: Means) -> float:
        return (t[bits] - b[bits]) / b[length] if b[length] else math.nan

    return pairs.estimate(tuned[name].value - base[name].value, per_byte, [bits, length])


class _Pairs:
    """Standard errors by the delta method over a role's documents, each of which both models have answered."""

    def __init__(self, role: str, documents: pd.DataFrame | None, base_documents: pd.DataFrame | None):
        self.role, self.documents, self.base_documents = role, documents, base_documents

    def estimate(self, value: float, function: Callable[[Means, Means], float], names: list[str]) -> Estimate | None:
        """`value` with its standard error as `function` of the means of the columns `names`."""
        if self.documents is None or self.base_documents is None:
            return _finite(value, None)
        found = paired_columns(self.documents, self.base_documents, self.role, names)
        if found is None:
            return _finite(value, None)
        tuned, base = (dict(zip(names, side, strict=True)) for side in found)
        return _finite(value, delta_stderr(function, tuned, base), True)


def delta_stderr(
    function: Callable[[Means, Means], float], tuned: Mapping[str, np.ndarray], base: Mapping[str, np.ndarray]
) -> float:
    """Standard error of function(means of tuned, means of base), the columns of shape (n,) over the same n documents.

    The delta method: the spread over documents of sum_c df/dmean_c * (column_c - mean_c), derivatives by central differences.
    """
    means = [{name: float(values.mean()) for name, values in side.items()} for side in (tuned, base)]
    n = len(next(iter(tuned.values())))
    influence = np.zeros(n)
    for place, side in enumerate((tuned, base)):
        for name, values in side.items():
            step = 1e-5 * max(abs(means[place][name]), 1e-3)
            ends = []
            for sign in (1, -1):
                moved = [dict(one) for one in means]
                moved[place][name] += sign * step
                ends.append(function(moved[0], moved[1]))
            influence += (ends[0] - ends[1]) / (2 * step) * (values - values.mean())
    return float(np.std(influence, ddof=1) / math.sqrt(n))


def _finite(value: float, stderr: float | None, paired: bool = False) -> Estimate | None:
    if not math.isfinite(value):
        return None
    return Estimate(value + 0.0, stderr if stderr is not None and math.isfinite(stderr) else None, paired)
