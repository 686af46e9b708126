"""An ablation's answers: effects are estimated, rules applied, verdicts derived."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, Literal

import numpy as np

from analysis.ablations import words
from analysis.ablations.answer import Answer, Ruling, Verdict
from analysis.ablations.cells import Cells
from analysis.ablations.effects import Estimate, estimate
from analysis.ablations.questions import EffectRule, Question, chances, holds, leaves
from analysis.results.sweep import Sweep
from analysis.stats.intervals import LEVEL
from analysis.stats.sample_size import POWER, power

_ANSWERS: dict[bool | None, Literal["yes", "no", "cannot tell"]] = {True: "yes", False: "no", None: "cannot tell"}
_MAX_SEEDS = 200  # the search for a sufficient number ends here


def answer(asked: Answer, sweep: Sweep, questions: Sequence[Question], planned: Sequence[Mapping[str, Any]] = ()) -> Answer:
    """`asked` with the sweep's results. "cannot tell" if cells of the `planned` points are missing."""
    cells = Cells(sweep, planned)
    estimates = [{name: estimate(cells, name, rule) for name, rule in one.effects.items()} for one in questions]
    failed = sweep.states["failed"]
    missing = [f"{failed} of {len(sweep.trials)} points failed and are left out."] if failed else []
    return replace(
        asked,
        caveats=(*asked.caveats, *missing),
        sweep=sweep,
        verdicts=tuple(judge(one, found, cells.seeds) for one, found in zip(questions, estimates, strict=True)),
        effects=tuple(one.effect for found in estimates for one in found.values()),
        seeds=cells.seeds,
    )


def judge(question: Question, found: Mapping[str, Estimate], seeds: int) -> Verdict:
    among = chances(question.yes)
    rules = {name: rule for name, rule in question.effects.items() if rule.relation is not None}
    rulings = {name: rule_on(found[name], rule, seeds, *among.get(name, (1, 1))) for name, rule in rules.items()}
    truth = holds(question.yes, {name: ruling.holds for name, ruling in rulings.items()})
    text = {True: question.words.yes, False: question.words.no, None: question.words.open}[truth]
    text = text.format(**{name: words.with_interval(one.effect) for name, one in found.items()})
    decisive = [rulings[name] for name in dict.fromkeys(leaves(question.yes))]
    if truth is None:
        text = f"{text} {words.needed(decisive, seeds)}"
    return Verdict(question.ask, _ANSWERS[truth], text, tuple(rulings.values()), words.change(truth, decisive))


def rule_on(found: Estimate, rule: EffectRule, seeds: int, held: int = 1, failed: int = 1) -> Ruling:
    """The rule holds if the whole interval keeps it, fails if the whole interval breaks it, and is open otherwise.

    `held` and `failed` are the numbers of rules that could each decide the answer (`questions.chances`); the intervals are
    simultaneous over as many.
    """
    effect, relation, bound = found.effect, rule.relation, rule.bound
    assert relation is not None and rule.matters is not None
    if np.isnan(effect.value):
        return Ruling(effect, relation, bound, None, None, None)
    kept = _sides(relation, *found.interval(held), bound)[0]
    broken = _sides(relation, *found.interval(failed), bound)[1]
    decided = (True if kept else False if broken else None) if found.decides else None
    looks_kept = _sides(relation, effect.value, effect.value, bound)[0]
    # an open rule is held to the confidence of the side that it seems to take
    of = held if decided or (decided is None and looks_kept) else failed
    level = 1 - (1 - LEVEL) / of
    if np.isnan(effect.stderr):  # the variance is not one of documents and seeds, so neither can be counted
        return Ruling(effect, relation, bound, decided, None, None, level)
    inside = relation == "within" and rule.matters <= bound
    # inside a band an effect lies at a distance from both of its bounds
    distances = (rule.matters, 2 * bound - rule.matters) if inside else (rule.matters,)
    # one seed shows no spread; power is then that of two, the fewest that decide
    chance = power(distances, *found.error(max(seeds, 2)), of) if found.decides else 0.0
    sufficient = None if decided is not None else _sufficient(found, relation, bound, seeds, of)
    return Ruling(effect, relation, bound, decided, chance, sufficient, level)


def _sides(relation: str, low: float, high: float, bound: float) -> tuple[bool, bool]:
    """Whether the whole interval keeps the rule, and whether the whole interval breaks it."""
    if relation == "above":
        return low > bound, high <= bound
    if relation == "below":
        return high < bound, low >= bound
    return -bound < low and high < bound, low >= bound or high <= -bound


def _sufficient(found: Estimate, relation: str, bound: float, seeds: int, of: int) -> int | None:
    """The smallest number of seeds, above the present one, that decides with probability POWER if the estimate is true."""
    value = found.effect.value
    distances: tuple[float, ...] = (abs(value - bound),)
    if relation == "within":
        distances = (bound - value, bound + value) if abs(value) < bound else (abs(value) - bound,)
    more = range(seeds + 1, _MAX_SEEDS + 1)
    return next((n for n in more if power(distances, *found.error(n), of) >= POWER), None)
