"""CUDA graphs: captures the kernels of a function once, and launches them again as one graph."""

import gc
import logging
from collections.abc import Callable
from contextlib import suppress
from functools import cache
from typing import Any, TypeVar
from weakref import WeakSet

import torch

from trials.models import oom

Result = TypeVar("Result")

_log = logging.getLogger(__name__)

_uncapturable: WeakSet[Any] = WeakSet()  # models whose capture failed

_WARM = 2  # warm-up runs outside of a graph, in which libraries select their kernels


@cache
def _stream(device: int) -> torch.cuda.Stream:
    """One stream for all captures on a device, because autograd runs a backward pass on the stream of its forward pass."""
    return torch.cuda.Stream(device)


def _warm(run: Callable[[], object]) -> None:
    """Runs the function on the stream of its capture."""
    stream = _stream(torch.cuda.current_device())
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):
        for _ in range(_WARM):
            run()
    torch.cuda.current_stream().wait_stream(stream)


def captured(run: Callable[[], Result], pool: tuple[int, int] | None = None) -> tuple[torch.cuda.CUDAGraph, Result]:
    """The graph of a run, and the run's result. `pool`: memory of a graph that never runs at the same time."""
    graph: Any = torch.cuda.CUDAGraph()
    torch.cuda.synchronize()
    torch.cuda.empty_cache()  # a capture cannot use memory that is cached in other pools
    collected = gc.isenabled()
    gc.disable()  # the collector might free another graph, which must not happen during a capture
    try:
        with torch.cuda.stream(_stream(torch.cuda.current_device())):
            graph.capture_begin(*(() if pool is None else (pool,)))
            try:
                found = run()
            except BaseException:
                with suppress(RuntimeError):  # its message has no cause, unlike the error below
                    graph.capture_end()
                raise
            graph.capture_end()
    finally:
        if collected:
            gc.enable()
    return graph, found


def tried(model: Any, run: Callable[[], object], make: Callable[[], Result]) -> Result | None:
    """The result of `make`, which captures `run`, a part of the model, after warm-up runs; None and a warning if it fails.

    A capture fails for models that read numbers back from the GPU (experts, rotary scalings), which are not tried again, and
    when memory runs out.
    """
    if model in _uncapturable:
        return None
    _warm(run)
    try:
        return make()
    except RuntimeError as error:
        reason = " ".join(str(error).split())[:200]
        if not oom.is_out_of_memory(error):
            _uncapturable.add(model)
    torch.cuda.synchronize()
    oom.release()  # outside of the handler, where the error no longer keeps the frames and their tensors alive
    _log.warning("no CUDA graphs of %s, so it runs slower: %s", type(model).__name__, reason)
    return None
