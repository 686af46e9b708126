"""Training on a GPU: the model's blocks, forward and backward, as CUDA graphs, one pair for each padded length.

A step of a small model is thousands of kernels of some microseconds, which a processor takes many times as long to ask for one
by one. Embeddings, head and loss stay outside, and so does what a graph cannot hold: dropout, since a training that goes on in
another process would draw other numbers, and batches of other sizes. Which steps are replayed depends on the rows alone.
"""

from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from transformers.modeling_outputs import BaseModelOutputWithPast

from trials import graphs, prefix

_STEP = 64
"""Lengths are padded to multiples of it."""
_FEWEST = 4
"""Times that a length must come for a graph to be worth its making, which takes about as many steps."""


def fits(model: Any) -> bool:
    """Whether the blocks of the PEFT model can be replayed: no random numbers, and attention that causality alone limits."""
    core = model.get_base_model()
    drops = any(isinstance(module, torch.nn.Dropout) and module.p > 0 for module in model.modules())
    return prefix.fits(core) and not drops and not getattr(core.config, "attention_dropout", 0)


@contextmanager
def replayed(model: Any, rows: int, lengths: Sequence[int]) -> Iterator[None]:
    """In the block, passes in training over `rows` rows, padded on the right, are replayed; `lengths`: of all these passes."""
    body = model.get_base_model().base_model
    widths = Counter(map(_width, lengths))
    blocks = _Blocks(model, body, {(rows, width) for width, times in widths.items() if times >= _FEWEST})
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

    def __init__(self, model: Any, body: Any, shapes: set[tuple[int, int]]):
        self.body, self.usual, self.shapes = body, body.forward, shapes
        self.embedded = model.get_base_model().get_input_embeddings()
        self.graphs: dict[tuple[int, int], _Graphs] = {}
        self.pool: tuple[int, int] | None = None

    def forward(self, input_ids: torch.Tensor | None = None, **others: Any) -> Any:
        if input_ids is None or not (torch.is_grad_enabled() and self.body.training):
            return self.usual(input_ids=input_ids, **others)
        (count, length), width = input_ids.shape, _width(input_ids.shape[1])
        if (count, width) not in self.shapes or others.get("output_hidden_states"):
            return self.usual(input_ids=input_ids, **others)
        states = torch.nn.functional.pad(self.embedded(input_ids), (0, 0, 0, width - length))
        found = self._run(states)
        if found is None:
            return self.usual(input_ids=input_ids, **others)
        return BaseModelOutputWithPast(last_hidden_state=found[:, :length])

    def _run(self, states: torch.Tensor) -> torch.Tensor | None:
        """The blocks' output; None where it is no graph after all."""
        if states.device.type != "cuda":
            return self.blocks(states)
        shape = (states.shape[0], states.shape[1])
        if shape not in self.graphs:
            # what is captured has memory of its own, beside that of the other steps
            if torch.cuda.mem_get_info(states.device)[0] < torch.cuda.max_memory_allocated(states.device):
                self.shapes.discard(shape)
                return None
            made = graphs.tried("the blocks in training", lambda: _Graphs(self, states, self.pool))
            if made is None:
                self.shapes.clear()
                return None
            self.graphs[shape], self.pool = made, made.forward.pool()
        there = self.graphs[shape]
        found: torch.Tensor = _Replay.apply(there, states, *there.weights)
        return found

    def blocks(self, states: torch.Tensor) -> torch.Tensor:
        """No mask: what pads a row comes after all of it, and causality hides it."""
        found: torch.Tensor = self.usual(inputs_embeds=states, use_cache=False).last_hidden_state
        return found


class _Graphs:
    """The blocks at one shape: a graph forward, one backward, and the tensors that both read and write."""

    def __init__(self, blocks: _Blocks, like: torch.Tensor, pool: tuple[int, int] | None):
        self.weights = [weight for weight in blocks.body.parameters() if weight.requires_grad]
        self.states = torch.zeros_like(like)

        def forward() -> torch.Tensor:
            return blocks.blocks(self.states)

        def backward(out: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
            return torch.autograd.grad(out, self.weights, self.gradient, allow_unused=True)

        self.gradient = torch.zeros_like(like)
        graphs.warm(lambda: backward(forward()))
        self.forward, out = graphs.captured(forward, pool)
        self.backward, self.gradients = graphs.captured(lambda: backward(out), self.forward.pool())
        self.out = out.detach()


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
