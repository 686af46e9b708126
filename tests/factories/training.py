"""Worlds for tests: training."""

import json
import math
from dataclasses import replace

import safetensors.torch
import torch

from trials.adapters import peft_adapter
from trials.ledger.checkpoint import serialized
from trials.spec import Lora, Train
from trials.training import trainer

PAD = 0


WEIGHTS = [{"loss": "dft"}, {"loss": "eaft", "l2": 0.02}, {"loss": "masked", "mask_above": 4.0, "kl": 0.5}]
PENALTIES = [{"kl": 0.5}, {"l2": 0.02}, {"kl": 0.5, "l2": 0.02}]
SETTINGS = Train(learning_rate=5e-3, batch_size=8, micro_batch_size=8, warmup=0.0)


def fitted(loaded, rows, settings: Train, lora: Lora | None = None, **more) -> tuple[trainer.State, list[trainer.State]]:
    """The final state of a training and the states after every step, in stored form."""
    states: list[trainer.State] = []
    with peft_adapter.adapted(loaded, lora or Lora(rank=4), settings.seed) as model:
        start = more.pop("start", None) or replace(trainer.beginning(model, settings), packed_rows=more.pop("packed", False))
        every_step = trainer.Pace(0.0, math.inf)
        inputs = trainer.TrainingInputs(
            model, PAD, rows, settings, lambda state: states.append(kept(state)), every_step, **more
        )
        end = trainer.fit(inputs, start)
        return kept(end), states


def kept(state: trainer.State) -> trainer.State:
    values, tensors = state.packed()
    return trainer.State.unpacked(json.loads(json.dumps(values)), safetensors.torch.load(serialized(tensors)))


def changed(**values) -> Train:
    return Train.model_validate({**SETTINGS.model_dump(), **values})


def same(one: trainer.State, other: trainer.State) -> bool:
    return one.losses == other.losses and all(torch.equal(one.weights[name], other.weights[name]) for name in one.weights)
