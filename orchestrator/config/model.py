"""A sweep's config and the TrialSpecs at the points of its space."""

import re
from collections.abc import Iterator, Mapping, Sequence
from functools import cached_property
from itertools import islice
from random import Random
from typing import Annotated, Any, Literal
from urllib.parse import parse_qsl, urlsplit

from pydantic import BaseModel, Field, field_validator

from orchestrator.config import shorthand, space
from orchestrator.config.parameters import Parameter, Value
from orchestrator.config.pins import Pins
from orchestrator.config.space import Axis
from trials import dotted_path
from trials.explain import found
from trials.spec import Base, Count, Data, Derive, Evaluation, Lora, Section, Train, TrialSpec, plain_roles

Params = Mapping[str, Any]
SPEC_SECTIONS = tuple(name for name in TrialSpec.model_fields if name != "derive")
_CORNERS = 2_000  # of a space; they double with each setting
COUNTABLE = 10_000  # points of a space that are looked at one by one; a second's work
Positive = Annotated[float, Field(gt=0)]


class Objective(Section):
    metric: str
    """ROLE.KIND, such as math.forgetting; `analysis.metrics.names` and `analysis.dissect` say what there is."""
    direction: Literal["maximize", "minimize"]


class Search(Section):
    sampler: Literal["tpe", "nsga2", "nsga3", "gp", "random", "grid"] = "tpe"
    """`grid` runs every point in order; `gp` slows down beyond some hundred trials and four objectives."""
    trials: Count | None = None
    """Settings tried in all, baselines not counted. Of `trials`, `gpu_hours` and `hours` the first to end ends the sweep."""
    gpu_hours: Positive | None = None
    """Seconds of the trials times their GPUs, as hours; of workers where the machines have no GPU."""
    hours: Positive | None = None
    """Wall-clock time of the commands that ran the sweep."""
    objectives: tuple[Objective, ...] = Field(min_length=1)
    constraints: tuple[str, ...] = ()
    """Such as "math.forgetting <= 0.10"."""
    first: tuple[dict[str, Any], ...] = ()
    """Points to try first, by dotted path; the sampler fills in what a point leaves out."""
    replicates: Annotated[int, Field(ge=1, le=1000)] = 1
    """Runs of the same setting under several seeds."""
    documents: Literal["half", "all"] = "half"
    """What the search sees of each benchmark. With `half` results are quoted on the other half, which picked nothing."""
    racing: bool = False
    """Gives a trial up after an eighth, a quarter or half of its documents where the front so far beats it with a probability
    of 99 %. It leaves no record; what it has done is kept, and a sweep that asks for it later goes on from there."""
    study: str = "sqlite"
    """`sqlite`, `journal` (a shared file system, several drivers), or postgresql://USER@HOST/DATABASE (several drivers)."""
    seed: Annotated[int, Field(ge=0, lt=2**31)] = 0
    """Of the sampler."""

    @field_validator("objectives", mode="before")
    @classmethod
    def _short_objectives(cls, given: Any) -> Any:
        return shorthand.objectives(given)

    @field_validator("constraints", mode="before")
    @classmethod
    def _short_constraints(cls, given: Any) -> Any:
        return shorthand.constraints(given)

    @field_validator("study")
    @classmethod
    def _study_has_no_password(cls, study: str) -> str:
        if study in ("sqlite", "journal"):
            return study
        try:
            url = urlsplit(study)
            named = [name.lower() for name, _ in parse_qsl(url.query, keep_blank_values=True)]
            # a slash in a password ends what urlsplit takes for the host
            secret = (
                url.password is not None or "@" in url.path or any("password" in name for name in named)
            )  # sslpassword is one too
        except ValueError:  # a bracket or a port that is none; its text may hold a password, so it is not shown
            raise ValueError("not a URL; allowed: sqlite, journal, postgresql://USER@HOST/DATABASE") from None
        if url.scheme != "postgresql" or not url.path.strip("/"):
            raise ValueError("allowed: sqlite, journal, postgresql://USER@HOST/DATABASE")
        if secret:
            raise ValueError("a password in a config would be written to the storage; give it by PGPASSWORD or ~/.pgpass")
        return study


class Resources(Section):
    gpus_per_trial: Annotated[float, Field(ge=0)] = 1.0
    """Where the machines have GPUs; where they have none a trial runs on the CPU. 0.25: four trials share a GPU."""
    cpus_per_trial: Count = 1
    max_concurrent: Count | None = None
    trials_per_pass: Annotated[int, Field(ge=1, le=1000)] = 1
    """Trials that a worker takes at once: it trains their adapters in one pass over the base where they share that, the
    sequence length and the batch size (trials/training/multi_adapter.py). A sampler that learns from results learns from as
    many at once."""
    accelerator_type: Annotated[str, Field(min_length=1)] | None = None
    """Ray's name of the GPU that a trial needs, such as A100 or H100; None takes any."""

    @field_validator("gpus_per_trial")
    @classmethod
    def _whole_above_one(cls, gpus: float) -> float:
        if gpus > 1 and gpus != int(gpus):
            raise ValueError(f"a share of one GPU (such as 0.25) or a whole number of GPUs, but got {gpus:g}")
        return gpus


class Derived(Section):
    """Points that each trained adapter gives without another training; they do not count as trials."""

    strength: tuple[Annotated[float, Field(gt=0.0, le=1.25)], ...] = ()
    """Factors on what the adapter adds."""
    rank: tuple[Count, ...] = ()
    """Ranks that it is truncated to."""
    samples: tuple[Count, ...] = ()
    """Numbers of rows after which it is taken."""
    off: tuple[Literal["q", "k", "v", "first-third", "middle-third", "last-third"], ...] = ()
    """Parts of the network in which it is switched off."""

    of: dict[str, Value] = Field(default={})
    """Only from trainings with these settings, by dotted path; from all when left out."""

    def applies(self, spec: TrialSpec) -> bool:
        """Whether points are derived from this training."""
        dumped = spec.model_dump(mode="json")
        return all(dotted_path.read(dumped, path) == value for path, value in self.of.items())

    def points(self) -> list[dict[str, Any]]:
        """The settings of each, that of the adapter as trained first; empty where nothing is derived."""
        trained = {name: value for name, value in Derive().model_dump().items() if getattr(self, name)}
        points = [trained]
        for name in trained:
            points += [trained | {name: value} for value in getattr(self, name)]
        distinct = list({tuple(point.values()): point for point in points}.values())
        return [{f"derive.{name}": value for name, value in point.items()} for point in distinct] if trained else []


_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,199}")  # a folder's name; file systems take 255 bytes, and it gets endings


class SweepConfig(Section):
    name: str
    about: dict[str, Any] = Field(default={})
    """Whatever is worth knowing of the model or the sweep, in any keys; `plan` shows it, and nothing depends on it."""
    base: Base
    data: Data
    lora: Lora = Lora()
    train: Train = Train()
    eval: dict[str, Evaluation] = Field(min_length=1)
    space: dict[str, Parameter] = Field(min_length=1)
    derive: Derived = Derived()
    search: Search
    resources: Resources = Resources()
    trackers: tuple[Literal["tensorboard", "mlflow", "wandb"], ...] = ()
    """Where the trials' curves are sent as well."""
    storage: Annotated[str, Field(min_length=1)] = "runs"
    hub_mirror: str | None = None
    """Folder laid out as org/name, read before the hub."""
    pins: Pins = Pins()
    """What models and data are, set when the sweep begins; sweep.yaml holds them."""

    @field_validator("name")
    @classmethod
    def _names_a_folder(cls, name: str) -> str:
        if not _NAME.fullmatch(name):
            raise ValueError(
                "expected up to 200 letters a to z, digits, dots, dashes and underscores, a letter or digit first, "
                f"found {found(name)}"
            )
        if name.lower() == "ledger":
            raise ValueError(f"{name!r} is the folder of the records in the storage; take another name")
        return name

    @field_validator("eval")
    @classmethod
    def _plain_roles(cls, roles: dict[str, Evaluation]) -> dict[str, Evaluation]:
        return plain_roles(roles)

    @field_validator("space", mode="before")
    @classmethod
    def _short_space(cls, given: Any) -> Any:
        return shorthand.space(given)

    @cached_property
    def axes(self) -> tuple[Axis, ...]:
        """What the space varies, parents before children."""
        derived = self.derive.points()
        return space.axes(self.space, self.data.mix) + (space.derived(derived) if derived else ())

    def paths(self) -> list[str]:
        """Every dotted path that the settings of a point may hold."""
        return [path for axis in self.axes for path in axis.paths]

    def spec(self, params: Params) -> TrialSpec:
        """The trial at one point of the space; raises ValueError where the point is no valid trial."""
        parts: dict[str, Any] = {name: getattr(self, name) for name in SPEC_SECTIONS}
        dumped = {name: _dump(part) for name, part in parts.items()} | {"derive": {}}
        shares = {}
        for path, value in params.items():
            if path.startswith(f"{dotted_path.MIX}."):
                shares[dotted_path.source_of(path)] = value
            else:
                dotted_path.write(dumped, path, value)
        if shares:
            dumped["data"]["mix"] = remix(self.data.mix, shares)
        return self.pins.into(TrialSpec.model_validate(dumped))

    def specs(self, params: Params) -> list[TrialSpec]:
        """The replicates of the trial at one point, which differ in their seeds; the first is `spec(params)`."""
        first = self.spec(params)
        return [_reseeded(first, replicate) for replicate in range(self.search.replicates)]

    def siblings(self, params: Params) -> list[dict[str, Any]]:
        """The other points that the same training gives; those that contradict it left out."""
        if not self.derive.applies(self.spec(params)):
            return []
        others = ({**params, **point} for point in self.derive.points())
        return [point for point in others if point != params and self.valid(point)]

    def kept(self, spec: TrialSpec) -> list[int]:
        """The numbers of rows after which the training of this spec is to keep a copy of its adapter."""
        if spec.is_baseline:
            return []
        return [rows for rows in self.derive.samples if rows <= spec.data.rows and rows % spec.train.batch_size == 0]

    def baseline_specs(self) -> list[TrialSpec]:
        """One per distinct base and evaluation in the space."""
        varied = ("base.", "eval.")
        points = space.corners(self.touching(varied), {})
        kept = ({path: value for path, value in point.items() if path.startswith(varied)} for point in points)
        return list({spec.key: spec for spec in (self.spec(point).baseline() for point in kept)}.values())

    def corners(self, prefixes: Sequence[str], fixed: Params | None = None) -> Iterator[dict[str, Any]]:
        """Valid points at the extremes of the settings under these prefixes alone, large numbers first, of so many as can be
        looked at; a setting in `fixed` has this value."""
        points = islice(space.corners(self.touching(tuple(prefixes)), fixed or {}), _CORNERS)
        return (point for point in points if self.valid(point))

    def touching(self, prefixes: tuple[str, ...]) -> tuple[Axis, ...]:
        """The axes of settings under these prefixes, with the parents that make them active."""
        return space.with_parents(self.axes, [axis for axis in self.axes if any(p.startswith(prefixes) for p in axis.paths)])

    def valid(self, settings: Params) -> bool:
        """Whether the point is a trial; settings that are each valid may contradict each other."""
        try:
            self.spec(settings)
        except ValueError:
            return False
        return True

    def grid(self) -> Iterator[dict[str, Any]]:
        """The settings of every valid point of a space whose parameters all have a grid, the last parameter running fastest;
        nothing derived is among them."""
        if self._points is not None:
            yield from map(dict, self._points)
        else:
            yield from (settings for settings in self._every_point() if self.valid(settings))

    def size(self) -> int | None:
        """Points of `grid`; None where the space is continuous or has more than COUNTABLE points."""
        return None if self._points is None else len(self._points)

    @cached_property
    def _points(self) -> tuple[dict[str, Any], ...] | None:
        if any(axis.points() is None for axis in self.axes):
            return None
        points = tuple(islice(self._every_point(), COUNTABLE + 1))
        return None if len(points) > COUNTABLE else tuple(point for point in points if self.valid(point))

    def _every_point(self) -> Iterator[dict[str, Any]]:
        """Of adapters as they were trained: what is derived from one comes with it."""
        trained = next(iter(self.derive.points()), {})
        varied = [axis for axis in self.axes if not set(axis.paths) & set(trained)]
        return (settings | trained for settings in space.every_point(varied))

    def draw(self, random: Random) -> dict[str, Any]:
        """The settings of a random point, every value of every parameter as likely as any other; it need not be valid."""
        return space.draw(self.axes, random)

    @property
    def budget(self) -> int | None:
        """Settings to try in all, baselines not counted; None where only time or the space limits them."""
        size = self.size()
        if size is None or self.search.trials is None:
            return size if self.search.trials is None else self.search.trials
        return min(size, self.search.trials)


def _reseeded(spec: TrialSpec, by: int) -> TrialSpec:
    data = spec.data.model_copy(update={"seed": spec.data.seed + by})
    return spec.model_copy(update={"data": data, "train": spec.train.model_copy(update={"seed": spec.train.seed + by})})


def _dump(part: Any) -> Any:
    if isinstance(part, BaseModel):
        return part.model_dump(mode="json")
    return {role: evaluation.model_dump(mode="json") for role, evaluation in part.items()}


def remix(mix: Mapping[str, float], shares: Mapping[str, float]) -> dict[str, float]:
    """The mix with some shares set; the other sources share what is left, in their proportions."""
    left = 1.0 - sum(shares.values())
    others = sum(share for name, share in mix.items() if name not in shares)
    if left < -1e-9:
        raise ValueError(f"data.mix: the searched shares add up to {1 - left:g}, more than 1")
    if others == 0 and left > 1e-9:
        raise ValueError("data.mix: no other source has a share that could take what is left")
    return {
        name: round(shares[name] if name in shares else max(left, 0.0) * share / (others or 1.0), 12)
        for name, share in mix.items()
    }
