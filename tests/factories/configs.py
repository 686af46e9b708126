"""Worlds for tests: configs."""

from typing import Any

import yaml

from trials.spec import TrialSpec

CONFIG: dict[str, Any] = {
    "name": "little",
    "base": {"model": "micro", "dtype": "float32"},
    "data": {"samples": 32, "mix": {"micro/alpaca": 0.5, "micro/gsm8k": 0.5}},
    "lora": {"rank": 4},
    "train": {"learning_rate": 2.0e-3, "batch_size": 8, "micro_batch_size": 8},
    "eval": {
        "commonsense": {"task": "micro_swag", "metric": "acc_norm", "documents": 12},
        "math": {"task": "micro_gsm", "metric": "exact_match", "filter": "strict-match", "documents": 12},
    },
    "space": {"lora.rank": {"type": "categorical", "choices": [2, 4]}},
    "search": {
        "sampler": "grid",
        "objectives": [
            {"metric": "commonsense.gain", "direction": "maximize"},
            {"metric": "math.drop", "direction": "minimize"},
        ],
        "constraints": ["math.drop <= 0.5"],
    },
    "resources": {"cpus_per_trial": 1},
}


def deep(parts: dict[str, Any]) -> dict[str, Any]:
    """A copy that a test may change."""
    return yaml.safe_load(yaml.safe_dump(parts))


def spec_of(**sections: Any) -> TrialSpec:
    """CONFIG's trial with other sections."""
    parts = {name: deep(CONFIG)[name] for name in TrialSpec.model_fields if name in CONFIG}
    return TrialSpec.model_validate({**parts, **sections})
