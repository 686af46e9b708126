"""Ablations on bases of another size: the same design with other models, sources, benchmarks and sizes."""

from dataclasses import dataclass
from typing import Any

from analysis.ablations.answer import FigureSpec
from analysis.ablations.questions import Question
from orchestrator.ablations.model import Ablation, Figured, Part, Scale, Settings, Twin
from trials import dotted_path


def sized(ablation: Ablation, scale: Scale, twin: str) -> Ablation:
    """The design with the changes of its scale and twin, but for the twin's settings: they come after scaling."""
    own = ablation.twins.get(twin, Part())
    small = [ablation.small] if scale == "small" else []
    for part in [own.model_copy(update={"settings": {}}), *small]:
        changed: Settings = {"settings": merged(ablation.settings, part.settings)}
        changed |= {name: value for name in ("seeds", "arms", "derive") if (value := getattr(part, name)) is not None}
        ablation = ablation.model_copy(update=changed)
    return ablation


@dataclass(frozen=True)
class Change:
    """Rewrites a design for a twin."""

    twin: Twin
    part: Part
    batch: int
    """Rows of an optimiser step. Numbers of rows stay a multiple of it."""

    @classmethod
    def of(cls, twin: Twin, part: Part, settings: Settings) -> "Change":
        batches = [dotted_path.read(one, "train.batch_size") for one in (part.settings, twin.settings, settings)]
        return cls(twin, part, next((batch for batch in batches if batch is not None), 1))

    @property
    def factors(self) -> dict[str, float]:
        return {**self.twin.scale, **self.part.scale}

    def notes(self, twin: str) -> tuple[str, ...]:
        if not self.factors:
            return ()
        scaled = " and ".join(f"{path} times {factor:g}" for path, factor in self.factors.items())
        return (f"The texts give the paper's sizes; on {twin} they differ: {scaled}.",)

    def settings(self, settings: Settings) -> Settings:
        changed = merged(settings, {})
        for path in self.factors:
            if (value := dotted_path.read(changed, path)) is not None:
                dotted_path.write(changed, path, self._scaled(path, value))
        changed = merged(merged(changed, self.twin.settings), self.part.settings)
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
        """The path with the twin's source, for a share of the mix."""
        if path.startswith(f"{dotted_path.MIX}."):
            source = dotted_path.source_of(path)
            return f"{dotted_path.MIX}.{self.twin.sources.get(source, source)}"
        return path

    def derive(self, derive: Settings) -> Settings:
        changed = {name: self.value(f"derive.{name}", some) for name, some in derive.items() if name != "of"}
        of = {self.path(path): self.value(path, value) for path, value in derive.get("of", {}).items()}
        return changed | ({"of": of} if of else {})

    def question(self, question: Question) -> Question:
        """The question about the twin's cells."""
        return Question.model_validate(self._cells(question.model_dump(exclude_unset=True)))

    def figure(self, figure: Figured) -> FigureSpec:
        only = {self.path(path): self.value(path, value) for path, value in figure.only.items()}
        changed = {"only": only, "x": self.path(figure.x), "by": tuple(map(self.path, figure.by))}
        return FigureSpec(**figure.model_dump() | changed)

    def _cells(self, value: Any, key: str = "") -> Any:
        if isinstance(value, dict) and key in ("cells", "curve"):
            return {self.path(path): self.value(path, one) for path, one in value.items()}
        if isinstance(value, dict):
            return {name: self._groups(one) if name == "groups" else self._cells(one, name) for name, one in value.items()}
        return [self._cells(one) for one in value] if isinstance(value, list | tuple) else value

    def _groups(self, groups: Settings) -> Settings:
        """Leaves out bases without a replacement."""
        kept = [[one for one in group if not self.twin.models or one in self.twin.models] for group in groups["groups"]]
        return {**groups, "groups": [[self.value(groups["path"], one) for one in group] for group in kept]}


def merged(one: Settings, other: Settings) -> Settings:
    """`other` over `one`, section by section; a mix and the benchmarks are taken whole."""
    found = {key: merged(value, {}) if isinstance(value, dict) else value for key, value in one.items()}
    for key, value in other.items():
        whole = key in ("mix", "eval") or not isinstance(value, dict) or not isinstance(found.get(key), dict)
        found[key] = value if whole else merged(found[key], value)
    return found
