"""What an ablation comes to, as plain data: effects, the rules applied to them, verdicts, and the figures that show them.

`analysis.ablations.decide` reads sweeps into an `Answer`; `analysis.ablations.page` writes it down. Differences of shares are
in shares (0.01 is a point), all else in its own unit; NaN stands for what is not known.
"""

from dataclasses import dataclass, field
from typing import Any, Literal

from analysis.results.sweep import Sweep
from analysis.stats.intervals import LEVEL

RATE = "% of the base's score"


@dataclass(frozen=True)
class Effect:
    """A number that an ablation was run for, and how sure it is."""

    name: str
    text: str
    """What it is, in words."""
    unit: str
    """ "points" (of differences of shares), "% of the base's score", "share", "bits a byte" or "nats a token"."""
    value: float
    low: float
    """`low` to `high` is the 95 % interval."""
    high: float
    stderr: float
    per_seed: tuple[float, ...]
    documents: int
    signed: bool = True
    """False for a size, such as a standard deviation: it has no direction and is never below 0."""


@dataclass(frozen=True)
class Ruling:
    """A rule that was set before the runs, held against an effect."""

    effect: Effect
    relation: Literal["above", "below", "within"]
    """Of the effect to the bound; within: between minus and plus the bound."""
    bound: float
    holds: bool | None
    """None where the interval leaves it open."""
    power: float | None
    """The probability that an effect of the size that matters would have been settled."""
    seeds: int | None
    """Seeds that would settle it; None where no number of seeds would and more documents must."""
    level: float = LEVEL
    """Of the interval that it was held against: above the effect's own where several rules could each decide the answer."""


@dataclass(frozen=True)
class Verdict:
    """A question and the answer that its rulings give."""

    question: str
    answer: Literal["yes", "no", "cannot tell"]
    words: str
    """A sentence or two with the numbers."""
    rulings: tuple[Ruling, ...]
    change: str
    """What would change the verdict."""


@dataclass(frozen=True)
class FigureSpec:
    """A figure of a sweep's trials; see `analysis.ablations.figures.draw`."""

    name: str
    title: str
    x: str
    """A dotted path or a metric."""
    y: tuple[str, ...]
    """Metrics: a panel each; of the kind "classes" a line each."""
    by: tuple[str, ...] = ()
    """Dotted paths: a line for each combination of their values."""
    log: bool = False
    """Whether x is logarithmic."""
    only: dict[str, Any] = field(default_factory=dict)
    """Dotted path to the value, or the list of values, of the rows that are shown; None matches rows without one."""
    kind: Literal["lines", "classes", "metrics", "layers"] = "lines"


@dataclass(frozen=True)
class Answer:
    """An ablation on one base, answered."""

    name: str
    title: str
    question: str
    why: str
    """What the paper left open."""
    design: str
    base: str
    sweep: Sweep | None
    verdicts: tuple[Verdict, ...]
    effects: tuple[Effect, ...]
    """Those of the verdicts, and others for information."""
    figures: tuple[FigureSpec, ...]
    table: tuple[str, ...]
    """The metrics of its table."""
    seeds: int
    caveats: tuple[str, ...]
