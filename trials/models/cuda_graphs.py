"""CUDA graphs: what a GPU has been asked for once, asked for again at once."""

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

_never: WeakSet[Any] = WeakSet()
"""Models that cannot be captured."""

_WARM = 2
"""Runs outside of a graph, in which libraries choose their kernels."""


@cache
def _stream() -> torch.cuda.Stream:
    """The one that all is captured on: autograd runs a backward pass on the stream of its forward pass."""
    return torch.cuda.Stream()


def _warm(run: Callable[[], object]) -> None:
    """Runs it on the stream that it will be captured on."""
    stream = _stream()
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):
        for _ in range(_WARM):
            run()
    torch.cuda.current_stream().wait_stream(stream)


def captured(run: Callable[[], Result], pool: tuple[int, int] | None = None) -> tuple[torch.cuda.CUDAGraph, Result]:
    """A graph of what it asks the GPU for, and what it returned. `pool`: of one that is never under way together with it."""
    graph: Any = torch.cuda.CUDAGraph()
    torch.cuda.synchronize()
    torch.cuda.empty_cache()  # a capture cannot take what lies idle in other pools
    collected = gc.isenabled()
    gc.disable()  # what it frees might be another graph, which must not happen meanwhile
    try:
        with torch.cuda.stream(_stream()):
            graph.capture_begin(*(() if pool is None else (pool,)))
            try:
                found = run()
            except BaseException:
                with suppress(RuntimeError):  # it says that the capture failed, and not why
                    graph.capture_end()
                raise
            graph.capture_end()
    finally:
        if collected:
            gc.enable()
    return graph, found


def tried(model: Any, run: Callable[[], object], make: Callable[[], Result]) -> Result | None:
    """What `make` captures of `run`, a part of the model, which is run before, as libraries need it. None, and a warning, where
    it cannot be captured: then its kernels are asked for one by one.

    Some models ask on their way what their numbers are (experts, rotary scalings): they are not tried again. Or the memory does
    not suffice for what a graph holds.
    """
    if model in _never:
        return None
    _warm(run)
    try:
        return make()
    except RuntimeError as error:
        reason = " ".join(str(error).split())[:200]
        if not oom.is_out_of_memory(error):
            _never.add(model)
    torch.cuda.synchronize()
    oom.release()  # the error is gone here, and with it the frames that held the tensors
    _log.warning("no CUDA graphs of %s, and it takes longer: %s", type(model).__name__, reason)
    return None
