"""Rows as padded tensors: which ones go together, and the positions of them that the loss counts."""

from collections.abc import Sequence

import torch
from torch.nn.utils.rnn import pad_sequence

from trials.mix import Example
from trials.template import IGNORED

_ALIKE = 0.9
ENOUGH = {"cpu": 1024, "cuda": 8192}
"""Tokens of a pass from which on more at once make it hardly faster, by type of device; a GPU's is counted, not measured."""


def fits_in(length: int, rows: int, longest: int, device: torch.device) -> bool:
    """Whether a row is run with `rows` longer ones: it would be padded by little, or they are few tokens for a pass."""
    return length >= _ALIKE * longest or rows * longest < ENOUGH.get(device.type, ENOUGH["cpu"])


def sent(values: torch.Tensor, device: torch.device) -> torch.Tensor:
    """A tensor of the CPU on the device; what a GPU has been asked for before does not have to end first."""
    return values.pin_memory().to(device, non_blocking=True) if device.type == "cuda" else values


def collate(rows: Sequence[Example], pad_id: int) -> dict[str, torch.Tensor]:
    """(micro-batch, longest row) tensors, padded on the right; labels are padded with IGNORED."""
    ids = [torch.tensor(row.input_ids) for row in rows]
    labels = [torch.tensor(row.labels) for row in rows]
    return {
        "input_ids": pad_sequence(ids, batch_first=True, padding_value=pad_id),
        "attention_mask": pad_sequence([torch.ones_like(row) for row in ids], batch_first=True),
        "labels": pad_sequence(labels, batch_first=True, padding_value=IGNORED),
    }


def counted(labels: torch.Tensor) -> torch.Tensor:
    """(rows, length - 1) whether the token after each position is one that the loss counts; the first of a row never is."""
    return labels[:, 1:] != IGNORED
