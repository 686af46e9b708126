"""The paper's ablations as sweeps, read from configs/ablations.

An ablation's file holds its question, its design (arms of settings, seeds, bases) and its decision rules. frame.yaml holds what
all of them share: bases, settings, and twins, which are the same designs for models of another size. Sweeps of one base share
their baseline and their common settings through the ledger.
"""

import itertools
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from analysis.ablations import decide
from analysis.ablations.answer import Answer
from analysis.ablations.cells import matches
from analysis.results.sweep import Sweep
from orchestrator.ablations.model import Ablation, Frame, Part, Scale, Settings, Twin
from orchestrator.ablations.twin import Change, merged, sized
from orchestrator.config import shipped, validate
from orchestrator.config.load import settled
from orchestrator.config.model import SweepConfig
from trials import dotted_path
from trials.errors import InputError
from trials.spec import Base
from trials.yaml_file import YamlFile

HUB = "hub"  # no twin: the models of the paper
_FOLDER = "configs/ablations"


@dataclass(frozen=True)
class Planned:
    """An ablation on one base, or on several together."""

    ablation: Ablation
    """With the questions, figures and sizes of this base."""
    base: str
    config: SweepConfig
    notes: tuple[str, ...]
    """Differences to the design's text, which gives the paper's sizes."""

    def answer(self, sweep: Sweep) -> Answer:
        """The sweep's answers to the ablation's questions."""
        design = {
            name: getattr(self.ablation, name) for name in ("name", "title", "question", "why", "design", "figures", "table")
        }
        asked = Answer(**design, base=self.base, caveats=(*self.notes, *self.ablation.caveats))
        return decide.answer(asked, sweep, self.ablation.questions, self.points())

    def points(self) -> list[dict[str, Any]]:
        """The settings of all its points, derived ones included."""
        return [params for point in self.config.grid() for params in (point, *self.config.siblings(point))]

    def mirrored(self, hub_mirror: str | None) -> "Planned":
        """The same sweep with the hub's files read from a folder."""
        if hub_mirror is None:
            return self
        return replace(self, config=self.config.model_copy(update={"hub_mirror": hub_mirror}))


def label(base: str) -> str:
    """What names a base in sweeps and pages: ORG--NAME for a model, since two organisations may have models of one name."""
    return re.sub(r"[^A-Za-z0-9._-]", "-", base.strip("/").replace("/", "--"))


class Ablations:
    """The ablations of a folder."""

    def __init__(self, folder: Path | None = None):
        """Default: configs/ablations in the working directory, else the program's own."""
        self.folder = folder or shipped.find(_FOLDER)
        self.frame = YamlFile(self.folder / "frame.yaml").check(Frame)
        for twin in self.frame.twins.values():
            for role in twin.presets.values():
                if "include" in role:
                    role["include"] = str((self.folder / role["include"]).resolve())
        # the paper's own setting last: it is no question about it
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
        """Whether the base suffices; an ablation that compares bases needs several."""
        return base is None or not self.read(name).together or bool(self.frame.twins.get(base, Twin()).models)

    def plan(self, name: str, base: str | None = None, scale: Scale = "full") -> list[Planned]:
        """The sweeps of an ablation on the bases of its file, on one of them, on a twin, or on a model (ORG/NAME)."""
        ablation = self.read(name)
        twin, bases = self._bases(ablation, base)
        # one sweep over all bases can compare them; else each base has its own, and can run alone
        if ablation.together:
            groups = [(twin if twin != HUB else "", bases)]
        else:
            groups = [(name, {name: model}) for name, model in bases.items()]
        ablation = sized(ablation, scale, twin)
        return [self._planned(ablation, twin, label, some, scale) for label, some in groups]

    def _bases(self, ablation: Ablation, base: str | None) -> tuple[str, dict[str, Base]]:
        own = {name: self.frame.bases[name] for name in ablation.bases}
        if base is None:
            return HUB, own
        twin = self.frame.twins.get(base, Twin())
        if ablation.together and not twin.models:
            several = ", ".join(name for name, one in self.frame.twins.items() if one.models)
            raise InputError(
                f"ablate: {ablation.name} compares bases; --base names a twin with several ({several}) or is left out"
            )
        if ablation.together:
            models = dict.fromkeys(twin.models.get(name) for name in own)
            return base, {model: twin.bases[model] for model in models if model is not None}
        if base in self.frame.twins:
            return base, {base: twin.bases[base]}
        if base in self.frame.bases:
            return HUB, {base: self.frame.bases[base]}
        if "/" not in base:
            known = ", ".join([*self.frame.twins, *self.frame.bases])
            raise InputError(f"ablate --base: {base!r} is none of {known}, nor a model's ORG/NAME")
        return HUB, {label(base): Base(model=base)}

    def _planned(self, ablation: Ablation, twin: str, label: str, bases: Mapping[str, Base], scale: Scale) -> Planned:
        where = self._files[ablation.name]
        settings = merged(self.frame.settings, ablation.settings)
        for path, value in ablation.bases.get(label, {}).items():
            dotted_path.write(settings, path, value)
        change = Change.of(self.frame.twins.get(twin, Twin()), ablation.twins.get(twin, Part()), settings)
        settings, ablation = change.settings(settings), change.design(ablation)
        asked = tuple(one for one in ablation.questions if one.of is None or twin in one.of)
        ablation = ablation.model_copy(update={"questions": asked})
        data = {
            "name": "-".join(part for part in (ablation.name, label, "small" if scale == "small" else "") if part),
            "base": next(iter(bases.values())).model_dump(mode="json"),
            **{key: value for key, value in settings.items() if key not in ("base", "search")},
            "derive": ablation.derive,
            # an ablation selects no trial by its result: it needs no half of the documents for an unbiased one, and each arm
            # is measured to its end
            "search": {
                **{"sampler": "grid", "documents": "all", "replicates": ablation.seeds, "racing": False},
                **settings["search"],
            },
        }
        data["base"] |= settings.get("base", {})
        try:
            data["space"] = {"_": list(_points(ablation, data, bases))}
            config = SweepConfig.model_validate(data)
        except ValidationError as error:
            first = error.errors(include_url=False)[0]
            raise InputError(f"{where}: {'.'.join(map(str, first['loc']))}: {first['msg']}") from None
        if problems := [text for _, text in validate.problems(config)]:
            raise InputError("\n".join(f"{where}: {text}" for text in problems))
        small = ("In small scale: fewer levels and seeds than the design has.",) if scale == "small" else ()
        planned = Planned(ablation, label or twin, settled(config), (*change.notes(twin), *small))
        _check_selections(planned, where)
        return planned


def _points(ablation: Ablation, data: Settings, bases: Mapping[str, Base]) -> Iterator[Settings]:
    """The points of all arms, each once, with the same paths."""
    arms = []
    for levels in ablation.arms.values():
        arms += [dict(zip(levels, combination, strict=True)) for combination in itertools.product(*levels.values())]
    # every point sets the paths of all arms: a study holds one space
    paths = list(dict.fromkeys(path for arm in arms for path in arm))
    seen = set()
    for base in bases.values():
        own = {} if len(bases) == 1 else {"base.model": base.model, "base.revision": base.revision}
        for arm in arms:
            point = own | {path: arm[path] if path in arm else _default(data, path) for path in paths}
            if (label := repr(point)) not in seen:  # arms may share points
                seen.add(label)
                yield point


def _default(data: Settings, path: str) -> Any:
    """Value of a setting that an arm does not name: the config's, else the default of its section."""
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
    """Refuses a rule without cells."""
    # a misspelt path would otherwise show after hours of training, as an effect that is unknown
    points = planned.points()
    effects = [effect for question in planned.ablation.questions for effect in question.effects.items()]
    for name, wanted in [(name, wanted) for name, effect in effects for wanted in effect.selections()]:
        if not any(matches(point, wanted) for point in points):
            raise InputError(f"{where}: questions: effect {name}: no point of {planned.config.name} is at {wanted}")
