"""Out-of-memory errors: recognition, release of memory, and the retry with a halved batch."""

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
    "CUDA Error: out of memory",  # vLLM's allocator
    "CUBLAS_STATUS_ALLOC_FAILED",
    "CUDNN_STATUS_ALLOC_FAILED",
)


class OutOfMemory(MemoryError):
    """Out of memory even with one row at once."""


def is_out_of_memory(error: BaseException) -> bool:
    if isinstance(error, MemoryError | torch.OutOfMemoryError):
        return True
    if isinstance(error, OSError):
        return error.errno == errno.ENOMEM
    return isinstance(error, RuntimeError) and any(text in str(error) for text in _TEXTS)


def release() -> None:
    """Frees unreferenced objects and cached GPU memory."""
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()


def within(
    phase: str, rows: int, run: Callable[[int], Result], smaller: Callable[[int], int], halvings: list[Halving]
) -> Result:
    """Returns `run(rows)`. Out of memory, it retries with `smaller(rows)` rows, down to one.

    Appends every retry to `halvings`. Raises OutOfMemory if one row does not fit.
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
        release()  # outside of the handler, where the error no longer keeps the frames and their tensors alive
        rows = smaller(rows)
        halvings.append(Halving(phase=phase, rows=rows))
