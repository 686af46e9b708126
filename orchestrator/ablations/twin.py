"""Ablations on bases of another size: the same design with other models, sources, benchmarks and sizes."""

from dataclasses import dataclass
from typing import Any

from orchestrator.ablations.model import Ablation, Part, Scale, Settings, Twin
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
                dotted_path.write(changed, path, self._value(path, value))
        # after scaling: what a twin sets itself is in its own size
        changed = merged(merged(changed, self.twin.settings), self.part.settings)
        changed["data"]["mix"] = {self.twin.sources.get(name, name): share for name, share in changed["data"]["mix"].items()}
        changed["eval"] = {role: self._role(one) for role, one in changed["eval"].items()}
        return changed

    def _role(self, role: Settings) -> Settings:
        own = self.twin.presets.get(role.get("preset", ""))
        return role if own is None else {**own, **{name: value for name, value in role.items() if name != "preset"}}

    def design(self, ablation: Ablation) -> Ablation:
        """The ablation with the twin's cells in its arms, questions and figures."""
        written = ablation.model_dump(exclude_unset=True)
        changed = {name: self.rewritten(written[name]) for name in ("arms", "questions", "figures") if name in written}
        derived = {f"derive.{name}": value for name, value in ablation.derive.items() if name != "of"}
        of = {"of": self.rewritten(ablation.derive["of"])} if "of" in ablation.derive else {}
        derive = {path.removeprefix("derive."): value for path, value in self.rewritten(derived).items()} | of
        return Ablation.model_validate(written | changed | {"derive": derive})

    def rewritten(self, part: Any) -> Any:
        """A part of an ablation's file with the twin's names and sizes for all settings in it."""
        if isinstance(part, list | tuple):
            return [self.rewritten(one) for one in part]
        if isinstance(part, str):
            return self._path(part)
        if not isinstance(part, dict):
            return part
        if part.keys() >= {"path", "groups"}:  # of several bases: those without a replacement are left out
            kept = [[one for one in group if not self.twin.models or one in self.twin.models] for group in part["groups"]]
            return {**part, "groups": self._value(part["path"], kept)}
        # a key with a dot is the path of a setting
        return {self._path(key): self._value(key, one) if "." in key else self.rewritten(one) for key, one in part.items()}

    def _path(self, path: str) -> str:
        """The path with the twin's source, for a share of the mix; any other text as it is."""
        if path.startswith(f"{dotted_path.MIX}."):
            source = dotted_path.source_of(path)
            return f"{dotted_path.MIX}.{self.twin.sources.get(source, source)}"
        return path

    def _value(self, path: str, value: Any) -> Any:
        """The twin's value of a setting, or its values."""
        if isinstance(value, list | tuple):
            return [self._value(path, one) for one in value]
        if path == "data.replay.source":
            return self.twin.sources.get(value, value)
        if path == "base.model":
            name = self.twin.models.get(value, value) or value
            return self.twin.bases[name].model if name in self.twin.bases else name
        if value is None or path not in self.factors:
            return value
        scaled = value * self.factors[path]
        if not path.endswith("samples"):
            # rounded, so that 0.0002 * 30 is the 0.006 that others write
            return float(f"{scaled:.6g}")
        # 0 rows are the untrained base; any other number stays a training
        return max(round(scaled / self.batch), 1) * self.batch if value else 0


def merged(one: Settings, other: Settings) -> Settings:
    """`other` over `one`, section by section; a mix and the benchmarks are taken whole."""
    found = {key: merged(value, {}) if isinstance(value, dict) else value for key, value in one.items()}
    for key, value in other.items():
        whole = key in ("mix", "eval") or not isinstance(value, dict) or not isinstance(found.get(key), dict)
        found[key] = value if whole else merged(found[key], value)
    return found
