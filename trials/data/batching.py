"""Rows as padded tensors: which rows share a batch, and which positions the loss counts."""

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch.nn.utils.rnn import pad_sequence

from trials.mix import Example
from trials.template import IGNORED

_ALIKE = 0.9  # share of the longest row's length from which on a row wastes little of its batch on padding
ENOUGH = {"cpu": 1024, "cuda": 8192}
"""Tokens of a pass beyond which a larger batch gains hardly any speed, by device type. The GPU's is estimated, not measured."""


def fits_in(length: int, rows: int, longest: int, device: torch.device) -> bool:
    """Whether a row joins a batch of `rows` longer ones: its padding is short, or the batch has few tokens."""
    return length >= _ALIKE * longest or rows * longest < ENOUGH.get(device.type, ENOUGH["cpu"])


def sent(values: torch.Tensor, device: torch.device) -> torch.Tensor:
    """The tensor on the device. A copy from the CPU does not wait for the GPU's pending work."""
    if device.type == "cuda" and values.device.type == "cpu":
        values = values.pin_memory()  # only a copy from pinned memory is asynchronous
    return values.to(device, non_blocking=True)


def collate(rows: Sequence[Example], pad_id: int) -> dict[str, torch.Tensor]:
    """(rows, longest row) tensors, padded on the right: input_ids, attention_mask, and labels padded with IGNORED."""
    ids = [torch.tensor(row.input_ids) for row in rows]
    labels = [torch.tensor(row.labels) for row in rows]
    return {
        "input_ids": pad_sequence(ids, batch_first=True, padding_value=pad_id),
        "attention_mask": pad_sequence([torch.ones_like(row) for row in ids], batch_first=True),
        "labels": pad_sequence(labels, batch_first=True, padding_value=IGNORED),
    }


def forward_inputs(batch: Mapping[str, Any]) -> dict[str, Any]:
    """The tensors of a batch that the model's forward pass takes: all but the labels, and the lengths of packed rows."""
    return {name: value for name, value in batch.items() if name not in ("labels", "lengths")}


def counted(labels: torch.Tensor) -> torch.Tensor:
    """(rows, length - 1) of bools: whether the loss counts the token after each position. It never counts a row's first."""
    return labels[:, 1:] != IGNORED
