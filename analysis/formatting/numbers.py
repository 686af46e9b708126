"""Numbers for readers: a value with its 95 % interval, a probability, a p-value, a duration, a size."""

import math
from collections.abc import Mapping
from typing import Any

from analysis.formatting import labels
from analysis.formatting.table import Beside
from analysis.results import schema as col

RESOLUTION = 0.01  # of a probability: the number of draws resolves no more


def value(row: Mapping[Any, Any], name: str) -> str:
    """ "+12.0", in the metric's unit."""
    return labels.percent(name, row[name])


def interval(row: Mapping[Any, Any], name: str) -> str:
    """ "+3.0 to +21.0"; empty if it is unknown."""
    low, high = row[col.low(name)], row[col.high(name)]
    if not (math.isfinite(low) and math.isfinite(high)):
        return ""
    return f"{labels.percent(name, low)} to {labels.percent(name, high)}"


def estimate(row: Mapping[Any, Any], name: str) -> str:
    """ "+12.0 ± 2.1": one standard error, or "0.0 (−6.7 to +6.7)", the 95 % interval, where no spread was seen."""
    error = row[col.se(name)]
    return str(both(row, name)) if error <= labels.EXACT else labels.percent(name, row[name], error)


def with_error(row: Mapping[Any, Any], name: str) -> str:
    """The estimate, and the standard deviation between replicates if there are any: "+12.0 ± 2.1, sd 1.3"."""
    text, sd = estimate(row, name), row[col.sd(name)]
    return text if math.isnan(sd) else f"{text}, sd {spread(name, sd)}"


def both(row: Mapping[Any, Any], name: str) -> Beside:
    """The value beside its interval."""
    return Beside(value(row, name), interval(row, name))


def corrected(row: Mapping[Any, Any], name: str) -> dict[str, Any]:
    """The metric corrected for selection among many trials, and its ends, as a row of its own."""
    best = col.corrected(name)
    return {name: row[best], col.low(name): row[col.low(best)], col.high(name): row[col.high(best)]}


def spread(name: str, sd: float) -> str:
    """A standard deviation between replicates, in the metric's unit."""
    return f"{labels.scale(name) * sd:.{1 if labels.scale(name) == 100 else 3}f}"


def sentence(row: Mapping[Any, Any], name: str) -> str:
    """ "+12.0 points (95 % interval +3.0 to +21.0)"."""
    text, beside = value(row, name) + labels.unit(name), interval(row, name)
    return f"{text} (95 % interval {beside})" if beside else text


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


def duration(seconds: float | None) -> str:
    """ "8.2 s", "3 min 20 s", "2 h 05 min". An int has no decimals: "8 s"."""
    if seconds is None or math.isnan(seconds):
        return labels.MISSING
    if seconds < 59.95:
        return f"{seconds} s" if isinstance(seconds, int) else f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes:02d} min" if hours else f"{minutes} min {rest:02d} s"
