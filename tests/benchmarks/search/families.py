"""Synthetic sweeps with a known truth: what a setting does to a skill that is trained and to two that are forgotten.

The functions are smooth and invented. They share what is known of fine-tuning: skill saturates with the dose of training and
falls beyond it, forgetting grows with the dose and shrinks with rows of the forgotten skill.
"""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np

from analysis.metrics.names import parse_constraint
from analysis.stats import pareto
from orchestrator.config.model import SweepConfig
from orchestrator.search.design import Cube

Settings = Mapping[str, Any]
BASE = {"commonsense": 0.45, "math": 0.4, "knowledge": 0.5}
"""Accuracies of the base."""
DOCUMENTS = {"commonsense": 150, "math": 100, "knowledge": 100}
"""That the search sees: half of the quickstart's, about."""
_DRAWN, _GENERATIONS, _CHILDREN = 20_000, 12, 2_000  # points among which the best front is searched


def _logit(p: float) -> float:
    return math.log(p / (1 - p))


def _share(x: float) -> float:
    return 1 / (1 + math.exp(-x))


def _scaled(value: float, low: float, high: float) -> float:
    return math.log(value / low) / math.log(high / low)


@dataclass(frozen=True)
class Family:
    name: str
    space: dict[str, Any]
    shifts: Callable[[Settings], tuple[float, float, float]]
    """Changes of the logits of commonsense, math and knowledge."""
    constraint: str
    written: dict[str, Any]
    """What the config says of its sections beside the space."""
    pace: float
    """A quarter of the rows does what the learning rate times 4 ** -pace does with all of them."""

    def config(self, sampler: str, trials: int, seed: int, **search: Any) -> SweepConfig:
        tasks = {role: {"task": role, "metric": "acc", "documents": 2 * n} for role, n in DOCUMENTS.items()}
        parts = {
            "name": self.name,
            "base": {"model": "none"},
            "data": {"samples": 512, "mix": {"micro/alpaca": 0.9, "micro/gsm8k": 0.1}},
            "eval": tasks,
            "space": self.space,
            "search": {
                "sampler": sampler,
                "trials": trials,
                "seed": seed,
                "objectives": [
                    {"metric": "commonsense.gain", "direction": "maximize"},
                    {"metric": "math.forgetting", "direction": "minimize"},
                ],
                "constraints": [self.constraint],
                **search,
            },
        }
        return SweepConfig.model_validate(parts | self.written)

    def accuracies(self, settings: Settings, rows: float = 1.0) -> dict[str, float]:
        """After this share of the training rows."""
        settings = {**settings, "train.learning_rate": settings["train.learning_rate"] * rows**self.pace}
        shifts = dict(zip(BASE, self.shifts(settings), strict=True))
        return {role: _share(_logit(base) + shifts[role]) for role, base in BASE.items()}

    def truth(self, settings: Settings) -> tuple[np.ndarray, bool]:
        """(gain, forgetting) in the objectives' direction, and whether the constraint is kept."""
        return judged(self.accuracies(settings), BASE, self.constraint)

    @cached_property
    def reference(self) -> np.ndarray:
        return reference(self.config("random", 1, 0))

    @cached_property
    def front(self) -> np.ndarray:
        """The best front (n, 2), oriented, by evolution from random points."""
        cube = Cube(self.config("random", 1, 0))
        random = np.random.default_rng(0)
        units = random.random((_DRAWN, len(cube.names)))
        values = np.empty((0, 2))
        kept_units = np.empty((0, units.shape[1]))
        for _ in range(_GENERATIONS):
            told = [self.truth(cube.point(row, {})[1]) for row in units]
            values = np.vstack([values, [value for value, _ in told]])
            kept_units = np.vstack([kept_units, units])
            feasible = np.array([True] * (len(values) - len(told)) + [kept for _, kept in told])
            best = pareto.front(values, feasible & (values < self.reference).all(axis=1))
            values, kept_units = values[best], kept_units[best]
            parents = kept_units[random.integers(len(kept_units), size=_CHILDREN)]
            moved = random.random(parents.shape) < 0.4
            fresh = np.where(
                cube.choices > 0, random.random(parents.shape), parents + 0.05 * random.standard_normal(parents.shape)
            )
            units = np.clip(np.where(moved, fresh, parents), 0.0, 1.0 - 1e-9)
        return values

    @cached_property
    def best(self) -> float:
        return pareto.hypervolume(self.front, self.reference)


def judged(accuracy: Mapping[str, float], base: Mapping[str, float], written: str) -> tuple[np.ndarray, bool]:
    """(gain, forgetting) in the objectives' direction, and whether the constraint that is `written` so is kept."""
    metrics, constraint = metrics_of(accuracy, base), parse_constraint(written)
    kept = constraint.violation(metrics[constraint.metric]) <= 0
    return np.array([-metrics["commonsense.gain"], metrics["math.forgetting"]]), kept


def reference(config: SweepConfig) -> np.ndarray:
    """The oriented point from which hypervolume is measured: that of a report."""
    constraints = [parse_constraint(text) for text in config.search.constraints]
    return pareto.orient(pareto.reference_point(config.search.objectives, constraints), config.search.objectives)


def metrics_of(accuracy: Mapping[str, float], base: Mapping[str, float]) -> dict[str, float]:
    gain = accuracy["commonsense"] - base["commonsense"]
    drop = base["knowledge"] - accuracy["knowledge"]
    return {"commonsense.gain": gain, "math.forgetting": 1 - accuracy["math"] / base["math"], "knowledge.drop": drop}


# ---------------------------------------------------------------------- the families


def _response(dose: float, math_share: float) -> tuple[float, float, float]:
    """Logits as functions of the dose of training, about 0 to 1.6, and the share of rows of the forgotten skill, 0 to 1."""
    dose = max(dose, 0.0)  # after a part of the rows
    skill = 1.2 * (1 - math.exp(-2.2 * dose)) * (1 - 0.45 * math_share) - 1.8 * max(0.0, dose - 0.9) ** 2
    kept = -0.2 - 0.9 * dose**1.5 + 1.1 * math_share * (1 - math.exp(-1.5 * dose))
    return skill, kept, -0.35 * dose**2 + 0.1 * math_share


def _four(settings: Settings) -> tuple[float, float, float]:
    dose = 0.9 * _scaled(settings["train.learning_rate"], 1e-3, 1e-2)
    dose += 0.25 * _scaled(settings["lora.rank"], 4, 32) + 0.5 * _scaled(settings["data.samples"], 256, 1024)
    return _response(dose, settings["data.mix.micro/gsm8k"] / 0.6)


def _eight(settings: Settings) -> tuple[float, float, float]:
    strength = settings["train.learning_rate"] * math.sqrt(settings["lora.alpha"] / settings["lora.rank"])
    dose = 0.55 * _scaled(strength, 1e-4, 1e-2) + 0.1 * _scaled(settings["lora.rank"], 2, 64)
    dose += 0.15 * (settings["train.epochs"] - 1)
    skill, kept, known = _response(max(dose, 0.0), settings["data.mix.micro/gsm8k"] / 0.6)
    dropout, warmup = settings["lora.dropout"] - 0.1, settings["train.warmup"] - 0.1
    skill -= 8 * dropout**2 + 4 * warmup**2
    kept += 0.25 * math.exp(-((_scaled(settings["train.kl"], 1e-3, 1.0) - 0.6) ** 2) / 0.08) - 0.15
    return skill, kept, known


def _conditional(settings: Settings) -> tuple[float, float, float]:
    dose = 0.9 * _scaled(settings["train.learning_rate"], 1e-4, 1e-2) + 0.2 * _scaled(settings["lora.rank"], 4, 32)
    skill, kept, known = _response(dose, settings["data.mix.micro/gsm8k"] / 0.6)
    if settings["train.schedule"] == "wsd":
        skill += 0.3 - 4 * (settings["train.decay"] - 0.35) ** 2
    elif settings["train.schedule"] == "cosine":
        skill += 0.1
    if settings["lora.use_dora"]:
        kept += 0.35 - 25 * (settings["lora.dropout"] - 0.15) ** 2
    return skill, kept, known


def _simplex(settings: Settings) -> tuple[float, float, float]:
    mix = {name: settings[f"data.mix.{name}"] for name in ("general", "maths", "science", "code")}
    dose = 0.8 * _scaled(settings["train.learning_rate"], 1e-3, 1e-2) + 0.2 * _scaled(settings["lora.rank"], 4, 32)
    dose = max(dose, 0.0)
    useful = mix["general"] + 0.6 * mix["science"] + 0.2 * mix["code"]
    skill = 1.5 * (1 - math.exp(-2 * dose)) * math.sqrt(useful) - 1.5 * max(0.0, dose - 0.8) ** 2
    kept = -0.9 * dose**1.2 + 1.2 * (1 - math.exp(-4 * (mix["maths"] + 0.3 * mix["code"]))) * dose**0.5 - 0.2
    return skill, kept, -0.5 * dose + 0.8 * math.sqrt(mix["science"]) * dose


_MIX = {"type": "float", "low": 0.0, "high": 0.6}
_DATA = {
    "samples": 512,
    "mix": {"general": 0.7, "maths": 0.1, "science": 0.1, "code": 0.1},
    "sources": {
        name: {"dataset": "d", "instruction": "i", "response": "r"} for name in ("general", "maths", "science", "code")
    },
}


def _log(low: float, high: float) -> dict[str, Any]:
    return {"type": "float", "low": low, "high": high, "log": True}


def _among(*choices: Any) -> dict[str, Any]:
    return {"type": "categorical", "choices": list(choices)}


FAMILIES = {
    family.name: family
    for family in (
        Family(
            "four",
            {
                "lora.rank": _among(4, 8, 16, 32),
                "train.learning_rate": _log(1e-3, 1e-2),
                "data.samples": _among(256, 512, 1024),
                "data.mix.micro/gsm8k": _MIX,
            },
            _four,
            "math.forgetting <= 0.15",
            {"train": {"learning_rate": 2e-3}},
            0.92,
        ),
        Family(
            "eight",
            {
                "train.learning_rate": _log(1e-4, 1e-2),
                "lora.rank": _among(2, 4, 8, 16, 32, 64),
                "lora.alpha": _among(8, 16, 32, 64),
                "lora.dropout": {"type": "float", "low": 0.0, "high": 0.4},
                "train.warmup": {"type": "float", "low": 0.0, "high": 0.5},
                "train.epochs": {"type": "int", "low": 1, "high": 4},
                "train.kl": _log(1e-3, 1.0),
                "data.mix.micro/gsm8k": _MIX,
            },
            _eight,
            "knowledge.drop <= 0.08",
            {"train": {"learning_rate": 5e-4}},
            3.0,
        ),
        Family(
            "conditional",
            {
                "train.learning_rate": _log(1e-4, 1e-2),
                "lora.rank": _among(4, 8, 16, 32),
                "train.schedule": _among("constant", "cosine", "wsd"),
                "train.decay": {"type": "float", "low": 0.05, "high": 1.0, "when": {"train.schedule": "wsd"}},
                "lora.use_dora": _among(True, False),
                "lora.dropout": {"type": "float", "low": 0.0, "high": 0.4, "when": {"lora.use_dora": True}},
                "train.weight_decay": {"type": "float", "low": 0.0, "high": 0.1},
                "train.max_grad_norm": {"type": "float", "low": 0.1, "high": 2.0},
                "data.mix.micro/gsm8k": _MIX,
            },
            _conditional,
            "math.forgetting <= 0.15",
            {"train": {"learning_rate": 5e-4}},
            1.85,
        ),
        Family(
            "simplex",
            {
                "data.mix": {"type": "simplex"},
                "train.learning_rate": _log(1e-3, 1e-2),
                "lora.rank": _among(4, 8, 16, 32),
            },
            _simplex,
            "knowledge.drop <= 0.05",
            {"data": _DATA, "train": {"learning_rate": 2e-3}},
            1.04,
        ),
    )
}
