"""What an ablation found: effects, rulings on them, verdicts, and all that its written answer shows."""

from dataclasses import dataclass, field
from typing import Any, Literal

from analysis.sweep import Sweep


@dataclass(frozen=True)
class Effect:
    name: str
    text: str
    unit: str
    value: float
    low: float
    high: float
    stderr: float
    per_seed: tuple[float, ...]
    documents: int


@dataclass(frozen=True)
class Ruling:
    effect: Effect
    relation: Literal["above", "below", "within"]
    bound: float
    holds: bool | None
    power: float | None
    seeds: int | None


@dataclass(frozen=True)
class Verdict:
    question: str
    answer: Literal["yes", "no", "cannot tell"]
    words: str
    rulings: tuple[Ruling, ...]
    change: str


@dataclass(frozen=True)
class FigureSpec:
    name: str
    title: str
    x: str
    y: tuple[str, ...]
    by: tuple[str, ...] = ()
    log: bool = False
    only: dict[str, Any] = field(default_factory=dict)
    kind: Literal["lines", "classes", "metrics", "layers"] = "lines"


@dataclass(frozen=True)
class Answer:
    name: str
    title: str
    question: str
    why: str
    design: str
    base: str
    sweep: Sweep | None
    verdicts: tuple[Verdict, ...]
    effects: tuple[Effect, ...]
    figures: tuple[FigureSpec, ...]
    table: tuple[str, ...]
    seeds: int
    caveats: tuple[str, ...]
