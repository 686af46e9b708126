"""Out of memory: recognised from every allocator, and retried with freed tensors."""

import mmap
import weakref

import numpy as np
import pytest
import torch

from trials.ledger.record import Halving
from trials.models import oom


def test_failed_attempt_frees_its_tensors_before_the_next():
    held = []

    def run(rows):
        assert all(reference() is None for reference in held)
        activations = torch.zeros(1 << 20)
        activations.loop = activations  # only a collection finds it
        held.append(weakref.ref(activations))
        if rows > 1:
            torch.empty(1 << 50, dtype=torch.uint8)
        return rows

    halvings: list[Halving] = []
    assert oom.within("train", 4, run, lambda rows: rows // 2, halvings) == 1
    assert len(held) == 3


@pytest.mark.parametrize(
    "allocate",
    [
        lambda: torch.empty(1 << 50, dtype=torch.uint8),
        lambda: np.ones(1 << 50, dtype=np.uint8),
        lambda: bytearray(1 << 50),
        lambda: mmap.mmap(-1, 1 << 50),
    ],
    ids=["torch", "numpy", "python", "system"],
)
def test_every_allocator_is_recognised(allocate):
    with pytest.raises((RuntimeError, MemoryError, OSError)) as caught:
        allocate()
    assert oom.is_out_of_memory(caught.value)


def test_other_errors_are_not_out_of_memory():
    def run(rows):
        raise RuntimeError("mat1 and mat2 shapes cannot be multiplied")

    halvings: list[Halving] = []
    with pytest.raises(RuntimeError, match="shapes"):
        oom.within("train", 4, run, lambda rows: rows // 2, halvings)
    assert halvings == []
