"""The sweep's config: read from YAML, checked completely before anything starts, turned into TrialSpecs.

Dotted paths (`lora.rank`, `data.mix.gsm8k`) address everything a trial depends on, in `space` and in `--set`.
"""

import functools
import re
from collections.abc import Iterator, Mapping, Sequence
from functools import cached_property
from itertools import islice
from pathlib import Path
from random import Random
from typing import Annotated, Any, Literal
from urllib.parse import parse_qsl, urlsplit

from pydantic import BaseModel, Field, field_validator

from analysis.metrics.names import Objective
from orchestrator import gpu_catalog
from orchestrator.config import shorthand, space, validate
from orchestrator.config.parameters import Parameter, Value
from orchestrator.config.space import Axis
from orchestrator.sweep.pins import Pins
from trials.errors import InputError
from trials.explain import found
from trials.ledger.storage import local
from trials.models import devices
from trials.printable import without_passwords
from trials.spec import Base, Count, Data, Derive, Evaluation, Lora, Section, Train, TrialSpec, plain_roles
from trials.yaml_file import YamlFile, dump

Params = Mapping[str, Any]
SPEC_SECTIONS = tuple(name for name in TrialSpec.model_fields if name != "derive")
_CORNERS = 2_000  # of a space; they double with each setting
COUNTABLE = 10_000  # points of a space that are looked at one by one; a second's work
Positive = Annotated[float, Field(gt=0)]


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
        return all(
            functools.reduce(lambda inner, name: inner[name], shorthand.path_of(path), dumped) == of
            for path, of in self.of.items()
        )

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
            *parents, last = shorthand.path_of(path)
            if parents == ["data", "mix"]:
                shares[last] = value
            else:
                inner = dumped
                for parent in parents:
                    inner = inner[parent]
                inner[last] = value
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
        points = space.corners(self._touching(varied), {})
        kept = ({path: value for path, value in point.items() if path.startswith(varied)} for point in points)
        return list({spec.key: spec for spec in (self.spec(point).baseline() for point in kept)}.values())

    def corners(self, prefixes: Sequence[str], fixed: Params | None = None) -> Iterator[dict[str, Any]]:
        """Valid points at the extremes of the settings under these prefixes alone, large numbers first, of so many as can be
        looked at; a setting in `fixed` has this value."""
        points = islice(space.corners(self._touching(tuple(prefixes)), fixed or {}), _CORNERS)
        return (point for point in points if self.valid(point))

    def _touching(self, prefixes: tuple[str, ...]) -> tuple[Axis, ...]:
        """The axes of settings under these prefixes, with those that decide whether they are active."""
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


def load(path: Path, overrides: Sequence[str] = (), gpu: str | None = None) -> SweepConfig:
    """Reads and checks a config; raises InputError with a line `file:line:column: ...` for every problem.

    `gpu` names the kind that the trials will have, for base.dtype auto; None leaves it to resources and this machine.
    """
    file = YamlFile(path)
    _take_base(file)
    for override in overrides:
        _override(file, override)
        _take_base(file)
    config = file.check(SweepConfig)
    problems = list(validate.problems(config))
    if problems:
        raise InputError("\n".join(dict.fromkeys(f"{file.where(place)}: {text}" for place, text in problems)))
    return settled(config, gpu)


def settled(config: SweepConfig, gpu: str | None = None) -> SweepConfig:
    """The config with the type that base.dtype auto stands for."""
    if config.base.dtype != "auto":
        return config
    dtype = devices.half_type(_capability(config.resources, gpu))
    return config.model_copy(update={"base": config.base.model_copy(update={"dtype": dtype})})


def _capability(resources: Resources, gpu: str | None) -> devices.Capability | None:
    """Of the GPU that trials will have; None where they have none or a newer one. torch is loaded where a GPU is here alone."""
    if not resources.gpus_per_trial:
        return None
    if named := gpu or resources.accelerator_type:
        return gpu_catalog.before_bfloat16(named)
    return devices.capability() if gpu_catalog.local() else None


def _take_base(file: YamlFile) -> None:
    """A base that is a text names a file whose base it is, beside the config or in the working directory."""
    named = file.data.get("base")
    if not isinstance(named, str):
        return
    written = local(named, f"{file.where(('base',))}: base")
    places = [Path(file.path).parent / written, written]
    try:
        found = next((place for place in places if place.is_file()), None)
    except OSError as error:
        raise InputError(f"{file.where(('base',))}: base: no name of a file: {error.strerror}") from None
    if found is None:
        folders = " nor ".join(str(folder) for folder in dict.fromkeys(str(place.parent) for place in places))
        raise InputError(
            f"{file.where(('base',))}: base: no file {named!r}; it is neither in {folders}. A hub id goes into base.model"
        )
    other = YamlFile(found)
    if not isinstance(other.data.get("base"), dict):
        raise InputError(f"{file.where(('base',))}: base: {found} has no section `base`")
    file.take("base", other)


def _override(file: YamlFile, override: str) -> None:
    path, separator, value = override.partition("=")
    shown = without_passwords(override)
    if path == "search.study" or "://" in value:  # a password may stand in it in a form that nobody foresaw
        shown = f"{path}=***"
    shown = shown if len(shown) < 100 else f"{shown[:97]}..."
    if not separator or "" in path.split("."):
        raise InputError(f"--set {shown}: expected PATH=VALUE, such as lora.rank=16")
    *parents, last = _keys(file.data, path)
    inner = file.data
    for parent in parents:
        if parents[0] == "eval" and isinstance(inner, dict) and isinstance(inner.get(parent), str):
            inner[parent] = {"preset": inner[parent]}
        inner = inner.setdefault(parent, {}) if isinstance(inner, dict) else None
        if not isinstance(inner, dict):
            raise InputError(f"--set {shown}: {path} does not lead to a key")
    try:
        inner[last] = YamlFile(Path("--set"), text=f"v: {value}").data["v"]
    except InputError as error:
        why = str(error).partition("not YAML: ")[2]
        raise InputError(f"--set {shown}: not a YAML value: {why}") from None
    file.name((*parents, last), f"--set {shown}")


_PARAMETER_KEYS = {"type", "choices", "low", "high", "log", "step", "when", "sources"}


def _keys(data: Any, path: str) -> list[str]:
    """The keys that a dotted path leads through; keys of `space` have dots themselves, so the longest known one wins."""
    parts, keys = path.split("."), []
    if path.startswith("space.") and not any(path.startswith(f"space.{known}") for known in data.get("space") or ()):
        inside = parts[1:-1] if parts[-1] in _PARAMETER_KEYS else parts[1:]
        return ["space", ".".join(inside), *parts[1 + len(inside) :]]
    while parts:
        ends = range(len(parts), 0, -1)
        end = next((end for end in ends if isinstance(data, dict) and ".".join(parts[:end]) in data), 1)
        keys.append(".".join(parts[:end]))
        data = data.get(keys[-1]) if isinstance(data, dict) else None
        parts = parts[end:]
    return keys


def resolved(config: SweepConfig) -> str:
    """The config with every default written out, as YAML."""
    return dump(config.model_dump(mode="json"))
