"""The answer to an ablation as plain data: its effects, the rules applied to them, the verdicts, the figures that show them.

Differences of shares are in shares (0.01 is a point), everything else in its own unit. NaN is an unknown value.
"""

from dataclasses import dataclass
from typing import Literal

from analysis.ablations.questions import FigureSpec, Relation
from analysis.results.sweep import Sweep
from analysis.stats.intervals import LEVEL

RATE = "% of the base's score"


@dataclass(frozen=True)
class Effect:
    """A number that an ablation measures, with its 95 % interval."""

    name: str
    text: str
    unit: str
    """ "points" (of differences of shares), "% of the base's score", "share", "bits a byte" or "nats a token"."""
    value: float
    low: float
    high: float
    stderr: float
    per_seed: tuple[float, ...]
    documents: int
    signed: bool = True
    """False for a size, such as a standard deviation: it has no direction and is never below 0."""


@dataclass(frozen=True)
class Ruling:
    """A rule that was set before the runs, applied to an effect."""

    effect: Effect
    relation: Relation
    """Relation of the effect to the bound; within: between minus and plus the bound."""
    bound: float
    holds: bool | None
    """None if the interval leaves it open."""
    power: float | None
    """The probability that an effect of the size that matters is settled."""
    seeds: int | None
    """Seeds that would settle it; None if no number of seeds does and more documents are needed."""
    level: float = LEVEL
    """Confidence of the applied interval; above the effect's own if several rules could each decide the answer."""


@dataclass(frozen=True)
class Verdict:
    question: str
    answer: Literal["yes", "no", "cannot tell"]
    words: str
    """A sentence or two with the numbers."""
    rulings: tuple[Ruling, ...]
    change: str
    """The result that would change the verdict."""


@dataclass(frozen=True)
class Answer:
    """An ablation on one base: as it was designed, with its results once it has some."""

    name: str
    title: str
    question: str
    why: str
    """The gap in the paper."""
    design: str
    base: str
    figures: tuple[FigureSpec, ...] = ()
    table: tuple[str, ...] = ()
    """The metrics of its table."""
    caveats: tuple[str, ...] = ()
    sweep: Sweep | None = None
    verdicts: tuple[Verdict, ...] = ()
    effects: tuple[Effect, ...] = ()
    """The effects of the verdicts, and others for information."""
    seeds: int = 0
