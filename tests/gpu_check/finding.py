"""What a part of the check measures, and what it is measured on."""

import hashlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.benchmarks.programs import SWEEPS
from trials.spec import TrialSpec


@dataclass(frozen=True)
class Finding:
    """A measured value and its bounds. A value outside of them, NaN included, fails the part."""

    what: str
    value: float
    most: float = float("inf")
    least: float = float("-inf")

    @property
    def holds(self) -> bool:
        return self.least <= self.value <= self.most

    @property
    def bounds(self) -> str:
        limits = [f"at least {self.least:.4g}"] * (self.least > float("-inf")) + [f"at most {self.most:.4g}"] * (
            self.most < float("inf")
        )
        return ", ".join(limits) or "told only"


@dataclass(frozen=True)
class World:
    """The base and the sizes of the check."""

    folder: Path
    """For what the parts write."""
    name: str
    """A key of tests.benchmarks.programs.SWEEPS: micro, or smollm2 with a mirror."""
    mirror: str | None = None
    rows: int = 256
    documents: int = 24

    def parts(self, dtype: str = "float32", **sections: dict[str, Any]) -> dict[str, Any]:
        """A trial as plain data. `sections` change its own."""
        found = {key: dict(value) for key, value in SWEEPS[self.name].items() if key != "rates"}
        found["base"]["dtype"] = dtype
        found["data"]["samples"] = self.rows
        found["lora"]["rank"] = 8
        found["train"] |= {"learning_rate": 1e-3, "batch_size": 8, "micro_batch_size": 8}
        found["eval"] = {role: {**one, "documents": self.documents} for role, one in found["eval"].items()}
        for name, values in sections.items():
            found[name] |= values
        return found

    def spec(self, dtype: str = "float32", **sections: dict[str, Any]) -> TrialSpec:
        return TrialSpec.model_validate(self.parts(dtype, **sections))

    def config(self, name: str, trials: int, gpus: float) -> dict[str, Any]:
        """A grid of so many trials as plain data; `gpus` a trial, where the machine has any."""
        rates = [float(f"{5e-4 * 1.3**number:.2g}") for number in range(trials // 2)]
        space = {
            "lora.rank": {"type": "categorical", "choices": [4, 8]},
            "train.learning_rate": {"type": "categorical", "choices": rates},
        }
        objectives = [
            {"metric": "commonsense.gain", "direction": "maximize"},
            {"metric": "math.drop", "direction": "minimize"},
        ]
        found = self.parts("float32")
        found["train"].pop("learning_rate")
        found["lora"].pop("rank")
        found |= {"name": name, "space": space, "search": {"sampler": "grid", "objectives": objectives}}
        found["resources"] = {"gpus_per_trial": gpus, "cpus_per_trial": 1}
        return found | ({"hub_mirror": self.mirror} if self.mirror else {})


def code() -> str:
    """The checksum of the program and of its tests: git's name of a changed tree says only that it was changed."""
    root, found = Path(__file__).parents[2], hashlib.sha256()
    for folder in ("analysis", "orchestrator", "trials", "tests"):
        for path in sorted((root / folder).rglob("*.py")):
            found.update(str(path.relative_to(root)).encode() + b"\0" + path.read_bytes())
    return found.hexdigest()
