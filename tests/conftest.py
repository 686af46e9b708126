"""What the tests share: a sweep's config in miniature, and trials by the real stack that several tests look at."""

import os
from pathlib import Path
from typing import Any

os.environ["OMP_NUM_THREADS"] = "1"  # before torch is imported: the figures of a trial are compared between processes
os.environ["HF_HUB_OFFLINE"] = "1"
os.environ["TOKENIZERS_PARALLELISM"] = "false"

import pytest
import yaml

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


@pytest.fixture
def parts() -> dict[str, Any]:
    """The config as plain data; change it and write it with `write`."""
    return deep(CONFIG)


@pytest.fixture
def write(tmp_path: Path):
    """Writes plain data as a YAML file and returns its path."""

    def writer(value: Any, name: str = "config.yaml") -> Path:
        path = tmp_path / name
        path.write_text(yaml.safe_dump(value, sort_keys=False))
        return path

    return writer


@pytest.fixture
def spec(parts):
    """The config's trial."""
    from trials.spec import TrialSpec

    return TrialSpec.model_validate({name: parts[name] for name in TrialSpec.model_fields})


@pytest.fixture(scope="session")
def worker(tmp_path_factory):
    """A worker on micro whose base and tasks stay loaded for all tests; its ledger is its own."""
    import torch

    from trials.hub import Hub
    from trials.record import Ledger
    from trials.trial import Worker

    torch.set_num_threads(1)
    return Worker(Ledger(tmp_path_factory.mktemp("storage")), Hub())
