"""A finished sweep without any training: a real study, manifest and ledger whose records a known truth has filled."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import save_file

from orchestrator.config.model import SweepConfig
from orchestrator.sweep.controller import SweepController
from orchestrator.sweep.queue import Job
from tests.factories.configs import CONFIG, deep
from tests.factories.worlds import Model, filled
from trials.ledger.record import TrialRecord


def config(**search: Any) -> SweepConfig:
    parts = deep(CONFIG)
    parts["search"] |= search
    return SweepConfig.model_validate(parts)


def build(config: SweepConfig, storage: Path) -> Path:
    """Runs the sweep to its end with made-up records; returns its folder."""
    sweep = SweepController.open(config, storage)
    with sweep.going():
        run(sweep)
    return sweep.folder


def run(sweep: SweepController, *_: Any) -> None:
    """Finishes whatever the sweep hands out, as `launch.run` does, without Ray."""
    for _ in range(100):
        if sweep.over:
            return
        if (job := sweep.next_job()) is not None:
            complete(sweep, job)
    raise AssertionError("the sweep does not end")


def complete(sweep: SweepController, job: Job) -> None:
    record, documents = filled(job.spec, Model(skill=0.7 if job.spec.is_baseline else 0.6, commonsense=0.6), 24)
    adapters = [] if job.spec.is_baseline else [_adapter(sweep.folder / "made" / "adapter")]
    sweep.ledger.write(_measured(record), documents, adapters)
    sweep.finish(job.spec.key)


def _measured(record: TrialRecord) -> TrialRecord:
    record.seconds = {"train": 2.0, "evaluate.math": 1.0}
    record.losses, record.training = [(1, 2.5), (4, 2.0)], {"rows": 32.0, "tokens": 900.0, "steps": 4.0, "final_loss": 2.0}
    record.hardware, record.versions = {"cpu": "none", "threads": 1}, {"torch": "2"}
    record.finished = "2026-01-01T00:00:00+00:00"
    return record


def _adapter(folder: Path) -> Path:
    """A folder that looks like PEFT's."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "adapter_config.json").write_text(json.dumps({"peft_type": "LORA", "r": 2}))
    save_file({"a": torch.from_numpy(np.zeros((2, 2), np.float32))}, folder / "adapter_model.safetensors")
    return folder
