"""A sweep's config and the TrialSpecs at the points of its space."""

import re
from collections.abc import Iterator, Mapping, Sequence
from functools import cached_property
from itertools import islice
from random import Random
from typing import Annotated, Any, Literal
from urllib.parse import parse_qsl, urlsplit

from pydantic import BaseModel, Field, field_validator

from analysis.metrics.names import Criteria, Objective, parse_constraint
from orchestrator.config import shorthand, space
from orchestrator.config.parameters import Parameter, Value
from orchestrator.config.pins import Pins
from orchestrator.config.space import Axis
from trials import dotted_path
from trials.explain import found
from trials.spec import Base, Count, Data, Derive, Evaluation, Lora, Section, Train, TrialSpec, plain_roles

Params = Mapping[str, Any]
SPEC_SECTIONS = tuple(name for name in TrialSpec.model_fields if name != "derive")
_CORNERS = 2_000  # their number doubles with each setting
COUNTABLE = 10_000  # points of a space that are enumerated; takes a second
Positive = Annotated[float, Field(gt=0)]


GP_OBJECTIVES = 4
"""Beyond that the boxes into which the Gaussian process cuts the space of objectives are too many."""
_GP_TRIALS = 500  # beyond that `auto` takes the sampler whose proposals cost a hundredth of a second


class Search(Section):
    sampler: Literal["auto", "gp", "tpe", "nsga2", "nsga3", "random", "grid"] = "auto"
    """`gp` is a Gaussian process that knows the errors of its measurements. `auto` is `gp` up to four objectives and 500
    trials, else `tpe`. `grid` runs every point in order."""
    trials: Count | None = None
    """Settings to try, without baselines. The sweep ends with the first of `trials`, `gpu_hours` and `hours`."""
    gpu_hours: Positive | None = None
    """Hours of the trials times their GPUs; worker-hours on machines without a GPU."""
    hours: Positive | None = None
    """Wall-clock hours of the commands that ran the sweep."""
    objectives: tuple[Objective, ...] = Field(min_length=1)
    """Metrics to maximise or minimise; gain and forgetting are measured against the baseline."""
    constraints: tuple[str, ...] = ()
    """Such as "math.forgetting <= 0.10"."""
    first: tuple[dict[str, Any], ...] = ()
    """Points to try first, by dotted path; the sampler fills in missing settings."""
    replicates: Annotated[int, Field(ge=1, le=1000)] = 1
    """Runs of each setting, under different seeds."""
    documents: Literal["half", "all"] = "half"
    """Documents of each benchmark that the search sees. `half` keeps the other half for unbiased results."""
    racing: bool = True
    """Gives a trial up after an eighth, a quarter or half of its documents, 30 at least, once the front or the untrained base
    beats it. The probability that a sweep so loses any trial of its front is at most 5 %. A trial that is given up leaves a
    checkpoint and no record; a sweep that proposes it later resumes it. Left out, it is off with sampler grid, and where it
    would be refused: with replicates, with `derive`, where `eval` is searched, where few-shot rows are drawn for each
    document, and for an objective of several roles."""
    warm_start: bool = True
    """A new sweep begins with what the trials of the storage's other sweeps show, as far as they measure the same objectives at
    points of its space. Only `gp` learns from them."""
    multi_fidelity: bool = False
    """Looks at a trial after a part of its training rows and of its documents, and goes on only with those that may be on the
    front. The others are stopped. Needs the sampler `gp`."""
    study: str = "sqlite"
    """`sqlite`, `journal` (a shared file system, several drivers), or postgresql://USER@HOST/DATABASE (several drivers)."""
    seed: Annotated[int, Field(ge=0, lt=2**31)] = 0
    """Seed of the sampler."""

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
        except ValueError:  # a bad bracket or port. The text may hold a password, so it is not shown
            raise ValueError("not a URL; allowed: sqlite, journal, postgresql://USER@HOST/DATABASE") from None
        if url.scheme != "postgresql" or not url.path.strip("/"):
            raise ValueError("allowed: sqlite, journal, postgresql://USER@HOST/DATABASE")
        if secret:
            raise ValueError("a password in a config would be written to the storage; give it by PGPASSWORD or ~/.pgpass")
        return study


class Resources(Section):
    gpus_per_trial: Annotated[float, Field(ge=0)] = 1.0
    """0.25 lets four trials share a GPU. On machines without a GPU a trial runs on the CPU."""
    cpus_per_trial: Count = 1
    """CPU cores of a trial."""
    max_concurrent: Count | None = None
    """Trials at once. Default: as many as the cluster has room for."""
    trials_per_pass: Annotated[int, Field(ge=1, le=1000)] = 1
    """Trials that a worker takes at once. Adapters with the same base, sequence length and batch size are trained in one pass
    (trials/training/multi_adapter.py). The sampler learns from as many results at once."""
    accelerator_type: Annotated[str, Field(min_length=1)] | None = None
    """Ray's name of the required GPU, such as A100 or H100. Default: any."""

    @field_validator("gpus_per_trial")
    @classmethod
    def _whole_above_one(cls, gpus: float) -> float:
        if gpus > 1 and gpus != int(gpus):
            raise ValueError(f"a share of one GPU (such as 0.25) or a whole number of GPUs, but got {gpus:g}")
        return gpus


class Derived(Section):
    """Points derived from each trained adapter without further training. They do not count as trials."""

    strength: tuple[Annotated[float, Field(gt=0.0, le=1.25)], ...] = ()
    """Factors on the adapter's update."""
    shallow: tuple[Annotated[float, Field(ge=0.0, lt=1.0)], ...] = ()
    """Factors on the update of the first block, which rise linearly to 1 at the last one."""
    rank: tuple[Count, ...] = ()
    """Ranks to truncate it to."""
    samples: tuple[Count, ...] = ()
    """Numbers of training rows after which to take it."""
    off: tuple[Literal["q", "k", "v", "first-third", "middle-third", "last-third"], ...] = ()
    """Parts of the network in which to switch it off."""

    of: dict[str, Value] = Field(default={})
    """Derive only from trainings whose settings match these dotted paths. Default: all."""

    def applies(self, spec: TrialSpec) -> bool:
        """Whether points are derived from this training."""
        dumped = spec.model_dump(mode="json")
        return all(dotted_path.read(dumped, path) == value for path, value in self.of.items())

    def points(self) -> list[dict[str, Any]]:
        """Settings of each point, the adapter as trained first; empty if nothing is derived."""
        trained = {name: value for name, value in Derive().model_dump().items() if getattr(self, name)}
        points = [trained]
        for name in trained:
            points += [trained | {name: value} for value in getattr(self, name)]
        distinct = list({tuple(point.values()): point for point in points}.values())
        return [{f"derive.{name}": value for name, value in point.items()} for point in distinct] if trained else []


_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,199}")  # a folder's name: file systems allow 255 bytes, and it gets suffixes


class SweepConfig(Section):
    name: str
    """Name of the sweep, and of its folder in the storage."""
    about: dict[str, Any] = Field(default={})
    """Free notes on the model or the sweep. `plan` shows them; nothing depends on them."""
    base: Base
    """The model that is tuned; or a file whose section `base` is taken."""
    data: Data
    """The training data."""
    lora: Lora = Lora()
    """The adapter."""
    train: Train = Train()
    """The training."""
    eval: dict[str, Evaluation] = Field(min_length=1)
    """The benchmarks, by role."""
    space: dict[str, Parameter] = Field(min_length=1)
    """The settings to search, by dotted path."""
    derive: Derived = Derived()
    """Points derived from each trained adapter."""
    search: Search
    """How the space is searched, and for what."""
    resources: Resources = Resources()
    """What a trial gets of the machines."""
    trackers: tuple[Literal["tensorboard", "mlflow", "wandb"], ...] = ()
    """Trackers that get the trials' curves."""
    storage: Annotated[str, Field(min_length=1)] = "runs"
    """Storage root: a folder, s3://..., gs://...."""
    hub_mirror: str | None = None
    """Folder with subfolders org/name, read before the hub."""
    pins: Pins = Pins()
    """Identities of models and data, set when the sweep begins and kept in sweep.yaml."""

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
        """Axes of the space, parents before children."""
        derived = self.derive.points()
        return space.axes(self.space, self.data.mix) + (space.derived(derived) if derived else ())

    def paths(self) -> list[str]:
        """Every dotted path that a point may set."""
        return [path for axis in self.axes for path in axis.paths]

    def spec(self, params: Params) -> TrialSpec:
        """The trial at a point of the space. Raises ValueError for a point that is no valid trial."""
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
        """The replicates at a point; they differ in their seeds, and the first is `spec(params)`."""
        first = self.spec(params)
        return [_reseeded(first, replicate) for replicate in range(self.search.replicates)]

    def siblings(self, params: Params) -> list[dict[str, Any]]:
        """The other valid points derived from the same training."""
        if not self.derive.applies(self.spec(params)):
            return []
        others = ({**params, **point} for point in self.derive.points())
        return [point for point in others if point != params and self.valid(point)]

    def kept(self, spec: TrialSpec) -> list[int]:
        """Numbers of rows after which this training keeps a copy of its adapter."""
        if spec.is_baseline:
            return []
        return [rows for rows in self.derive.samples if rows <= spec.data.rows and rows % spec.train.batch_size == 0]

    def baseline_specs(self) -> list[TrialSpec]:
        """One for each distinct base and evaluation of the space."""
        varied = ("base.", "eval.")
        points = space.corners(self.touching(varied), {})
        kept = ({path: value for path, value in point.items() if path.startswith(varied)} for point in points)
        return list({spec.key: spec for spec in (self.spec(point).baseline() for point in kept)}.values())

    def corners(self, prefixes: Sequence[str], fixed: Params | None = None) -> Iterator[dict[str, Any]]:
        """Valid points at the extremes of the settings under these prefixes, large numbers first, from the first _CORNERS.
        `fixed` settings keep their value."""
        points = islice(space.corners(self.touching(tuple(prefixes)), fixed or {}), _CORNERS)
        return (point for point in points if self.valid(point))

    def touching(self, prefixes: tuple[str, ...]) -> tuple[Axis, ...]:
        """The axes of settings under these prefixes, with the parents that make them active."""
        return space.with_parents(self.axes, [axis for axis in self.axes if any(p.startswith(prefixes) for p in axis.paths)])

    def valid(self, settings: Params) -> bool:
        """Whether the point is a trial. Settings that are valid alone may contradict each other."""
        try:
            self.spec(settings)
        except ValueError:
            return False
        return True

    def grid(self) -> Iterator[dict[str, Any]]:
        """Every valid point of a finite space, the last parameter running fastest, without derived points."""
        if self._points is not None:
            return map(dict, self._points)
        return filter(self.valid, self._every_point())

    def size(self) -> int | None:
        """Number of points of `grid`; None for a continuous space or one with more than COUNTABLE points."""
        return None if self._points is None else len(self._points)

    @cached_property
    def _points(self) -> tuple[dict[str, Any], ...] | None:
        if any(axis.points() is None for axis in self.axes):
            return None
        points = tuple(islice(self._every_point(), COUNTABLE + 1))
        return None if len(points) > COUNTABLE else tuple(point for point in points if self.valid(point))

    def _every_point(self) -> Iterator[dict[str, Any]]:
        # derived points come with the adapter that they are derived from
        trained = next(iter(self.derive.points()), {})
        varied = [axis for axis in self.axes if not set(axis.paths) & set(trained)]
        return (settings | trained for settings in space.every_point(varied))

    def draw(self, random: Random) -> dict[str, Any]:
        """A random point, uniform in every parameter. It need not be valid."""
        return space.draw(self.axes, random)

    @property
    def criteria(self) -> Criteria:
        """What the search is for. InputError for a constraint that cannot be read."""
        return Criteria(self.search.objectives, tuple(map(parse_constraint, self.search.constraints)))

    @property
    def sampler(self) -> str:
        """The sampler that `search.sampler` stands for."""
        if self.search.sampler != "auto":
            return self.search.sampler
        return "tpe" if len(self.search.objectives) > GP_OBJECTIVES or (self.budget or 0) > _GP_TRIALS else "gp"

    @property
    def budget(self) -> int | None:
        """Settings to try, without baselines; None if only time limits them."""
        return min((limit for limit in (self.size(), self.search.trials) if limit is not None), default=None)


def _reseeded(spec: TrialSpec, by: int) -> TrialSpec:
    data = spec.data.model_copy(update={"seed": spec.data.seed + by})
    return spec.model_copy(update={"data": data, "train": spec.train.model_copy(update={"seed": spec.train.seed + by})})


def _dump(part: Any) -> Any:
    if isinstance(part, BaseModel):
        return part.model_dump(mode="json")
    return {role: evaluation.model_dump(mode="json") for role, evaluation in part.items()}


def remix(mix: Mapping[str, float], shares: Mapping[str, float]) -> dict[str, float]:
    """The mix with some shares set. The other sources divide the rest in their proportions."""
    left = 1.0 - sum(shares.values())
    others = sum(share for name, share in mix.items() if name not in shares)
    if left < -1e-9:
        raise ValueError(f"data.mix: the searched shares add up to {1 - left:g}, more than 1")
    if others == 0 and left > 1e-9:
        raise ValueError("data.mix: no other source has a share that could take the rest")
    return {
        name: round(shares[name] if name in shares else max(left, 0.0) * share / (others or 1.0), 12)
        for name, share in mix.items()
    }
