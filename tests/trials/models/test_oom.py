"""Out-of-memory errors are recognised, and the batch is halved until it fits."""

import errno

import pytest
import torch

from trials.models import oom


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (MemoryError(), True),
        (torch.OutOfMemoryError("CUDA out of memory"), True),
        (RuntimeError("CUBLAS_STATUS_ALLOC_FAILED when calling"), True),
        (OSError(errno.ENOMEM, "mmap"), True),
        (OSError(errno.ENOSPC, "disk"), False),
        (RuntimeError("shapes do not match"), False),
        (ValueError("CUDA out of memory"), False),
    ],
    ids=repr,
)
def test_only_memory_errors_are_recognised(error, expected):
    assert oom.is_out_of_memory(error) is expected


def needs(limit: int):
    def run(rows: int) -> int:
        if rows > limit:
            raise MemoryError("too many")
        return rows

    return run


def test_batch_is_halved_until_it_fits_and_halvings_are_recorded():
    halvings = []
    assert oom.within("train", 8, needs(2), lambda rows: rows // 2, halvings) == 2
    assert [(one.phase, one.rows) for one in halvings] == [("train", 4), ("train", 2)]


def test_one_row_that_does_not_fit_is_out_of_memory():
    with pytest.raises(oom.OutOfMemory, match=r"train: .*one row at once"):
        oom.within("train", 2, needs(0), lambda rows: rows // 2, [])


def test_other_errors_are_not_retried():
    halvings = []

    def broken(rows: int) -> None:
        raise RuntimeError("shapes do not match")

    with pytest.raises(RuntimeError, match="shapes do not match"):
        oom.within("train", 8, broken, lambda rows: rows // 2, halvings)
    assert halvings == []
