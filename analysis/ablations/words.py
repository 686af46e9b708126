"""The sentences of an ablation's answer: effects with their intervals, rules, and what would settle or change a verdict."""

import math
from collections import Counter
from collections.abc import Sequence

from analysis.ablations.answer import RATE, Answer, Effect, Ruling
from analysis.formatting import labels, numbers
from analysis.formatting.table import Beside
from analysis.stats.intervals import LEVEL

POWER = (
    "Power: the probability that an effect of the size that matters is settled with these seeds and documents. "
    "Values are means over seeds, with 95 % intervals over documents and seeds."
)


def number(unit: str, value: float, signed: bool = True) -> str:
    """ "+1.2" points of a share, "−0.031" bits; a dash if it is unknown, no sign at 0."""
    if not math.isfinite(value):
        return labels.MISSING
    factor, digits = {"points": (100.0, 1), RATE: (100.0, 1), "share": (1.0, 2)}.get(unit, (1.0, 3))
    return labels.signed(factor * value, digits, signed and unit != "share")


def effect(found: Effect) -> Beside:
    """ "+1.2 points" beside its interval, which is empty if it is unknown."""
    value = number(found.unit, found.value, found.signed)
    if value == labels.MISSING:
        return Beside(value, "")
    low, high = (number(found.unit, end, found.signed) for end in (found.low, found.high))
    interval = "" if labels.MISSING in (low, high) else f"{low} to {high}"
    return Beside(f"{value} {_unit(found)}".rstrip(), interval)


def with_interval(found: Effect) -> str:
    """ "−1.2 points (−2.0 to −0.4)"."""
    shown = effect(found)
    return str(shown) if shown.small else "unknown"


def required(ruling: Ruling) -> str:
    """ "above +2.0 points", "within 0.050 bits a byte of 0"."""
    around = ruling.relation == "within"
    bound = f"{number(ruling.effect.unit, ruling.bound, not around and ruling.effect.signed)} {_unit(ruling.effect)}".rstrip()
    return f"within {bound} of 0" if around else f"{ruling.relation} {bound}"


def _unit(found: Effect) -> str:
    return "" if found.unit == "share" else found.unit


def headline(answers: Sequence[Answer]) -> str:
    """ "12 questions: 5 yes, 3 no, 4 open."."""
    found: Counter[str] = Counter(verdict.answer for answer in answers for verdict in answer.verdicts)
    names = {"yes": "yes", "no": "no", "cannot tell": "open"}
    counted = ", ".join(f"{found[answer]} {name}" for answer, name in names.items() if found[answer])
    total = found.total()
    return f"{total} question{'s' * (total != 1)}: {counted}." if total else "No question has an answer yet."


def holding(ruling: Ruling) -> str:
    return {True: "holds", False: "does not hold", None: "open"}[ruling.holds]


def ruling_words(ruling: Ruling, present: int) -> str:
    """The rule, its effect, and what would settle it beyond the `present` seeds."""
    parts = [f"{ruling.effect.text}, required to be {required(ruling)}: {effect(ruling.effect)}."]
    if ruling.level > LEVEL:
        parts.append(f"Several rules could each decide, so its {100 * ruling.level:.1f} % interval is applied.")
    if ruling.power is not None:
        parts.append(f"Power {numbers.probability(ruling.power)}.")
    if ruling.holds is None:
        parts.append(needed([ruling], present))
    return " ".join(parts)


def seeds(count: int) -> str:
    return f"{count} seed{'s' * (count != 1)}"


def needed(rulings: Sequence[Ruling], present: int) -> str:
    """Seeds, documents, bases or trials that would decide the open rules."""
    left = [ruling for ruling in rulings if ruling.holds is None]
    # in this order: nothing else helps while trials are missing
    if any(math.isnan(ruling.effect.value) for ruling in left):
        return (
            "Trials are missing (the same command runs them), or the effect is a share of a base's score "
            "that is within ten standard errors of 0."
        )
    if all(math.isnan(ruling.effect.stderr) for ruling in left):
        return "More bases would settle it, not more seeds."
    known = [ruling.seeds for ruling in left if ruling.seeds is not None]
    if len(known) < len(left):
        some = f" (for {len(known)} of {len(left)} open rules {max(known) - present} more would)" if known else ""
        return f"More seeds alone would not settle it if the effects are as estimated{some}: it needs more documents."
    more = seeds(max(known) - present).replace(" ", " more ")
    return f"It needs {more} ({max(known)} in all) if the effects are as estimated."


def change(truth: bool | None, rulings: Sequence[Ruling]) -> str:
    """The result that would change the verdict: another one for the decided rule closest to its bound."""
    decided = [ruling for ruling in rulings if ruling.holds is not None and not math.isnan(ruling.effect.value)]
    if truth is None or not decided:
        return "Any of the open rules, once it is decided."
    nearest = min(decided, key=_margin)
    return (
        f"The rule closest to turning requires {nearest.effect.text} to be {required(nearest)}; the estimate is "
        f"{with_interval(nearest.effect)}. An interval that includes the bound would leave it open."
    )


def _margin(ruling: Ruling) -> float:
    """Distance between interval and bound, in widths of the interval."""
    found, bound = ruling.effect, ruling.bound
    ends = [abs(abs(end) - bound) if ruling.relation == "within" else abs(end - bound) for end in (found.low, found.high)]
    # effects of different units are compared by their own precision
    return min(ends) / max(found.high - found.low, 1e-12)
