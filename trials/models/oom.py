"""Out of memory: how it is recognised, how what can be freed is freed, and the retry with half as much at once."""

import errno
import gc
from collections.abc import Callable
from typing import TypeVar

import torch

from trials.ledger.record import Halving

Result = TypeVar("Result")

# RuntimeErrors that torch raises without a type of their own: the CPU's allocator, the driver, cuBLAS and cuDNN
_TEXTS = (
    "DefaultCPUAllocator: can't allocate memory",
    "DefaultCPUAllocator: not enough memory",
    "CUDA out of memory",
    "CUDA error: out of memory",
    "CUBLAS_STATUS_ALLOC_FAILED",
    "CUDNN_STATUS_ALLOC_FAILED",
)


class OutOfMemory(MemoryError):
    """There is not enough memory for even one row at once."""


def is_out_of_memory(error: BaseException) -> bool:
    if isinstance(error, MemoryError | torch.OutOfMemoryError):
        return True
    if isinstance(error, OSError):
        return error.errno == errno.ENOMEM
    return isinstance(error, RuntimeError) and any(text in str(error) for text in _TEXTS)


def release() -> None:
    """Gives back what nothing refers to any more."""
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()


def within(phase: str, rows: int, run: Callable[[int], Result], smaller: Callable[[int], int], told: list[Halving]) -> Result:
    """`run(rows)`; where the memory does not suffice, again with `smaller(rows)` rows at once, down to one.

    Every halving is added to `told`. Raises OutOfMemory when one row is too many.
    """
    while True:
        try:
            return run(rows)
        except (RuntimeError, MemoryError, OSError) as error:
            if not is_out_of_memory(error):
                raise
            if rows == 1:
                reason = " ".join(str(error).split())[:200]
                raise OutOfMemory(f"{phase}: the memory does not suffice for one row at once ({reason})") from error
        release()  # the error is gone here, and with it the frames that held the tensors
        rows = smaller(rows)
        told.append(Halving(phase=phase, rows=rows))
