"""The files of configs/ablations: frame.yaml, and one file for each ablation."""

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from analysis.ablations.questions import FigureSpec, Question
from trials.spec import Base

Scale = Literal["full", "small"]
Settings = dict[str, Any]
Factors = dict[str, list[Any]]


class _Model(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, use_attribute_docstrings=True, arbitrary_types_allowed=True)


class Twin(_Model):
    """The designs on bases of another size: replacements and changes."""

    bases: dict[str, Base] = {}
    models: dict[str, str | None] = {}
    """Replacement of each base, for ablations over several bases; null leaves the base out."""
    sources: dict[str, str] = {}
    presets: dict[str, Settings] = {}
    """Replacement of each benchmark preset, with the settings beside it."""
    scale: dict[str, float] = {}
    """Dotted path -> factor on each of its values. Rows stay a multiple of the batch."""
    settings: Settings = {}
    """Over the design's own, nested as in a config."""


class Frame(_Model):
    bases: dict[str, Base]
    shapes: dict[str, Settings] = {}
    """Model -> the sizes in its config.json, for plans without that file."""
    settings: Settings
    twins: dict[str, Twin] = {}


class Part(_Model):
    """Changes for the small scale or for a twin."""

    seeds: Annotated[int, Field(ge=1)] | None = None
    arms: dict[str, Factors] | None = None
    derive: Settings | None = None
    settings: Settings = {}
    scale: dict[str, float] = {}


class Ablation(_Model):
    name: Annotated[str, Field(pattern=r"^[a-z0-9]+$")]
    title: str
    question: str
    why: str
    design: str
    bases: dict[str, Settings] = Field(min_length=1)
    """Names in the frame, each with its own settings by dotted path."""
    together: bool = False
    """Compares the bases in one sweep; otherwise each base has a sweep of its own."""
    seeds: Annotated[int, Field(ge=1)] = 3
    settings: Settings = {}
    arms: dict[str, Factors] = Field(min_length=1)
    """Each arm is the product of its factors: dotted path -> levels. Other paths keep their settings."""
    derive: Settings = {}
    small: Part = Part()
    twins: dict[str, Part] = {}
    questions: tuple[Question, ...] = Field(min_length=1)
    figures: tuple[FigureSpec, ...] = ()
    table: tuple[str, ...] = ()
    """Metrics in its table."""
    caveats: tuple[str, ...] = ()
