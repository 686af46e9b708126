"""An ablation's answers: its effects reckoned, its rules applied, and what came out told in words with numbers."""

from collections.abc import Mapping, Sequence
from typing import Literal

import numpy as np
from scipy import special

from analysis import told
from analysis.answer import Answer, Effect, FigureSpec, Ruling, Verdict
from analysis.effects import Cells, Reckoned, reckon
from analysis.intervals import reach
from analysis.rules import EffectRule, Question, holds, leaves
from analysis.sweep import Sweep

POWER = 0.8  # of the seeds that are named as enough
_SAID: dict[bool | None, Literal["yes", "no", "cannot tell"]] = {True: "yes", False: "no", None: "cannot tell"}
_MOST = 200  # seeds; more are not asked for


def answer(
    sweep: Sweep,
    questions: Sequence[Question],
    *,
    name: str,
    title: str,
    question: str,
    why: str,
    design: str,
    base: str,
    figures: Sequence[FigureSpec] = (),
    table: Sequence[str] = (),
    caveats: Sequence[str] = (),
) -> Answer:
    """What an ablation's sweep says to its questions; to those whose cells are not there it says that it cannot tell."""
    cells = Cells(sweep)
    verdicts, effects = [], []
    for one in questions:
        found = {key: reckon(cells, key, rule) for key, rule in one.effects.items()}
        verdicts.append(judge(one, found, cells.seeds))
        effects += [reckoned.effect for reckoned in found.values()]
    failed = int((sweep.trials["state"] == "failed").sum())
    missing = [f"{failed} of {len(sweep.trials)} points failed and are left out."] if failed else []
    return Answer(
        name=name,
        title=title,
        question=question,
        why=why,
        design=design,
        base=base,
        sweep=sweep,
        verdicts=tuple(verdicts),
        effects=tuple(effects),
        figures=tuple(figures),
        table=tuple(table),
        seeds=cells.seeds,
        caveats=(*caveats, *missing),
    )


def judge(question: Question, found: Mapping[str, Reckoned], seeds: int) -> Verdict:
    rulings = {key: rule_on(found[key], rule, seeds) for key, rule in question.effects.items() if rule.relation is not None}
    truth = holds(question.yes, {key: ruling.holds for key, ruling in rulings.items()})
    said, words = _SAID[truth], {True: question.words.yes, False: question.words.no, None: question.words.open}[truth]
    answered = words.format(**{key: _told(reckoned.effect) for key, reckoned in found.items()})
    decisive = [rulings[key] for key in dict.fromkeys(leaves(question.yes))]
    if truth is None:
        answered = f"{answered} {needed(decisive, seeds)}"
    return Verdict(question.ask, said, answered, tuple(rulings.values()), change(truth, decisive))


def rule_on(reckoned: Reckoned, rule: EffectRule, seeds: int) -> Ruling:
    """The rule holds where the whole interval keeps it, does not where the whole interval breaks it, and is open between."""
    effect, relation, bound = reckoned.effect, rule.relation, rule.bound
    assert relation is not None and rule.matters is not None
    if np.isnan(effect.value):
        return Ruling(effect, relation, bound, None, None, None)
    kept, broken = _sides(relation, effect.low, effect.high, bound)
    decided = True if kept else False if broken else None
    if not reckoned.decides:
        decided = None
    if np.isnan(effect.stderr):  # not of documents and seeds, so neither of them can be counted
        return Ruling(effect, relation, bound, decided, None, None)
    power = _power(rule.matters, *reckoned.error(max(seeds, 2))) if reckoned.decides else 0.0
    return Ruling(
        effect, relation, bound, decided, power, None if decided is not None else _enough(reckoned, relation, bound, seeds)
    )


def _sides(relation: str, low: float, high: float, bound: float) -> tuple[bool, bool]:
    if relation == "above":
        return low > bound, high <= bound
    if relation == "below":
        return high < bound, low >= bound
    return -bound < low and high < bound, low >= bound or high <= -bound


def _power(distance: float, stderr: float, freedom: float) -> float:
    """Probability that a true value this far from the bound leaves the bound outside of its interval (noncentral t)."""
    if stderr == 0:
        return 1.0
    return 1.0 - float(special.nctdtr(freedom, distance / stderr, float(reach(freedom))))


def _enough(reckoned: Reckoned, relation: str, bound: float, seeds: int) -> int | None:
    """The fewest seeds, more than there are, that would decide in four of five cases if the true value were what was found."""
    value = reckoned.effect.value
    distance = abs(value - bound) if relation != "within" else abs(abs(value) - bound)
    more = range(seeds + 1, _MOST + 1)
    return next((n for n in more if _power(distance, *reckoned.error(n)) >= POWER), None)


def _told(effect: Effect) -> str:
    """ "−1.2 points (−2.0 to −0.4)"."""
    value, interval = told.effect(effect)
    return f"{value} ({interval})" if interval else "unknown"


def needed(rulings: Sequence[Ruling], seeds: int) -> str:
    """What would let the open rules be decided."""
    left = [ruling for ruling in rulings if ruling.holds is None]
    if any(np.isnan(ruling.effect.value) for ruling in left):
        return (
            "Trials that it needs are missing, and the same command again runs them; or it asks for shares of a score of 0, "
            "which there are none of."
        )
    if all(np.isnan(ruling.effect.stderr) for ruling in left):  # of neither documents nor seeds
        return "More bases would settle it, not more seeds."
    counts = [ruling.seeds for ruling in left]
    known = [count for count in counts if count is not None]
    if not known or len(known) < len(counts):
        several = f" (for {len(known)} of {len(counts)} open rules {max(known) - seeds} more would)" if known else ""
        return f"More seeds alone would not settle it if the effects are what they look like{several}: more documents must."
    more = max(known) - seeds
    return f"It needs {more} more seed{'s' * (more > 1)} ({max(known)} in all) if the effects are what they look like."


def change(truth: bool | None, rulings: Sequence[Ruling]) -> str:
    """What would change the verdict: the rules that it rests on, and how far they are from turning."""
    rests = [ruling for ruling in rulings if ruling.holds is not None and not np.isnan(ruling.effect.value)]
    if truth is None or not rests:
        return "Any of the open rules, once it is decided."
    nearest = min(rests, key=lambda ruling: _margin(ruling))
    return (
        f"The rule that is nearest to turning asks for {nearest.effect.text} to be {told.asked(nearest)}, and found "
        f"{_told(nearest.effect)}. An interval that holds the bound would leave it open."
    )


def _margin(ruling: Ruling) -> float:
    """How far the interval is from its bound, in half its width."""
    effect, bound = ruling.effect, ruling.bound
    ends = [abs(abs(end) - bound) if ruling.relation == "within" else abs(end - bound) for end in (effect.low, effect.high)]
    return min(ends) / max(effect.high - effect.low, 1e-12)
