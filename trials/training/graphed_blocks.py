"""Training on a GPU with CUDA graphs of the model's blocks: a forward and a backward graph for each padded length.

A step of a small model is thousands of kernels of some microseconds each, and launching them one by one takes several times as
long. Embeddings, head and loss stay outside of the graphs.
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

_STEP = 64  # lengths are padded to multiples of this
_FEWEST = 4  # number of passes of a length that pay for its capture, which takes about as long as that many steps


def fits(model: Any) -> bool:
    """Whether the PEFT model's blocks can be captured: no random numbers, and no attention mask but the causal one."""
    # with dropout, a resumed training would draw other random numbers from a graph than an undisturbed one
    core = model.get_base_model()
    drops = any(isinstance(module, torch.nn.Dropout) and module.p > 0 for module in model.modules())
    return shared_prefix.fits(core) and not drops and not base.dropouts(core)


@contextmanager
def replayed(model: Any, rows: int, lengths: Sequence[int]) -> Iterator[None]:
    """Within the context, training passes over `rows` right-padded rows are replayed. `lengths`: the lengths of all passes."""
    core = model.get_base_model()
    most = getattr(core.config, "max_position_embeddings", None) or math.inf
    times = Counter(map(_width, lengths))
    body, blocks = core.base_model, _Blocks(core)
    blocks.prepare(rows, sorted((width for width in times if times[width] >= _FEWEST and width <= most), reverse=True))
    own = body.__dict__.get("forward")  # accelerate may have set one
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
    """Replaces the forward method of the model's body: embeds, pads, replays."""

    def __init__(self, core: Any):
        self.core, self.body, self.usual = core, core.base_model, core.base_model.forward
        self.embedded = core.get_input_embeddings()
        self.kind: type[Any] = BaseModelOutputWithPast  # of output
        self.ready: dict[tuple[int, int], Callable[[torch.Tensor], torch.Tensor]] = {}
        """The replay of the blocks by the (rows, length) of its input."""

    def prepare(self, rows: int, widths: Sequence[int]) -> None:
        """Captures the graphs before the first step, the widest first, so that the others reuse its memory."""
        oom.release()
        training, pool = self.body.training, None
        self.body.train()
        try:
            for width in widths:
                with torch.no_grad():
                    like = self.embedded(torch.zeros(rows, width, dtype=torch.long, device=self.core.device))
                made = _Graphs(self, like)
                run, capture = functools.partial(made.run, self), functools.partial(made.capture, self, pool)
                # all or none, so that a resumed training replays the same steps as an undisturbed one
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
        # no mask: the padding lies behind a row's tokens, where causal attention hides it
        found = self.usual(inputs_embeds=states, use_cache=False)
        self.kind = type(found)
        last: torch.Tensor = found.last_hidden_state
        return last


class _Graphs:
    """The blocks at one shape: a forward graph, a backward graph, and their static input and output tensors."""

    forward: Any
    backward: Any
    """torch.cuda.CUDAGraph."""
    out: torch.Tensor
    gradients: Sequence[torch.Tensor | None]
    """Gradients of the weights."""

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


def _replay(graphs: _Graphs, states: torch.Tensor) -> torch.Tensor:
    found: torch.Tensor = _Replay.apply(graphs, states, *graphs.weights)
    return found


class _Replay(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, graphs: _Graphs, states: torch.Tensor, *weights: torch.Tensor) -> torch.Tensor:
        ctx.graphs = graphs
        graphs.states.copy_(states)
        graphs.forward.replay()
        return graphs.out.detach()

    @staticmethod
    def backward(ctx: Any, gradient: torch.Tensor) -> Any:  # type: ignore[override]
        graphs: _Graphs = ctx.graphs
        graphs.gradient.copy_(gradient)
        graphs.backward.replay()
        # copies: the next replay overwrites these tensors, and a step may accumulate several
        copies = iter(torch._foreach_mul([one for one in graphs.gradients if one is not None], 1.0))
        return None, None, *(None if one is None else next(copies) for one in graphs.gradients)
