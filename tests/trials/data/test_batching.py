"""Rows become padded tensors, and the loss counts what they label."""

import types

import torch

from trials.data import batching
from trials.mix import Example
from trials.template import IGNORED

ROWS = [Example("a", [5, 6, 7], [IGNORED, 6, 7]), Example("b", [8], [8])]


def test_collate_pads_on_the_right_and_labels_no_padding():
    batch = batching.collate(ROWS, 1)
    assert batch["input_ids"].tolist() == [[5, 6, 7], [8, 1, 1]]
    assert batch["attention_mask"].tolist() == [[1, 1, 1], [1, 0, 0]]
    assert batch["labels"].tolist() == [[IGNORED, 6, 7], [8, IGNORED, IGNORED]]


def test_first_token_of_a_row_is_never_counted():
    assert batching.counted(batching.collate(ROWS, 1)["labels"]).tolist() == [[True, True], [False, False]]


def test_short_row_joins_small_batches_only():
    cpu = torch.device("cpu")
    assert batching.fits_in(10, 3, 100, cpu)
    assert not batching.fits_in(10, 300, 100, cpu)
    assert batching.fits_in(95, 300, 100, cpu)


def test_what_is_on_the_gpu_already_is_not_pinned():
    """Only memory of the CPU can be."""
    here = types.SimpleNamespace(device=torch.device("cuda"), to=lambda *_, **__: "there")
    assert batching.sent(here, torch.device("cuda")) == "there"
    pinned = types.SimpleNamespace(to=lambda *_, **__: "copied")
    there = types.SimpleNamespace(device=torch.device("cpu"), pin_memory=lambda: pinned)
    assert batching.sent(there, torch.device("cuda")) == "copied"
