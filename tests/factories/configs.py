"""Worlds for tests: configs, right ones and wrong ones."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from orchestrator.config.load import load
from trials.errors import InputError
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


PAIRS = [{"lora.rank": 8, "lora.alpha": 16}, {"lora.rank": 16, "lora.alpha": 32}]
DORA = {"type": "categorical", "choices": [True, False]}
DROPOUT = {"type": "float", "low": 0.0, "high": 0.2}
RATE = {"type": "float", "low": 1e-4, "high": 1e-2}


def problem(path: Path, *overrides: str) -> str:
    """The message with which a config is refused."""
    with pytest.raises(InputError) as caught:
        load(path, overrides)
    return str(caught.value)


def in_space(**space):
    """A change that puts these parameters in place of the config's; "__" stands for a dot."""

    def change(parts):
        parts["search"].update(sampler="random", trials=4)
        parts["space"] = {path.replace("__", "."): parameter for path, parameter in space.items()}

    return change


def in_search(**search):
    return lambda parts: parts["search"].update(search)


def both(*changes):
    return lambda parts: [change(parts) for change in changes]


def assert_reported(parts: dict[str, Any], write: Callable[..., Path], mistake: tuple[Callable, str, str]) -> None:
    """`mistake`: a change of the config, the text at the reported position, and a part of the message, which is one line."""
    change, at, expected = mistake
    change(parts)
    path = write(parts)
    message = problem(path)
    assert expected in message
    assert "hunter2" not in message
    assert len(message.splitlines()) == 1
    lines = path.read_text().splitlines()
    _, line, column, _ = message.split(":", 3)
    found = lines[int(line) - 1][int(column) - 1 :]
    assert found.startswith(at.removeprefix("- ")) or lines[int(line) - 1].strip().startswith(at), found


def spec_of(**sections: Any) -> TrialSpec:
    """CONFIG's trial with other sections."""
    parts = {name: deep(CONFIG)[name] for name in TrialSpec.model_fields if name in CONFIG}
    return TrialSpec.model_validate({**parts, **sections})
