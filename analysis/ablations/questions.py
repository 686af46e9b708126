"""An ablation's questions and figures as its file holds them: effects, the bounds that decide, the logic of an answer.

`analysis.ablations.effects` computes the effects, `analysis.ablations.decide` applies the rules.
"""

from collections.abc import Iterator, Sequence
from typing import Any, Literal, get_args

from pydantic import BaseModel, ConfigDict, Field, model_validator

from analysis.metrics.names import split_metric
from trials.errors import InputError

Value = bool | int | float | str | None
Selection = dict[str, Value | tuple[Value, ...]]
"""Points of the sweep: dotted path -> value, or several. Derived points are left out unless a path selects them."""
Logic = str | dict[Literal["all", "any", "not"], Any]
"""A rule by name, {all: [...]}, {any: [...]} or {not: ...}."""


class _Model(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, use_attribute_docstrings=True, allow_inf_nan=False)


class Term(_Model):
    """`weight` times the mean of the metric over the cells."""

    metric: str
    cells: Selection = {}
    weight: float = 1.0


class Slope(_Model):
    """The metric's rise over the range of log2 of the setting `over`, at equal `at`.

    It is the coefficient of log2(over), times its range in the cells, in a least-squares fit of the metric by a linear spline
    of `at` and by log2(over), within each seed.
    """

    metric: str
    over: str
    at: str
    cells: Selection = {}


class Beyond(_Model):
    """Mean over the cells of the metric minus the height of the curve through the cells `curve` at the same `at`.

    The curve begins at the untrained base, where a change is 0, and is level beyond its last point. Its points that another one
    beats, with more of `at` and less of the metric, are left out: nobody would choose them, and to lie below them is no merit.
    """

    metric: str
    at: str
    curve: Selection
    cells: Selection


class Spread(_Model):
    """The standard deviation between several metrics of one cell, such as the same benchmark under several few-shot seeds."""

    metrics: tuple[str, ...] = Field(min_length=2)
    cells: Selection = {}


class Groups(_Model):
    """The share of the metric's variance between cells that lies between groups of them.

    It is the intraclass correlation of a one-way layout, with its interval from the F distribution (Shrout and Fleiss 1979,
    case 1).
    """

    metric: str
    path: str
    """The setting by which the cells differ."""
    groups: tuple[tuple[Value, ...], ...] = Field(min_length=2)
    """Its values, by group."""


class Exceeds(_Model):
    """The share of the documents on which the untrained base's margin is larger than the tuned model's shift of it."""

    role: str
    cells: Selection = {}


Form = tuple[Term, ...] | Slope | Beyond | Spread | Groups | Exceeds
Relation = Literal["above", "below", "within"]
_FORMS = ("sum", "slope", "beyond", "spread", "groups", "exceeds")
_RELATIONS: tuple[Relation, ...] = get_args(Relation)


class EffectRule(_Model):
    """A number with its interval and, if it has a bound, the rule that it decides."""

    text: str
    sum: tuple[Term, ...] | None = None
    slope: Slope | None = None
    beyond: Beyond | None = None
    spread: Spread | None = None
    groups: Groups | None = None
    exceeds: Exceeds | None = None
    above: float | None = None
    below: float | None = None
    within: float | None = Field(default=None, gt=0)
    """The rule: the true value is above, below, or closer to 0 than this bound."""
    matters: float | None = Field(default=None, gt=0)
    """The distance from the bound that must not be missed; the power is reported for it."""

    @model_validator(mode="after")
    def _one_form(self) -> "EffectRule":
        if len(self._given(_FORMS)) != 1:
            raise ValueError(f"an effect has exactly one of {', '.join(_FORMS)}")
        bounds = self._given(_RELATIONS)
        if len(bounds) > 1:
            raise ValueError(f"an effect has at most one bound, but got {' and '.join(bounds)}")
        if bounds and self.matters is None:
            raise ValueError("a rule needs `matters`: the distance from its bound that must not be missed")
        for name in self.metrics():
            try:
                role, _ = split_metric(name)
            except InputError as error:
                raise ValueError(str(error)) from None
            if "+" in role:
                raise ValueError(f"{name}: an effect is on one role's metric")
        return self

    def _given(self, names: Sequence[str]) -> list[Any]:
        return [name for name in names if getattr(self, name) is not None]

    @property
    def form(self) -> Form:
        found: Form = getattr(self, self._given(_FORMS)[0])
        return found

    @property
    def _parts(self) -> tuple[Any, ...]:
        return self.form if isinstance(self.form, tuple) else (self.form,)

    def metrics(self) -> list[str]:
        """The metrics that the effect is made of."""
        names = [getattr(part, field, None) for part in self._parts for field in ("metric", "at")]
        return [*(name for name in names if name), *(self.spread.metrics if self.spread else ())]

    def selections(self) -> list[Selection]:
        """The cells that the effect takes; each selection must match some."""
        if self.groups is not None:
            return [{self.groups.path: value} for group in self.groups.groups for value in group]
        return [*(part.cells for part in self._parts), *([self.beyond.curve] if self.beyond else [])]

    @property
    def relation(self) -> Relation | None:
        return next(iter(self._given(_RELATIONS)), None)

    @property
    def bound(self) -> float:
        assert self.relation is not None
        return float(getattr(self, self.relation))


class Words(_Model):
    """The answer in words; {NAME} becomes an effect's value with its interval."""

    yes: str
    no: str
    open: str


class Question(_Model):
    ask: str
    of: tuple[str, ...] | None = None
    """The twins that it applies to (`hub` is the paper's own models); None: all."""
    effects: dict[str, EffectRule] = Field(min_length=1)
    yes: Logic
    """The answer is yes if this holds, no if it does not, and open if open rules leave it undecided."""
    words: Words

    @model_validator(mode="after")
    def _rules_are_known(self) -> "Question":
        rules = {name for name, effect in self.effects.items() if effect.relation is not None}
        for name in leaves(self.yes):
            if name not in rules:
                raise ValueError(f"`yes` names {name!r}, not an effect with a bound; these are {', '.join(sorted(rules))}")
        return self


class FigureSpec(_Model):
    """A figure of a sweep's trials; see `analysis.ablations.figures.draw`."""

    name: str
    title: str
    x: str
    """A dotted path or a metric."""
    y: tuple[str, ...]
    """Metrics: one panel each; a figure of the kind "classes" has one line each."""
    by: tuple[str, ...] = ()
    """Dotted paths: one line for each combination of their values."""
    log: bool = False
    """Whether x is logarithmic."""
    only: dict[str, Any] = {}
    """Dotted path to the value, or the list of values, of the rows shown; null matches rows without one."""
    kind: Literal["lines", "classes", "metrics", "layers"] = "lines"


def leaves(logic: Logic) -> Iterator[str]:
    """The names in it. Raises ValueError if it is no logic."""
    if isinstance(logic, str):
        yield logic
        return
    if len(logic) != 1:
        raise ValueError(f"expected a rule's name or one of all, any, not, but got {logic!r}")
    ((operator, inside),) = logic.items()
    for part in [inside] if operator == "not" else inside:
        yield from leaves(part)


def chances(logic: Logic, yes: int = 1, no: int = 1) -> dict[str, tuple[int, int]]:
    """By rule: the number of rules that could each decide the answer by holding, and by failing, by chance alone.

    Any of k rules makes `any` true, and any of k makes `all` false: each is held to the confidence of one of k (Bonferroni).
    """
    if isinstance(logic, str):
        return {logic: (yes, no)}
    ((operator, inside),) = logic.items()
    if operator == "not":
        return chances(inside, no, yes)
    times = (len(inside), 1) if operator == "any" else (1, len(inside))
    found: dict[str, tuple[int, int]] = {}
    for part in inside:
        for name, (held, failed) in chances(part, yes * times[0], no * times[1]).items():
            before = found.get(name, (1, 1))
            found[name] = (max(held, before[0]), max(failed, before[1]))
    return found


def holds(logic: Logic, rulings: dict[str, bool | None]) -> bool | None:
    """Kleene's three-valued logic; None is open."""
    if isinstance(logic, str):
        return rulings[logic]
    ((operator, inside),) = logic.items()
    if operator == "not":
        found = holds(inside, rulings)
        return None if found is None else not found
    parts = [holds(part, rulings) for part in inside]
    decisive = operator == "any"
    if decisive in parts:
        return decisive
    return None if None in parts else not decisive
