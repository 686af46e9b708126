"""The sweep's config: read from YAML, checked completely before anything starts, turned into TrialSpecs.

Dotted paths (`lora.rank`, `data.mix.gsm8k`) address everything a trial depends on, in `space` and in `--set`.
"""

import difflib
import math
from collections.abc import Iterator, Mapping, Sequence
from itertools import product
from pathlib import Path
from typing import Annotated, Any, Literal

import yaml
from pydantic import BaseModel, Field, ValidationError, model_validator

from analysis.metrics import metric_names, parse_constraint
from trials.errors import InputError
from trials.spec import Base, Data, Evaluation, Lora, Section, Train, TrialSpec
from trials.yamlfile import Place, YamlFile, explain

Params = Mapping[str, Any]
SPEC_SECTIONS = tuple(TrialSpec.model_fields)


class Categorical(Section):
    type: Literal["categorical"]
    choices: tuple[str | bool | int | float, ...] = Field(min_length=1)

    def grid(self) -> tuple[Any, ...]:
        return self.choices

    def extremes(self) -> tuple[Any, ...]:
        return self.choices

    def probes(self) -> tuple[Any, ...]:
        return self.choices


class _Range(Section):
    @model_validator(mode="after")
    def _ordered(self) -> "_Range":
        low, high, log, step = (getattr(self, name) for name in ("low", "high", "log", "step"))
        if low > high:
            raise ValueError(f"low {low} is above high {high}")
        if log and low <= 0:
            raise ValueError(f"a log range starts above 0, but got low {low}")
        if log and step is not None:
            raise ValueError("a log range has no step")
        return self

    def extremes(self) -> tuple[Any, ...]:
        return (self.low, self.high)  # type: ignore[attr-defined]

    def probes(self) -> tuple[Any, ...]:
        """Values that show whether the setting takes what the range gives: its ends and something between."""
        low, high = self.extremes()
        return (low, high, type(low)(low + 0.381966 * (high - low)))


class Float(_Range):
    type: Literal["float"]
    low: float
    high: float
    log: bool = False
    step: Annotated[float, Field(gt=0)] | None = None

    def grid(self) -> tuple[Any, ...] | None:
        if self.step is None:
            return None
        count = math.floor((self.high - self.low) / self.step + 1e-9) + 1
        return tuple(round(self.low + i * self.step, 12) for i in range(count))


class Int(_Range):
    type: Literal["int"]
    low: int
    high: int
    log: bool = False
    step: Annotated[int, Field(gt=0)] | None = None

    def grid(self) -> tuple[Any, ...] | None:
        return None if self.log else tuple(range(self.low, self.high + 1, self.step or 1))


Parameter = Annotated[Categorical | Float | Int, Field(discriminator="type")]


class Objective(Section):
    metric: str
    """ROLE.value, ROLE.gain, ROLE.drop or ROLE.forgetting."""
    direction: Literal["maximize", "minimize"]


class Search(Section):
    sampler: Literal["tpe", "random", "grid"] = "tpe"
    trials: Annotated[int, Field(ge=1)] | None = None
    """Trials in all, baselines not counted; left out with `grid`, which runs every point."""
    objectives: tuple[Objective, ...] = Field(min_length=1)
    constraints: tuple[str, ...] = ()
    """Such as "math.forgetting <= 0.10"."""
    seed: int = 0


class Resources(Section):
    gpus_per_trial: Annotated[float, Field(ge=0)] = 1.0
    """Where the machines have GPUs; where they have none a trial runs on the CPU."""
    cpus_per_trial: Annotated[int, Field(ge=1)] = 1
    max_concurrent: Annotated[int, Field(ge=1)] | None = None


class SweepConfig(Section):
    name: Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$")]
    base: Base
    data: Data
    lora: Lora = Lora()
    train: Train = Train()
    eval: dict[str, Evaluation] = Field(min_length=1)
    space: dict[str, Parameter] = Field(min_length=1)
    search: Search
    resources: Resources = Resources()
    storage: str = "runs"
    hub_mirror: str | None = None
    """Folder laid out as org/name, read before the hub."""

    def spec(self, params: Params) -> TrialSpec:
        """The trial at one point of the space; raises ValidationError where the point is no valid trial."""
        parts: dict[str, Any] = {name: getattr(self, name) for name in SPEC_SECTIONS}
        dumped = {name: _dump(part) for name, part in parts.items()}
        shares = {}
        for path, value in params.items():
            *parents, last = path.split(".")
            if parents == ["data", "mix"]:
                shares[last] = value
            else:
                inner = dumped
                for parent in parents:
                    inner = inner[parent]
                inner[last] = value
        if shares:
            dumped["data"]["mix"] = remix(self.data.mix, shares)
        return TrialSpec.model_validate(dumped)

    def baseline_specs(self) -> list[TrialSpec]:
        """One per distinct base and evaluation in the space."""
        varied = {path: p.extremes() for path, p in self.space.items() if path.split(".")[0] in ("base", "eval")}
        points = (dict(zip(varied, values, strict=True)) for values in product(*varied.values()))
        return list({spec.key: spec for spec in (self.spec(point).baseline() for point in points)}.values())

    def grid(self) -> Iterator[dict[str, Any]]:
        """Every point of a space whose parameters all have a grid, the last parameter running fastest."""
        for values in product(*(parameter.grid() or () for parameter in self.space.values())):
            yield dict(zip(self.space, values, strict=True))

    @property
    def budget(self) -> int:
        """Trials in all, baselines not counted."""
        if self.search.sampler != "grid":
            assert self.search.trials is not None  # load() saw to it
            return self.search.trials
        size = math.prod(len(parameter.grid() or ()) for parameter in self.space.values())
        return size if self.search.trials is None else min(size, self.search.trials)


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


def load(path: Path, overrides: Sequence[str] = ()) -> SweepConfig:
    """Reads and checks a config; raises InputError with a line `file:line:column: ...` for every problem."""
    file = YamlFile(path)
    for override in overrides:
        _override(file, override)
    config = file.check(SweepConfig)
    problems = [*_space_problems(config), *_search_problems(config)]
    if problems:
        raise InputError("\n".join(dict.fromkeys(f"{file.where(place)}: {text}" for place, text in problems)))
    return config


def _override(file: YamlFile, override: str) -> None:
    path, separator, value = override.partition("=")
    if not separator:
        raise InputError(f"--set {override}: expected PATH=VALUE, such as lora.rank=16")
    *parents, last = _keys(file.data, path)
    inner = file.data
    for parent in parents:
        inner = inner.setdefault(parent, {}) if isinstance(inner, dict) else None
        if not isinstance(inner, dict):
            raise InputError(f"--set {override}: {path} does not lead to a key")
    try:
        inner[last] = YamlFile(Path("--set"), text=f"v: {value}").data["v"]
    except InputError:
        raise InputError(f"--set {override}: {value!r} is not a YAML value") from None
    file.name((*parents, last), f"--set {override}")


def _keys(data: Any, path: str) -> list[str]:
    """The keys that a dotted path leads through; keys of `space` have dots themselves, so the longest known one wins."""
    parts, keys = path.split("."), []
    while parts:
        ends = range(len(parts), 0, -1)
        end = next((end for end in ends if isinstance(data, dict) and ".".join(parts[:end]) in data), 1)
        keys.append(".".join(parts[:end]))
        data = data.get(keys[-1]) if isinstance(data, dict) else None
        parts = parts[end:]
    return keys


def searchable(config: SweepConfig) -> list[str]:
    """Every dotted path that a trial's numbers depend on."""

    def walk(prefix: str, value: Any) -> Iterator[str]:
        if isinstance(value, BaseModel):
            for name in type(value).model_fields:
                yield from walk(f"{prefix}.{name}", getattr(value, name))
        elif isinstance(value, dict) and value:
            for name, inner in value.items():
                yield from walk(f"{prefix}.{name}", inner)
        else:
            yield prefix

    return sorted(path for section in SPEC_SECTIONS for path in walk(section, getattr(config, section)))


def _space_problems(config: SweepConfig) -> Iterator[tuple[Place, str]]:
    known = searchable(config)
    for path, parameter in config.space.items():
        place = ("space", path)
        if path not in known:
            near = difflib.get_close_matches(path, known, n=1)
            hint = f"did you mean {near[0]!r}?" if near else f"paths start with {', '.join(SPEC_SECTIONS)}"
            if path.startswith("data.mix."):
                hint = f"name the source in data.mix too; there are {', '.join(config.data.mix)}"
            yield place, f"space: no setting {path!r}; {hint}"
            continue
        if path.split(".")[0] in ("base", "eval") and not isinstance(parameter, Categorical):
            yield place, f"space: {path} needs its own baseline for each value, so it takes `type: categorical` alone"
        if config.search.sampler == "grid" and parameter.grid() is None:
            yield place, f"space: the grid sampler needs choices or a step for {path}"
        for value in parameter.probes():
            if problem := _invalid(config, {path: value}):
                yield place, f"space: {path} = {value!r}: {problem}"
                break
    tops = [max(p.extremes()) for path, p in config.space.items() if path.startswith("data.mix.") and path in known]
    if len(tops) > 1 and sum(tops) > 1 + 1e-9:
        yield ("space",), f"space: the largest shares of data.mix add up to {sum(tops):g}, more than 1"


def _invalid(config: SweepConfig, params: Params) -> str | None:
    try:
        config.spec(params)
    except ValidationError as error:
        return explain(error.errors()[0], TrialSpec)
    except (ValueError, TypeError) as error:
        return str(error)
    return None


def _search_problems(config: SweepConfig) -> Iterator[tuple[Place, str]]:
    known = metric_names(list(config.eval))
    if config.search.sampler != "grid" and config.search.trials is None:
        yield ("search",), f"search.trials: how many trials? Only the grid sampler knows by itself, not {config.search.sampler}"
    for i, objective in enumerate(config.search.objectives):
        if problem := _metric_problem(objective.metric, config, known):
            yield ("search", "objectives", i, "metric"), f"search.objectives: {problem}"
    for i, text in enumerate(config.search.constraints):
        try:
            problem = _metric_problem(parse_constraint(text).metric, config, known)
        except InputError as error:
            problem = str(error)
        if problem:
            yield ("search", "constraints", i), f"search.constraints: {problem}"


def _metric_problem(metric: str, config: SweepConfig, known: Sequence[str]) -> str | None:
    if metric in known:
        return None
    role = metric.partition(".")[0]
    if role not in config.eval:
        return f"{metric!r} names a role that is not evaluated; eval has {', '.join(config.eval)}"
    return f"no metric {metric!r}; there are {', '.join(name for name in known if name.startswith(role + '.'))}"


def resolved(config: SweepConfig) -> str:
    """The config with every default written out, as YAML."""
    return yaml.safe_dump(config.model_dump(mode="json"), sort_keys=False, allow_unicode=True)
