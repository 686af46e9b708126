"""CUDA graphs: what a GPU has been asked for once, asked for again at once."""

import gc
import logging
from collections.abc import Callable
from functools import cache
from typing import Any, TypeVar

import torch

from trials import memory

Result = TypeVar("Result")

_log = logging.getLogger(__name__)

_WARM = 2
"""Runs outside of a graph, in which libraries choose their kernels."""


@cache
def _stream() -> torch.cuda.Stream:
    """The one that all is captured on: autograd runs a backward pass on the stream of its forward pass."""
    return torch.cuda.Stream()


def warm(run: Callable[[], object]) -> None:
    """Runs it on a stream of its own, as it has to be before it is captured."""
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
    collected = gc.isenabled()
    gc.disable()  # nothing may be freed during a capture; torch's own torch.cuda.graph collects before it, a fifth of a second
    try:
        with torch.cuda.stream(_stream()):
            graph.capture_begin(*(() if pool is None else (pool,)))
            try:
                found = run()
            finally:
                graph.capture_end()
    finally:
        if collected:
            gc.enable()
    return graph, found


def tried(what: str, make: Callable[[], Result]) -> Result | None:
    """What `make` captures; None, and a warning, of a model that asks on its way what its numbers are: some experts, some
    rotary scalings. Raises where the memory does not suffice."""
    try:
        return make()
    except RuntimeError as error:
        if memory.is_out_of_memory(error):
            raise
        torch.cuda.synchronize()
        _log.warning("%s cannot be CUDA graphs, and take longer: %s", what, error)
        return None
