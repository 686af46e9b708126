"""Numbers as the report writes them: a value with its 95 % interval, a probability, a p-value."""

import math
from collections.abc import Mapping
from typing import Any

from analysis.ablations.answer import RATE, Effect, Ruling
from analysis.formatting import labels
from analysis.formatting.table import Beside
from analysis.results import schema as col

RESOLUTION = 0.01  # of a probability that is told: the draws behind it resolve no more


def value(row: Mapping[Any, Any], name: str) -> str:
    """ "+12.0", in the metric's unit."""
    return labels.percent(name, row[name])


def interval(row: Mapping[Any, Any], name: str) -> str:
    """ "+3.0 to +21.0"; empty where it is unknown."""
    low, high = row[col.low(name)], row[col.high(name)]
    if not (math.isfinite(low) and math.isfinite(high)):
        return ""
    return f"{labels.percent(name, low)} to {labels.percent(name, high)}"


def with_error(row: Mapping[Any, Any], name: str) -> str:
    """ "+12.0 ± 2.1, sd 1.3": one standard error, and the standard deviation between replicates where there are any."""
    text, sd = labels.percent(name, row[name], row[col.se(name)]), row[col.sd(name)]
    return text if math.isnan(sd) else f"{text}, sd {spread(name, sd)}"


def both(row: Mapping[Any, Any], name: str) -> Beside:
    """The value and, smaller, its interval."""
    return Beside(value(row, name), interval(row, name))


def corrected_value(row: Mapping[Any, Any], name: str) -> str:
    """The metric corrected for having picked the best of many."""
    return labels.percent(name, row[col.corrected(name)])


def corrected(row: Mapping[Any, Any], name: str) -> Beside:
    """The same with its interval."""
    return both(_of_corrected(row, name), name)


def _of_corrected(row: Mapping[Any, Any], name: str) -> dict[str, Any]:
    best = col.corrected(name)
    return {name: row[best], col.low(name): row[col.low(best)], col.high(name): row[col.high(best)]}


def spread(name: str, sd: float) -> str:
    """A standard deviation between replicates, in the metric's unit."""
    return f"{labels.scale(name) * sd:.{1 if labels.scale(name) == 100 else 3}f}"


def sentence(row: Mapping[Any, Any], name: str) -> str:
    """ "+12.0 points (95 % interval +3.0 to +21.0)"."""
    text = value(row, name) + labels.unit(name)
    beside = interval(row, name)
    return f"{text} (95 % interval {beside})" if beside else text


def corrected_sentence(row: Mapping[Any, Any], name: str) -> str:
    """As `sentence`, of the corrected value."""
    return sentence(_of_corrected(row, name), name)


def probability(share: float) -> str:
    """ "62 %", "< 1 %", "> 99 %"."""
    if math.isnan(share):
        return labels.MISSING
    if share < RESOLUTION:
        return "< 1 %"
    return "> 99 %" if share > 1 - RESOLUTION else f"{100 * share:.0f} %"


def p_value(p: float) -> str:
    """ "p = 0.031", "p < 0.001"."""
    return "p < 0.001" if p < 0.001 else f"p = {p:.3f}" if p < 0.1 else f"p = {p:.2f}"


def memory(size: float) -> str:
    """Bytes as "812 MB" or "3.4 GB" (powers of ten)."""
    return f"{size / 1e9:.1f} GB" if size >= 1e9 else f"{size / 1e6:.0f} MB"


def number(unit: str, value: float, signed: bool = True) -> str:
    """Of an effect: "+1.2" points of a share, "−0.031" bits; a dash where it is unknown, no sign at 0."""
    if not math.isfinite(value):
        return labels.MISSING
    factor, digits = {"points": (100.0, 1), RATE: (100.0, 1), "share": (1.0, 2)}.get(unit, (1.0, 3))
    text = f"{factor * value:{'+' if signed and unit != 'share' else ''}.{digits}f}"
    return (text.lstrip("+-") if float(text) == 0 else text).replace("-", "\N{MINUS SIGN}")


def effect(found: Effect) -> tuple[str, str]:
    """The value with its unit, and its interval (empty where that is unknown)."""
    value = number(found.unit, found.value, found.signed)
    if value == labels.MISSING:
        return value, ""
    low, high = (number(found.unit, end, found.signed) for end in (found.low, found.high))
    shown = "" if labels.MISSING in (low, high) else f"{low} to {high}"
    return f"{value} {_unit(found)}".rstrip(), shown


def asked(ruling: Ruling) -> str:
    """ "above +2.0 points", "within 0.050 bits a byte of 0"."""
    around = ruling.relation == "within"
    bound = f"{number(ruling.effect.unit, ruling.bound, not around and ruling.effect.signed)} {_unit(ruling.effect)}".rstrip()
    return f"within {bound} of 0" if around else f"{ruling.relation} {bound}"


def _unit(found: Effect) -> str:
    return "" if found.unit == "share" else found.unit
