"""The paper's ablations: read from configs/ablations, turned into sweeps on a base, and answered from what these left.

An ablation's file holds its question, its design (arms of settings, seeds, bases) and its decision rules; frame.yaml beside it
what all of them share: the bases, the settings, and the twins, which are the same designs for models of another size.
Sweeps of one base share their baseline and every setting that they have in common through the ledger.
"""

import itertools
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from analysis.ablations.answer import Experiment, FigureSpec
from analysis.ablations.cells import matches
from analysis.ablations.questions import Question
from orchestrator.config import validate
from orchestrator.config.load import settled
from orchestrator.config.model import SweepConfig
from trials import dotted_path
from trials.errors import InputError
from trials.spec import Base
from trials.yaml_file import YamlFile

HUB = "hub"  # the twin that is none: the models of the paper
Scale = Literal["full", "small"]
Settings = dict[str, Any]
Factors = dict[str, list[Any]]
_FOLDER = Path("configs") / "ablations"


class _Model(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, use_attribute_docstrings=True, arbitrary_types_allowed=True)


class Twin(_Model):
    """The designs on bases of another size: what stands for what, and what is changed."""

    bases: dict[str, Base] = {}
    models: dict[str, str | None] = {}
    """Of ablations over several bases: the base that stands for a base; without one for it, it is left out."""
    sources: dict[str, str] = {}
    presets: dict[str, Settings] = {}
    """A benchmark's preset and what is set beside it, by the preset that it stands for."""
    scale: dict[str, float] = {}
    """Dotted path -> factor on each of its values. Rows stay a multiple of the batch."""
    settings: Settings = {}
    """Instead of the design's own, nested as in a config."""


class Frame(_Model):
    bases: dict[str, Base]
    shapes: dict[str, Settings] = {}
    """Model -> what its config.json says of its size, for `plan` where that cannot be had."""
    settings: Settings
    twins: dict[str, Twin] = {}


class Part(_Model):
    """What the small scale or a twin has instead."""

    seeds: Annotated[int, Field(ge=1)] | None = None
    arms: dict[str, Factors] | None = None
    derive: Settings | None = None
    settings: Settings = {}
    scale: dict[str, float] = {}


class Figured(_Model):
    name: str
    title: str
    x: str
    y: tuple[str, ...]
    by: tuple[str, ...] = ()
    log: bool = False
    only: dict[str, Any] = {}
    kind: Literal["lines", "classes", "metrics", "layers"] = "lines"


class Ablation(_Model):
    name: Annotated[str, Field(pattern=r"^[a-z0-9]+$")]
    title: str
    question: str
    why: str
    design: str
    bases: dict[str, Settings] = Field(min_length=1)
    """By their names in the frame, each with what is set for it alone, by dotted path."""
    together: bool = False
    """Whether the bases are compared with each other, in one sweep, or each answers for itself."""
    seeds: Annotated[int, Field(ge=1)] = 3
    settings: Settings = {}
    arms: dict[str, Factors] = Field(min_length=1)
    """Each the product of its factors: dotted path -> levels. What an arm does not name is as in the settings."""
    derive: Settings = {}
    small: Part = Part()
    twins: dict[str, Part] = {}
    questions: tuple[Question, ...] = Field(min_length=1)
    figures: tuple[Figured, ...] = ()
    table: tuple[str, ...] = ()
    """Metrics that its table shows."""
    caveats: tuple[str, ...] = ()


@dataclass(frozen=True)
class Planned:
    """An ablation on one base, or on several together."""

    ablation: Ablation
    base: str
    twin: str
    config: SweepConfig
    questions: tuple[Question, ...]
    figures: tuple[FigureSpec, ...]
    notes: tuple[str, ...]
    """What its design, which is told in the paper's sizes, is here."""

    @property
    def experiment(self) -> Experiment:
        texts = self.ablation.model_dump(include={"name", "title", "question", "why", "design", "table"})
        caveats = (*self.notes, *self.ablation.caveats)
        return Experiment(**texts, base=self.base, figures=self.figures, caveats=caveats)

    def points(self) -> list[dict[str, Any]]:
        """The settings of all its points, derived ones included."""
        return [params for point in self.config.grid() for params in (point, *self.config.siblings(point))]


class Ablations:
    """Those of a folder."""

    def __init__(self, folder: Path | None = None):
        """The folder is configs/ablations under the working directory, or of the checkout that this code lies in."""
        checkout = Path(__file__).resolve().parents[2]
        self.folder = folder or next((root / _FOLDER for root in (Path(), checkout) if (root / _FOLDER).is_dir()), _FOLDER)
        self.frame = YamlFile(self.folder / "frame.yaml").check(Frame)
        files = sorted(path for path in self.folder.glob("*.yaml") if path.name != "frame.yaml")
        self._files = {path.stem: path for path in sorted(files, key=lambda path: (path.stem == "paper", path.stem))}

    @property
    def names(self) -> list[str]:
        return list(self._files)

    def read(self, name: str) -> Ablation:
        if name.lower() not in self._files:
            raise InputError(f"ablate: no ablation {name!r}; there are {', '.join(self.names)}, and all")
        file = YamlFile(self._files[name.lower()])
        ablation = file.check(Ablation)
        if ablation.name != name.lower():
            raise InputError(f"{file.where(('name',))}: name: the file's own, {name.lower()!r}, but got {ablation.name!r}")
        for base in ablation.bases:
            if base not in self.frame.bases:
                raise InputError(
                    f"{file.where(('bases', base))}: bases: frame.yaml has {', '.join(self.frame.bases)}; not {base!r}"
                )
        return ablation

    def can(self, name: str, base: str | None) -> bool:
        """Whether the ablation can be run on the base: one that compares bases needs several."""
        compares = self.read(name).together
        return not compares or base is None or (base in self.frame.twins and bool(self.frame.twins[base].models))

    def plan(self, name: str, base: str | None = None, scale: Scale = "full") -> list[Planned]:
        """The sweeps of an ablation: on the bases of its file, on one of them, on a twin's, or on any model (ORG/NAME)."""
        ablation = self.read(name)
        twin, bases = self._bases(ablation, base)
        sized = _sized(ablation, scale, twin)
        where = self._files[ablation.name]
        together = (
            [(twin if twin != HUB else "", bases)] if ablation.together else [(key, {key: one}) for key, one in bases.items()]
        )
        return [self._planned(sized, twin, label, some, scale, where) for label, some in together]

    def _bases(self, ablation: Ablation, base: str | None) -> tuple[str, dict[str, Base]]:
        own = {name: self.frame.bases[name] for name in ablation.bases}
        if base is None:
            return HUB, own
        if base in self.frame.twins:
            twin = self.frame.twins[base]
            if not ablation.together:
                return base, {base: twin.bases[base]}
            if not twin.models:
                raise InputError(f"ablate: {ablation.name} compares bases, and {base} has nothing to compare with")
            models = [twin.models.get(name) for name in own]
            return base, {model: twin.bases[model] for model in dict.fromkeys(models) if model is not None}
        if ablation.together:
            raise InputError(
                f"ablate: {ablation.name} compares bases; --base names a twin ({', '.join(self.frame.twins)}) or is left out"
            )
        if base in self.frame.bases:
            return HUB, {base: self.frame.bases[base]}
        if "/" not in base:
            known = ", ".join([*self.frame.twins, *self.frame.bases])
            raise InputError(f"ablate --base: {base!r} is none of {known}, nor a model's ORG/NAME")
        return HUB, {base.rpartition("/")[2].lower(): Base(model=base)}

    def _planned(
        self, ablation: Ablation, twin: str, label: str, bases: Mapping[str, Base], scale: Scale, where: Path
    ) -> Planned:
        settings = _merged(self.frame.settings, ablation.settings)
        for path, value in ablation.bases.get(label, {}).items():
            dotted_path.write(settings, path, value)
        change = _Change.of(self.frame.twins.get(twin, Twin()), ablation.twins.get(twin, Part()), settings)
        settings = change.settings(settings)
        data = {
            "name": "-".join(part for part in (ablation.name, label, "small" if scale == "small" else "") if part),
            "base": next(iter(bases.values())).model_dump(mode="json"),
            **{key: value for key, value in settings.items() if key not in ("base", "search")},
            "derive": change.derive(ablation.derive),
            "search": {"sampler": "grid", "documents": "all", "replicates": ablation.seeds, **settings["search"]},
        }
        data["base"] |= settings.get("base", {})
        try:
            data["space"] = {"_": list(_points(ablation, data, change, bases))}
            config = SweepConfig.model_validate(data)
        except ValidationError as error:
            first = error.errors(include_url=False)[0]
            raise InputError(f"{where}: {'.'.join(map(str, first['loc']))}: {first['msg']}") from None
        problems = [text for _, text in validate.problems(config)]
        if problems:
            raise InputError("\n".join(f"{where}: {text}" for text in problems))
        asked = [change.question(one) for one in ablation.questions if one.of is None or twin in one.of]
        figures = tuple(change.figure(one) for one in ablation.figures)
        notes = (
            *change.notes(twin),
            *(["In small scale: fewer levels and seeds than the design has."] if scale == "small" else []),
        )
        planned = Planned(ablation, label or twin, twin, settled(config), tuple(asked), figures, notes)
        _check_selections(planned, where)
        return planned


def _sized(ablation: Ablation, scale: Scale, twin: str) -> Ablation:
    """The design with what the scale and the twin have instead; a twin's settings, which nothing scales, come later."""
    own = ablation.twins.get(twin, Part())
    small = [ablation.small] if scale == "small" else []
    for part in [own.model_copy(update={"settings": {}}), *small]:
        changed: Settings = {"settings": _merged(ablation.settings, part.settings)}
        changed |= {name: value for name in ("seeds", "arms", "derive") if (value := getattr(part, name)) is not None}
        ablation = ablation.model_copy(update=changed)
    return ablation


@dataclass(frozen=True)
class _Change:
    """What a twin makes of a design."""

    twin: Twin
    part: Part
    batch: int
    """Rows of an optimiser step, which numbers of rows stay a multiple of."""

    @classmethod
    def of(cls, twin: Twin, part: Part, settings: Settings) -> "_Change":
        batches = [dotted_path.read(one, "train.batch_size") for one in (part.settings, twin.settings, settings)]
        return cls(twin, part, next((batch for batch in batches if batch is not None), 1))

    @property
    def factors(self) -> dict[str, float]:
        return {**self.twin.scale, **self.part.scale}

    def notes(self, twin: str) -> tuple[str, ...]:
        if not self.factors:
            return ()
        told = " and ".join(f"{path} times {factor:g}" for path, factor in self.factors.items())
        return (f"The texts tell the paper's sizes; on {twin} they are other ones: {told}.",)

    def settings(self, settings: Settings) -> Settings:
        changed = _merged(settings, {})
        for path in self.factors:
            if (value := dotted_path.read(changed, path)) is not None:
                dotted_path.write(changed, path, self._scaled(path, value))
        changed = _merged(_merged(changed, self.twin.settings), self.part.settings)
        changed["data"]["mix"] = {self.twin.sources.get(name, name): share for name, share in changed["data"]["mix"].items()}
        changed["eval"] = {role: self._role(one) for role, one in changed["eval"].items()}
        return changed

    def _role(self, role: Settings) -> Settings:
        own = self.twin.presets.get(role.get("preset", ""))
        return role if own is None else {**own, **{name: value for name, value in role.items() if name != "preset"}}

    def value(self, path: str, value: Any) -> Any:
        if isinstance(value, list | tuple):
            return [self.value(path, one) for one in value]
        if path == "data.replay.source":
            return self.twin.sources.get(value, value)
        if path == "base.model":
            return self._model(value)
        return value if value is None or path not in self.factors else self._scaled(path, value)

    def _model(self, value: str) -> str:
        name = self.twin.models.get(value, value) or value
        return self.twin.bases[name].model if name in self.twin.bases else name

    def _scaled(self, path: str, value: float) -> float:
        scaled = value * self.factors[path]
        if not path.endswith("samples"):
            return float(f"{scaled:.6g}")
        return max(round(scaled / self.batch), 1) * self.batch if value else 0

    def path(self, path: str) -> str:
        """Shares of the mix name their source."""
        if path.startswith(f"{dotted_path.MIX}."):
            source = dotted_path.source_of(path)
            return f"{dotted_path.MIX}.{self.twin.sources.get(source, source)}"
        return path

    def derive(self, derive: Settings) -> Settings:
        changed = {name: self.value(f"derive.{name}", some) for name, some in derive.items() if name != "of"}
        of = {self.path(path): self.value(path, value) for path, value in derive.get("of", {}).items()}
        return changed | ({"of": of} if of else {})

    def question(self, question: Question) -> Question:
        """With the cells that stand for its own."""
        return Question.model_validate(self._cells(question.model_dump(exclude_unset=True)))

    def figure(self, figure: Figured) -> FigureSpec:
        only = {self.path(path): self.value(path, value) for path, value in figure.only.items()}
        told = figure.model_dump() | {"only": only, "x": self.path(figure.x), "by": tuple(map(self.path, figure.by))}
        return FigureSpec(**told)

    def _cells(self, value: Any, key: str = "") -> Any:
        if isinstance(value, dict) and key in ("cells", "curve"):
            return {self.path(path): self.value(path, one) for path, one in value.items()}
        if isinstance(value, dict):
            return {name: self._groups(one) if name == "groups" else self._cells(one, name) for name, one in value.items()}
        return [self._cells(one) for one in value] if isinstance(value, list | tuple) else value

    def _groups(self, groups: Settings) -> Settings:
        """Those that a twin has no base for are left out."""
        kept = [[one for one in group if not self.twin.models or one in self.twin.models] for group in groups["groups"]]
        return {**groups, "groups": [[self.value(groups["path"], one) for one in group] for group in kept]}


def _points(ablation: Ablation, data: Settings, change: _Change, bases: Mapping[str, Base]) -> Iterator[Settings]:
    """The points of all arms, each once, with the same paths."""
    arms = []
    for factors in ablation.arms.values():
        levels = {change.path(path): [change.value(path, value) for value in some] for path, some in factors.items()}
        arms += [dict(zip(levels, combination, strict=True)) for combination in itertools.product(*levels.values())]
    paths = list(dict.fromkeys(path for arm in arms for path in arm))
    seen = set()
    for base in bases.values():
        own = {} if len(bases) == 1 else {"base.model": base.model, "base.revision": base.revision}
        for arm in arms:
            point = own | {path: arm[path] if path in arm else _default(data, path) for path in paths}
            if (label := repr(point)) not in seen:
                seen.add(label)
                yield point


def _default(data: Settings, path: str) -> Any:
    """What a setting is where an arm does not name it: the config's, or its section's own default."""
    found = dotted_path.read(data, path, 0.0 if path.startswith(f"{dotted_path.MIX}.") else None)
    if found is not None:
        return found
    inner: Any = SweepConfig
    for name in dotted_path.keys(path):
        field = inner.model_fields[name]
        inner = field.annotation
        default = field.default
    return default


def _check_selections(planned: Planned, where: Path) -> None:
    """Every rule has cells to look at."""
    config = planned.config
    points = planned.points()
    for question in planned.questions:
        for name, effect in question.effects.items():
            for wanted in effect.selections():
                if not any(matches(point, wanted) for point in points):
                    raise InputError(f"{where}: questions: effect {name}: no point of {config.name} is at {wanted}")


# ---------------------------------------------------------------------- nested settings


def _merged(one: Settings, other: Settings) -> Settings:
    """`other` over `one`, section by section; a mix and the benchmarks are taken whole."""
    found = {key: _merged(value, {}) if isinstance(value, dict) else value for key, value in one.items()}
    for key, value in other.items():
        whole = key in ("mix", "eval") or not isinstance(value, dict) or not isinstance(found.get(key), dict)
        found[key] = value if whole else _merged(found[key], value)
    return found
