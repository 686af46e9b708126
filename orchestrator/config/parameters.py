"""Parameters of `space`: choices, ranges, shares of a mix, points of several settings."""

import json
import math
from collections.abc import Sequence
from random import Random
from typing import Annotated, Any, Literal

from pydantic import (
    AfterValidator,
    ConfigDict,
    Discriminator,
    Field,
    JsonValue,
    RootModel,
    Tag,
    field_validator,
    model_validator,
)

from analysis.results.manifest import are_settings
from trials.spec import Section

Value = str | bool | int | float
PAIRED = "_"  # key of the space's list of points
_STEPS = 1_000_000  # of a range, which is enumerated; no sampler needs more


class _Parameter(Section):
    when: dict[str, Value | tuple[Value, ...]] = Field(default_factory=dict)
    """Path of a categorical or paired parameter -> value(s) at which this one varies. Elsewhere it keeps the config's value."""

    def __str__(self) -> str:
        shown = self.model_dump(mode="json", exclude_defaults=True, exclude={"type", "when"})
        conditions = [f"when {path} is {as_text(value)}" for path, value in self.when.items()]
        return ", ".join([f"{name} {as_text(value)}" for name, value in shown.items()] + conditions)

    def spelled(self) -> str:
        """Its spelling in a config."""
        return as_text(self.model_dump(mode="json", exclude_defaults=True))


class Categorical(_Parameter):
    type: Literal["categorical"]
    choices: tuple[Value, ...] = Field(min_length=1)
    """The values to choose from."""

    @field_validator("choices")
    @classmethod
    def _distinct(cls, choices: tuple[Value, ...]) -> tuple[Value, ...]:
        if len(set(choices)) < len(choices):
            raise ValueError(f"a choice stands twice in {as_text(list(choices))}")
        return choices

    def values(self) -> tuple[Any, ...]:
        return self.choices

    def extremes(self) -> tuple[Any, ...]:
        return self.choices

    def probes(self) -> tuple[Any, ...]:
        return self.choices

    def holds(self, value: Any) -> bool:
        return any(value == choice and isinstance(value, bool) == isinstance(choice, bool) for choice in self.choices)

    def nearest(self, value: Any) -> Any:
        """The equal choice, with its own type."""
        return next(choice for choice in self.choices if choice == value)

    def draw(self, random: Random) -> Any:
        return random.choice(self.choices)

    def distance(self, one: Any, other: Any) -> float:
        return float(one != other)


class _Range(_Parameter):
    @model_validator(mode="after")
    def _ordered(self) -> "_Range":
        low, high, log, step = (getattr(self, name) for name in ("low", "high", "log", "step"))
        if low > high:
            raise ValueError(f"low {low} is above high {high}")
        if log and low <= 0:
            raise ValueError(f"a log range starts above 0, but got low {low}")
        if log and step is not None:
            raise ValueError("a log range has no step")
        if step is not None and (high - low) / step > _STEPS:
            raise ValueError(
                f"steps of {step:g} from {low:g} to {high:g} make {(high - low) / step:,.0f} values; take wider ones"
            )
        return self

    def extremes(self) -> tuple[Any, ...]:
        return (self.low, self.high)  # type: ignore[attr-defined]

    def probes(self) -> tuple[Any, ...]:
        """Values to validate the range by: its ends and one between."""
        low, high = self.extremes()
        return (low, high, type(low)(low + 0.381966 * (high - low)))

    def distance(self, one: float, other: float) -> float:
        """As a share of the range, on its scale."""
        low, high = self.extremes()
        scale = math.log if self.log else float  # type: ignore[attr-defined]
        return abs(scale(one) - scale(other)) / ((scale(high) - scale(low)) or 1.0)


class Float(_Range):
    type: Literal["float"]
    low: float
    """Least value."""
    high: float
    """Greatest value."""
    log: bool = False
    """Searches the logarithm: as many trials between 1e-5 and 1e-4 as between 1e-4 and 1e-3."""
    step: Annotated[float, Field(gt=0)] | None = None
    """Only low, low + step, and so on. Default: any value between."""

    def values(self) -> Sequence[float] | None:
        if self.step is None:
            return None
        count = math.floor((self.high - self.low) / self.step + 1e-9) + 1
        return tuple(round(self.low + i * self.step, 12) for i in range(count))

    def holds(self, value: Any) -> bool:
        if isinstance(value, bool) or not isinstance(value, int | float) or not self.low <= value <= self.high:
            return False
        return self.step is None or abs(self.nearest(value) - value) < 1e-9

    def nearest(self, value: float) -> float:
        """The value, or its nearest step."""
        values = self.values()
        if values is None or self.step is None:
            return float(value)
        # a sampler's 0.30000000000000004 is 0.3: another number would be another trial
        return values[min(max(round((value - self.low) / self.step), 0), len(values) - 1)]

    def draw(self, random: Random) -> float:
        if self.log:
            return min(max(math.exp(random.uniform(math.log(self.low), math.log(self.high))), self.low), self.high)
        values = self.values()
        return random.uniform(self.low, self.high) if values is None else random.choice(values)


class Int(_Range):
    type: Literal["int"]
    low: int
    """Least value."""
    high: int
    """Greatest value."""
    log: bool = False
    """Searches the logarithm: as many trials between 1 and 10 as between 10 and 100."""
    step: Annotated[int, Field(gt=0)] | None = None
    """Only low, low + step, and so on. Default: any value between."""

    def values(self) -> Sequence[int]:
        return range(self.low, self.high + 1, self.step or 1)

    def holds(self, value: Any) -> bool:
        return isinstance(value, int) and not isinstance(value, bool) and value in self.values()

    def nearest(self, value: int) -> int:
        return int(value)

    def draw(self, random: Random) -> int:
        if self.log:
            drawn = math.exp(random.uniform(math.log(self.low - 0.5), math.log(self.high + 0.5)))
            return min(max(round(drawn), self.low), self.high)
        return random.randrange(self.low, self.high + 1, self.step or 1)


class Simplex(_Parameter):
    """Shares of several sources of the mix, uniform over the simplex (flat Dirichlet)."""

    type: Literal["simplex"]
    sources: Annotated[tuple[str, ...], Field(min_length=2)] | None = None
    """Sources of `data.mix`, which keep their total share. Default: all."""
    step: Annotated[float, Field(ge=1e-4, le=1)] | None = None
    """Step of each share."""

    @field_validator("sources")
    @classmethod
    def _distinct(cls, sources: tuple[str, ...] | None) -> tuple[str, ...] | None:
        if sources is not None and len(set(sources)) < len(sources):
            raise ValueError(f"a source stands twice in {', '.join(sources)}")
        return sources


Point = Annotated[dict[str, JsonValue], AfterValidator(are_settings)]


class Paired(RootModel[Annotated[tuple[Point, ...], Field(min_length=1)]]):
    """Points whose settings vary together, as one choice."""

    model_config = ConfigDict(frozen=True)

    def __str__(self) -> str:
        return "; ".join(", ".join(f"{path} {as_text(value)}" for path, value in point.items()) for point in self.root)

    def spelled(self) -> str:
        """Its spelling in a config."""
        return as_text(list(self.root))


def _kind(value: Any) -> str | None:
    if isinstance(value, list | tuple | Paired):
        return "paired"
    return value.get("type") if isinstance(value, dict) else getattr(value, "type", None)


Parameter = Annotated[
    Annotated[Categorical, Tag("categorical")]
    | Annotated[Float, Tag("float")]
    | Annotated[Int, Tag("int")]
    | Annotated[Simplex, Tag("simplex")]
    | Annotated[Paired, Tag("paired")],
    Discriminator(_kind),
]


def as_text(value: Any) -> str:
    """A JSON value in YAML's flow style."""
    if isinstance(value, list | tuple):
        return f"[{', '.join(as_text(inner) for inner in value)}]"
    if isinstance(value, dict):
        return f"{{{', '.join(f'{name}: {as_text(inner)}' for name, inner in value.items())}}}"
    return value if isinstance(value, str) else json.dumps(value)
