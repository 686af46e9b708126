"""Training on a GPU: the model's blocks, forward and backward, as CUDA graphs, one pair for each padded length.

A step of a small model is thousands of kernels of some microseconds, which a processor takes several times as long to
ask for one by one. Embeddings, head and loss stay outside, and so does what a graph cannot hold: dropout, since a training that
goes on in another process would draw other numbers, and batches of other sizes. Which steps are replayed depends on the rows
alone, where the memory suffices for all graphs; else none is.
"""

import functools
import math
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from transformers.modeling_outputs import BaseModelOutputWithPast

from trials.evaluation.engine import shared_prefix
from trials.models import base, cuda_graphs, oom

_STEP = 64
"""Lengths are padded to multiples of it."""
_FEWEST = 4
"""Times that a length must come for a graph to be worth its making, which takes about as many steps."""


def fits(model: Any) -> bool:
    """Whether the blocks of the PEFT model can be replayed: no random numbers, and attention that causality alone limits."""
    core = model.get_base_model()
    drops = any(isinstance(module, torch.nn.Dropout) and module.p > 0 for module in model.modules())
    return shared_prefix.fits(core) and not drops and not base.dropouts(core)


@contextmanager
def replayed(model: Any, rows: int, lengths: Sequence[int]) -> Iterator[None]:
    """In the block, passes in training over `rows` rows, padded on the right, are replayed; `lengths`: of all these passes."""
    core = model.get_base_model()
    most = getattr(core.config, "max_position_embeddings", None) or math.inf
    times = Counter(map(_width, lengths))
    body, blocks = core.base_model, _Blocks(core)
    blocks.prepare(rows, sorted((width for width in times if times[width] >= _FEWEST and width <= most), reverse=True))
    own = body.__dict__.get("forward")  # accelerate may have put one there
    body.forward = blocks.forward
    try:
        yield
    finally:
        del body.forward
        if own is not None:
            body.forward = own


def _width(length: int) -> int:
    return -(-length // _STEP) * _STEP


class _Blocks:
    """What stands in for the body's own forward."""

    def __init__(self, core: Any):
        self.core, self.body, self.usual = core, core.base_model, core.base_model.forward
        self.embedded = core.get_input_embeddings()
        self.kind: type[Any] = BaseModelOutputWithPast  # of output
        self.ready: dict[tuple[int, int], Callable[[torch.Tensor], torch.Tensor]] = {}
        """What takes the blocks' input to their output, by its (rows, length)."""

    def prepare(self, rows: int, widths: Sequence[int]) -> None:
        """The graphs, the widest first: what these have had in memory is the others'. All or none, and before the first step,
        that a training which goes on decides alike."""
        oom.release()
        training, pool = self.body.training, None
        self.body.train()
        try:
            for width in widths:
                with torch.no_grad():
                    like = self.embedded(torch.zeros(rows, width, dtype=torch.long, device=self.core.device))
                made = _Graphs(self, like)
                run, capture = functools.partial(made.run, self), functools.partial(made.capture, self, pool)
                if cuda_graphs.tried(self.core, run, capture) is None:
                    self.ready = {}
                    return
                self.ready[rows, width], pool = functools.partial(_replay, made), made.forward.pool()
        finally:
            self.body.train(training)

    def forward(self, input_ids: torch.Tensor | None = None, **others: Any) -> Any:
        training = input_ids is not None and torch.is_grad_enabled() and self.body.training
        if input_ids is None or not training or others.get("output_hidden_states"):
            return self.usual(input_ids=input_ids, **others)
        (count, length), width = input_ids.shape, _width(input_ids.shape[1])
        if (count, width) not in self.ready:
            return self.usual(input_ids=input_ids, **others)
        states = torch.nn.functional.pad(self.embedded(input_ids), (0, 0, 0, width - length))
        found = self.ready[count, width](states)
        return self.kind(last_hidden_state=found[:, :length])

    def blocks(self, states: torch.Tensor) -> torch.Tensor:
        """No mask: what pads a row comes after all of it, and causality hides it."""
        found = self.usual(inputs_embeds=states, use_cache=False)
        self.kind = type(found)
        last: torch.Tensor = found.last_hidden_state
        return last


class _Graphs:
    """The blocks at one shape: a graph forward, one backward, and the tensors that both read and write."""

    forward: Any
    backward: Any
    """torch.cuda.CUDAGraph."""
    out: torch.Tensor
    gradients: Sequence[torch.Tensor | None]
    """Of the weights."""

    def __init__(self, blocks: _Blocks, like: torch.Tensor):
        self.weights = [weight for weight in blocks.body.parameters() if weight.requires_grad]
        self.states, self.gradient = torch.zeros_like(like), torch.zeros_like(like)

    def run(self, blocks: _Blocks) -> None:
        self._back(blocks.blocks(self.states))

    def capture(self, blocks: _Blocks, pool: tuple[int, int] | None) -> bool:
        self.forward, out = cuda_graphs.captured(lambda: blocks.blocks(self.states), pool)
        self.backward, self.gradients = cuda_graphs.captured(lambda: self._back(out), self.forward.pool())
        self.out = out.detach()
        return True

    def _back(self, out: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        return torch.autograd.grad(out, self.weights, self.gradient, allow_unused=True)


def _replay(there: _Graphs, states: torch.Tensor) -> torch.Tensor:
    found: torch.Tensor = _Replay.apply(there, states, *there.weights)
    return found


class _Replay(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, there: _Graphs, states: torch.Tensor, *weights: torch.Tensor) -> torch.Tensor:
        ctx.there = there
        there.states.copy_(states)
        there.forward.replay()
        return there.out.detach()

    @staticmethod
    def backward(ctx: Any, gradient: torch.Tensor) -> Any:  # type: ignore[override]
        there: _Graphs = ctx.there
        there.gradient.copy_(gradient)
        there.backward.replay()
        # copies: the next replay overwrites what these were, and a step may add up several
        copies = iter(torch._foreach_mul([one for one in there.gradients if one is not None], 1.0))
        return None, None, *(None if one is None else next(copies) for one in there.gradients)
