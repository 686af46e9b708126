"""An ablation's answers: its effects reckoned, its rules applied, and what came out told in words with numbers."""

from collections.abc import Mapping, Sequence
from typing import Any, Literal

import numpy as np
from scipy import special

from analysis.ablations.answer import Answer, Effect, FigureSpec, Ruling, Verdict
from analysis.ablations.effects import Cells, Reckoned, reckon
from analysis.ablations.questions import EffectRule, Question, chances, holds, leaves
from analysis.formatting import numbers
from analysis.results.sweep import Sweep
from analysis.stats.intervals import LEVEL, reach

POWER = 0.8  # of the seeds that are named as enough
_SAID: dict[bool | None, Literal["yes", "no", "cannot tell"]] = {True: "yes", False: "no", None: "cannot tell"}
_MOST = 200  # seeds; more are not asked for


def answer(
    sweep: Sweep,
    questions: Sequence[Question],
    *,
    planned: Sequence[Mapping[str, Any]] = (),
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
    """What an ablation's sweep says to its questions; where cells of the `planned` ones are missing, that it cannot tell."""
    cells = Cells(sweep, planned)
    verdicts, effects = [], []
    for one in questions:
        found = {key: reckon(cells, key, rule) for key, rule in one.effects.items()}
        verdicts.append(judge(one, found, cells.seeds))
        effects += [reckoned.effect for reckoned in found.values()]
    failed = sweep.states["failed"]
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
    among = chances(question.yes)
    rules = {key: rule for key, rule in question.effects.items() if rule.relation is not None}
    rulings = {key: rule_on(found[key], rule, seeds, *among.get(key, (1, 1))) for key, rule in rules.items()}
    truth = holds(question.yes, {key: ruling.holds for key, ruling in rulings.items()})
    said, words = _SAID[truth], {True: question.words.yes, False: question.words.no, None: question.words.open}[truth]
    answered = words.format(**{key: _told(reckoned.effect) for key, reckoned in found.items()})
    decisive = [rulings[key] for key in dict.fromkeys(leaves(question.yes))]
    if truth is None:
        answered = f"{answered} {needed(decisive, seeds)}"
    return Verdict(question.ask, said, answered, tuple(rulings.values()), change(truth, decisive))


def rule_on(reckoned: Reckoned, rule: EffectRule, seeds: int, held: int = 1, failed: int = 1) -> Ruling:
    """The rule holds where the whole interval keeps it, does not where the whole interval breaks it, and is open between.

    The intervals are those of one of `held` and of one of `failed` rules that could each decide the answer (`rules.chances`).
    """
    effect, relation, bound = reckoned.effect, rule.relation, rule.bound
    assert relation is not None and rule.matters is not None
    if np.isnan(effect.value):
        return Ruling(effect, relation, bound, None, None, None)
    kept = _sides(relation, *reckoned.interval(held), bound)[0]
    broken = _sides(relation, *reckoned.interval(failed), bound)[1]
    decided = True if kept else False if broken else None
    if not reckoned.decides:
        decided = None
    of = {True: held, False: failed, None: held if _sides(relation, effect.value, effect.value, bound)[0] else failed}[decided]
    level = 1 - (1 - LEVEL) / of
    if np.isnan(effect.stderr):  # not of documents and seeds, so neither of them can be counted
        return Ruling(effect, relation, bound, decided, None, None, level)
    side = "within" if relation == "within" and rule.matters <= bound else "beyond"
    distances = (rule.matters, 2 * bound - rule.matters) if side == "within" else (rule.matters,)
    power = _power(distances, *reckoned.error(max(seeds, 2)), of) if reckoned.decides else 0.0
    enough = None if decided is not None else _enough(reckoned, relation, bound, seeds, of)
    return Ruling(effect, relation, bound, decided, power, enough, level)


def _sides(relation: str, low: float, high: float, bound: float) -> tuple[bool, bool]:
    if relation == "above":
        return low > bound, high <= bound
    if relation == "below":
        return high < bound, low >= bound
    return -bound < low and high < bound, low >= bound or high <= -bound


def _power(distances: Sequence[float], stderr: float, freedom: float, of: int) -> float:
    """Probability that a true value so far from each of its bounds leaves all of them outside of its interval (noncentral t;
    of two bounds at least, by Bonferroni's inequality)."""
    if stderr == 0:
        return 1.0
    missed = (float(special.nctdtr(freedom, distance / stderr, float(reach(freedom, of)))) for distance in distances)
    return max(1.0 - sum(missed), 0.0)


def _enough(reckoned: Reckoned, relation: str, bound: float, seeds: int, of: int) -> int | None:
    """The fewest seeds, more than there are, that would decide in four of five cases if the true value were what was found."""
    value = reckoned.effect.value
    distances: tuple[float, ...] = (abs(value - bound),)
    if relation == "within":
        distances = (bound - value, bound + value) if abs(value) < bound else (abs(value) - bound,)
    more = range(seeds + 1, _MOST + 1)
    return next((n for n in more if _power(distances, *reckoned.error(n), of) >= POWER), None)


def _told(effect: Effect) -> str:
    """ "−1.2 points (−2.0 to −0.4)"."""
    value, interval = numbers.effect(effect)
    return f"{value} ({interval})" if interval else "unknown"


def needed(rulings: Sequence[Ruling], seeds: int) -> str:
    """What would let the open rules be decided."""
    left = [ruling for ruling in rulings if ruling.holds is None]
    if any(np.isnan(ruling.effect.value) for ruling in left):
        return (
            "Trials that it needs are missing, and the same command again runs them; or it asks for shares of a base's score "
            "that is within ten standard errors of 0."
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
        f"The rule that is nearest to turning asks for {nearest.effect.text} to be {numbers.asked(nearest)}, and found "
        f"{_told(nearest.effect)}. An interval that holds the bound would leave it open."
    )


def _margin(ruling: Ruling) -> float:
    """How far the interval is from its bound, in half its width."""
    effect, bound = ruling.effect, ruling.bound
    ends = [abs(abs(end) - bound) if ruling.relation == "within" else abs(end - bound) for end in (effect.low, effect.high)]
    return min(ends) / max(effect.high - effect.low, 1e-12)
