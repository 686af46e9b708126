"""Names and values of metrics, settings and constraints for readers: in percent, with units, short and unambiguous."""

import math
from collections.abc import Iterable, Sequence
from typing import Any

from analysis.metrics.names import LEARNING, Constraint, split_metric
from trials.ledger.record import TrialRecord

EXACT = 1e-6  # a standard error up to this is 0: no document changed, which is not certainty
SHORT = {
    "learning_rate": "lr",
    "target_modules": "targets",
    "batch_size": "batch",
    "weight_decay": "decay",
    "quantization": "quant",
}
AXIS = {
    "value": "score (%)",
    "base": "base score (%)",
    "gain": "gain (percentage points)",
    "drop": "drop (percentage points)",
    "forgetting": "forgetting (% of the base)",
    "mean_forgetting": "mean forgetting (% of the bases' scores)",
    "worst_forgetting": "worst forgetting (% of the base)",
    "lost": "lost (% of the documents)",
    "won": "won (% of the documents)",
    "lost_adjusted": "lost beyond chance (% of the documents)",
    "won_adjusted": "won beyond chance (% of the documents)",
    "format_forgetting": "forgetting by format (% of the base)",
    "skill_forgetting": "forgetting by skill (% of the base)",
    "marker_drop": "drop of answers with the marker (percentage points)",
    "stopped_drop": "drop of answers that stop (percentage points)",
    "flexible_drop": "drop under the flexible filter (percentage points)",
    "gold_bpb": "gold solution (bits per byte)",
    "gold_bpb_delta": "gold solution, change (bits per byte)",
    **{f"gold_bpb_{part}_delta": f"gold solution's {part}s, change (bits per byte)" for part in ("word", "digit", "operator")},
    "gold_bpb_format_delta": "gold solution's format, change (bits per byte)",
}
LEARNT = {
    "loss": "held-out loss (nats per token)",
    "gain": "held-out loss, gain (nats per token)",
    "kl": "KL from the base (nats per token)",
    "reverse_kl": "reverse KL from the base (nats per token)",
}
MISSING = "\N{EN DASH}"


_NO_SHARES: set[str] = set()
"""Roles whose scores are no shares, such as a perplexity: their numbers have no unit. The sweep that a process has read last
decides on the roles that it has, for a metric's name is all that a table or a figure knows of a metric."""


def learn_scales(records: Iterable[TrialRecord]) -> None:
    """Notes which roles of these records have scores that are no shares, whatever a role of that name had in another sweep."""
    shares: dict[str, bool] = {}
    for record in records:
        for role in record.scores.keys() | record.scales.keys():
            scale = record.scale(role)
            shares[role] = shares.get(role, True) and scale.share and scale.form == "mean"
    for role, is_share in shares.items():
        (_NO_SHARES.discard if is_share else _NO_SHARES.add)(role)


def metric_name(name: str) -> str:
    """ "commonsense.gain" as "commonsense gain", "math.value" as "math score"."""
    return axis(name).split(" (")[0]


def axis(name: str) -> str:
    """The metric with its unit: "commonsense gain (percentage points)"."""
    role, kind = split_metric(name)
    words = (LEARNT if role == LEARNING else AXIS)[kind]
    return f"{role} {words.split(' (')[0] if _unitless(name) else words}"


def is_share(name: str) -> bool:
    """Whether the metric is of a role whose score is a share."""
    return split_metric(name)[0] not in _NO_SHARES


def _unitless(name: str) -> bool:
    return not is_share(name) and split_metric(name)[1] in ("value", "base", "gain", "drop")


def unit(name: str) -> str:
    """The unit after a number: " points" of accuracy for a difference, " %" for a share, " bits/byte", " nats", or none."""
    if _unitless(name):
        return ""
    shorter = {"percentage points": " points", "bits per byte": " bits/byte", "nats per token": " nats"}
    return next((short for long, short in shorter.items() if long in axis(name)), " %")


def column(name: str) -> str:
    """A column's heading: "commonsense gain (points)"."""
    return f"{metric_name(name)} ({unit(name).strip()})" if unit(name) else metric_name(name)


def scale(name: str) -> float:
    """The factor from a value to its number in the shown unit."""
    return 100.0 if unit(name) in (" points", " %") else 1.0


def percent(name: str, value: float | None, stderr: float | None = None, digits: int = 1) -> str:
    """A value in its unit, differences with their sign: "+12.0 ± 2.1"; a dash for an unknown one."""
    if value is None or math.isnan(value):
        return MISSING
    kind, factor = split_metric(name)[1], scale(name)
    digits += 2 if factor == 1 else 0
    text = signed(factor * value, digits, kind.endswith(("gain", "drop", "forgetting", "delta")))
    return f"{text} ± {factor * stderr:.{digits}f}" if stderr is not None and stderr > EXACT else text


def signed(value: float, digits: int, plus: bool = True) -> str:
    """A number with a true minus sign and, if `plus`, a plus sign; 0 has no sign."""
    text = f"{value:{'+' if plus else ''}.{digits}f}"
    return (text.lstrip("+-") if float(text) == 0 else text).replace("-", "\N{MINUS SIGN}")


def constraint_words(constraint: Constraint) -> str:
    """ "math forgetting within 10 %", "commonsense gain at least 2 points"."""
    return _constraint(constraint, "within" if constraint.op == "<=" else "at least")


def constraint_sign(constraint: Constraint) -> str:
    """ "math forgetting ≤ 10 %"."""
    return _constraint(constraint, "≤" if constraint.op == "<=" else "≥")


def _constraint(constraint: Constraint, between: str) -> str:
    bound = f"{scale(constraint.metric) * constraint.bound:.4g}".replace("-", "\N{MINUS SIGN}")
    return f"{metric_name(constraint.metric)} {between} {bound}{unit(constraint.metric)}"


def setting_names(paths: Sequence[str]) -> dict[str, str]:
    """A unique short name for each dotted path: its last word, or as many words as make it unique."""
    names: dict[str, str] = {}
    for words in range(1, 1 + max((path.count(".") + 1 for path in paths), default=0)):
        tails = {path: _tail(path, words) for path in paths if path not in names}
        taken = [*tails.values(), *names.values()]
        names |= {path: tail for path, tail in tails.items() if taken.count(tail) == 1}
    return {path: names.get(path, path) for path in paths}


def _tail(path: str, words: int) -> str:
    *rest, last = path.split(".")[-words:]
    return ".".join([*rest, SHORT.get(last, last)])


def setting(value: Any) -> str:
    """A searched value, short: floats to three digits ("2e-4"), lists joined."""
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return MISSING
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float):
        if 0 < abs(value) < 0.01:
            digits, power = f"{value:.2e}".split("e")
            return f"{digits.rstrip('0').rstrip('.')}e{int(power)}"
        return f"{value:.0f}" if 1000 <= abs(value) < 1e15 else f"{value:.3g}"
    if isinstance(value, (list, tuple)):
        return ",".join(setting(item).removesuffix("_proj") for item in value)
    return str(value)
