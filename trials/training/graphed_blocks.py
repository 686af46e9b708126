"""Training on a GPU with CUDA graphs of the model's blocks: a forward and a backward graph for each size of a pass.

A step of a small model is thousands of kernels of some microseconds each, and launching them one by one takes several times as
long. Embeddings, head and loss stay outside of the graphs.
"""

import functools
import math
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from transformers.modeling_outputs import BaseModelOutputWithPast

from trials.adapters import methods
from trials.evaluation.engine import shared_prefix
from trials.models import base, cuda_graphs, oom
from trials.training import packing

_STEP = 64  # lengths of padded rows are padded further to multiples of this
_PACKED_STEP = 256  # packed passes are filled up to multiples of this: a fifteenth more tokens for 16 rows of Alpaca
_FEWEST = 4  # number of passes of a length that pay for its capture, which takes about as long as that many steps


def fits(model: Any, packed: bool) -> bool:
    """Whether the PEFT model's blocks can be captured: LoRA, no random numbers, and attention that needs no mask."""
    if not methods.capturable(model):
        return False
    # with dropout, a resumed training would draw other random numbers from a graph than an undisturbed one
    core = model.get_base_model()
    drops = any(isinstance(module, torch.nn.Dropout) and module.p > 0 for module in model.modules())
    # a checkpointed block, as Unsloth's are, runs its forward pass again in the backward one
    checkpointed = any(getattr(module, "gradient_checkpointing", False) for module in core.modules())
    if drops or checkpointed or base.dropouts(core):
        return False
    return packing.has_kernel(core.device, core.dtype) if packed else shared_prefix.fits(core)


@contextmanager
def replayed(model: Any, passes: Sequence[Sequence[int]], packed: bool) -> Iterator[None]:
    """Within the context, training passes are replayed. `passes`: the lengths of each pass's rows."""
    core = model.get_base_model()
    most = getattr(core.config, "max_position_embeddings", None) or math.inf
    body, blocks = core.base_model, _Blocks(core, packed, max(map(len, passes), default=0))
    # a pass with fewer rows is not replayed unless it is packed
    times = Counter(blocks.shape(lengths) for lengths in passes if packed or len(lengths) == blocks.rows)
    shapes = [shape for shape in times if times[shape] >= _FEWEST and (packed or shape[1] <= most)]
    blocks.prepare(sorted(shapes, key=lambda shape: -shape[1]), max(map(max, passes), default=0))
    own = body.__dict__.get("forward")  # accelerate may have set one
    body.forward = blocks.forward
    try:
        yield
    finally:
        del body.forward
        if own is not None:
            body.forward = own


Shape = tuple[int, int]
"""(rows, positions) of a pass over padded rows, (1, positions) of a packed one."""


@dataclass(frozen=True)
class _Packed:
    """What a packed pass needs besides its states."""

    positions: torch.Tensor
    """(1, width): each token's position in its row."""
    rows: packing.Rows


class _Blocks:
    """Replaces the forward method of the model's body: embeds, pads, replays."""

    def __init__(self, core: Any, packed: bool, rows: int):
        self.core, self.packed, self.rows = core, packed, rows
        self.longest = 0
        """Tokens of the longest row that the graphs are made for."""
        self.waiting = False
        """Whether a replayed forward pass waits for its backward pass, which needs what the graphs' memory holds."""
        self.body, self.usual = core.base_model, core.base_model.forward
        self.embedded = core.get_input_embeddings()
        self.kind: type[Any] = BaseModelOutputWithPast  # of output
        self.ready: dict[Shape, Callable[[torch.Tensor, _Packed | None], torch.Tensor]] = {}
        """The replay of the blocks by the shape of its input."""

    def shape(self, lengths: Sequence[int]) -> Shape:
        """The shape of a pass over rows of these lengths."""
        return (1, _width(sum(lengths), _PACKED_STEP)) if self.packed else (len(lengths), _width(max(lengths), _STEP))

    def prepare(self, shapes: Sequence[Shape], longest: int) -> None:
        """Captures the graphs before the first step, the widest first, so that the others reuse its memory.

        `longest`: tokens of the longest row.
        """
        oom.release()
        self.longest = max(longest, _PACKED_STEP)
        training, pool = self.body.training, None
        self.body.train()
        try:
            for shape in shapes:
                with torch.no_grad():
                    like = self.embedded(torch.zeros(shape, dtype=torch.long, device=self.core.device))
                made = _Graphs(self, like, _room(shape[1], self.rows, self.longest, like.device) if self.packed else None)
                run, capture = functools.partial(made.run, self), functools.partial(made.capture, self, pool)
                # all or none, so that a resumed training replays the same steps as an undisturbed one
                if cuda_graphs.tried(self.core, run, capture) is None:
                    self.ready = {}
                    return
                self.ready[shape], pool = functools.partial(_replay, made), made.forward.pool()
        finally:
            self.body.train(training)

    def forward(self, input_ids: torch.Tensor | None = None, **others: Any) -> Any:
        training = input_ids is not None and torch.is_grad_enabled() and self.body.training
        if input_ids is None or not training or others.get("output_hidden_states"):
            return self.usual(input_ids=input_ids, **others)
        (count, length), rows = input_ids.shape, packing.active()
        width = _width(length, _STEP if rows is None else _PACKED_STEP)
        fits = rows is None if not self.packed else rows is not None and rows.longest <= self.longest
        if (count, width) not in self.ready or not fits:
            return self.usual(input_ids=input_ids, **others)
        states = torch.nn.functional.pad(self.embedded(input_ids), (0, 0, 0, width - length))
        given = None
        if rows is not None:
            positions = torch.nn.functional.pad(others["position_ids"], (0, width - length))
            given = _Packed(positions, rows.filled(width, self.rows))
        found = self.ready[count, width](states, given)
        return self.kind(last_hidden_state=found[:, :length])

    def blocks(self, states: torch.Tensor, given: _Packed | None) -> torch.Tensor:
        if given is None:
            # no mask: the padding lies behind a row's tokens, where causal attention hides it
            found = self.usual(inputs_embeds=states, use_cache=False)
        else:
            with packing.kept_apart(self.core, given.rows):
                found = self.usual(inputs_embeds=states, position_ids=given.positions, use_cache=False)
        self.kind = type(found)
        last: torch.Tensor = found.last_hidden_state
        return last


def _width(length: int, step: int) -> int:
    return -(-length // step) * step


def _room(width: int, rows: int, longest: int, device: torch.device) -> _Packed:
    """Inputs with fixed addresses, for up to `rows` rows and a row that fills the pass."""
    starts = (torch.arange(rows + 2, dtype=torch.int32, device=device) * longest).clamp(max=width)
    positions = torch.zeros(1, width, dtype=torch.long, device=device)  # a learnt table may be shorter than a pass
    return _Packed(positions, packing.Rows((), starts, longest))


class _Graphs:
    """The blocks at one shape: a forward graph, a backward graph, and their static input and output tensors."""

    forward: Any
    backward: Any
    """torch.cuda.CUDAGraph."""
    out: torch.Tensor
    gradients: Sequence[torch.Tensor | None]
    """Gradients of the weights."""

    def __init__(self, blocks: _Blocks, like: torch.Tensor, given: _Packed | None):
        self.weights = [weight for weight in blocks.body.parameters() if weight.requires_grad]
        self.owner, self.given = blocks, given
        self.states, self.gradient = torch.zeros_like(like), torch.zeros_like(like)

    def run(self, blocks: _Blocks) -> None:
        self._back(blocks.blocks(self.states, self.given))

    def capture(self, blocks: _Blocks, pool: tuple[int, int] | None) -> bool:
        self.forward, out = cuda_graphs.captured(lambda: blocks.blocks(self.states, self.given), pool)
        self.backward, self.gradients = cuda_graphs.captured(lambda: self._back(out), self.forward.pool())
        self.out = out.detach()
        return True

    def _back(self, out: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        return torch.autograd.grad(out, self.weights, self.gradient, allow_unused=True)


def _replay(graphs: _Graphs, states: torch.Tensor, given: _Packed | None) -> torch.Tensor:
    if graphs.given is not None:
        assert given is not None
        graphs.given.positions.copy_(given.positions)
        graphs.given.rows.starts.copy_(given.rows.starts)
    found: torch.Tensor = _Replay.apply(graphs, states, *graphs.weights)
    return found


class _Replay(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, graphs: _Graphs, states: torch.Tensor, *weights: torch.Tensor) -> torch.Tensor:
        if graphs.owner.waiting:
            raise RuntimeError("a pass is replayed before the backward pass of the one before it")
        ctx.graphs, graphs.owner.waiting = graphs, True
        graphs.states.copy_(states)
        graphs.forward.replay()
        return graphs.out.clone()  # the next replay writes into `out`

    @staticmethod
    def backward(ctx: Any, gradient: torch.Tensor) -> Any:  # type: ignore[override]
        graphs: _Graphs = ctx.graphs
        graphs.gradient.copy_(gradient)
        graphs.backward.replay()
        graphs.owner.waiting = False
        # copies: the next replay overwrites these tensors, and a step may accumulate several
        copies = iter(torch._foreach_mul([one for one in graphs.gradients if one is not None], 1.0))
        return None, None, *(None if one is None else next(copies) for one in graphs.gradients)
