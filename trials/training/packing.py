"""Packed training passes: the rows of a micro-batch follow each other in one row, and attention keeps them apart.

Nothing is padded. Positions begin anew with each row, and all layers but attention treat every token by itself, so losses and
gradients are those of single rows up to rounding. Where they are not, as `obstacle` finds out, rows are padded.
"""

import inspect
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import accumulate
from typing import Any
from weakref import WeakKeyDictionary

import torch
from torch.nn.attention.varlen import varlen_attn
from transformers import AttentionInterface

from trials.adapters.methods import adapted_layers
from trials.data import batching
from trials.data.batching import counted, sent
from trials.evaluation.engine import shared_prefix
from trials.mix import Example
from trials.models import attention as attention_of
from trials.models import base, oom
from trials.models.lm_head import logits_at, predicting
from trials.spec import Train
from trials.template import IGNORED

_NAME = "slimsweep_packed"
"""Name under which transformers knows the attention below."""
_ROUNDING = {torch.float32: 1e-3, torch.float16: 0.05, torch.bfloat16: 0.1}
"""By type, the largest difference of two gradients that may be rounding, as a share of their norm."""
_alike: WeakKeyDictionary[Any, set[Any]] = WeakKeyDictionary()
"""By base, the adapters (whatever their rank) and lengths of rows for which packed rows had the gradients of single ones."""


@dataclass(frozen=True)
class Rows:
    """Where the rows of a packed pass begin and end."""

    lengths: Sequence[int]
    """Tokens by row."""
    starts: torch.Tensor
    """(rows + 1,) int32 on the pass's device: each row's first position, and the number of tokens."""
    longest: int
    """At least the longest row's tokens."""

    @classmethod
    def of(cls, lengths: Sequence[int], device: torch.device) -> "Rows":
        starts = torch.tensor([0, *accumulate(lengths)], dtype=torch.int32)
        return cls(lengths, sent(starts, device), max(lengths))

    def filled(self, width: int, most: int) -> "Rows":
        """Adds a row that fills the pass up to `width`, maybe an empty one. `starts` always has `most` + 2 entries."""
        rest = width - sum(self.lengths)
        starts = torch.nn.functional.pad(self.starts, (0, most + 1 - len(self.lengths)), value=width)
        return Rows([*self.lengths, rest] if rest else self.lengths, starts, max(self.longest, rest))


_active: list[Rows] = []
"""The rows of the pass that is under way, for `attention`."""


def active() -> Rows | None:
    """The rows of the pass that is under way, where they are packed."""
    return _active[-1] if _active else None


def collate(rows: Sequence[Example]) -> dict[str, Any]:
    """(1, all tokens) tensors input_ids, position_ids and labels, and the rows' `lengths`.

    A row's first label is IGNORED: the loss never counts it, and here the previous row would predict it.
    """
    lengths = [len(row.input_ids) for row in rows]
    return {
        "input_ids": torch.tensor([[token for row in rows for token in row.input_ids]]),
        "position_ids": torch.cat([torch.arange(length) for length in lengths])[None],
        "labels": torch.tensor([[label for row in rows for label in [IGNORED, *row.labels[1:]]]]),
        "lengths": lengths,
    }


def rows_of(model: Any, batch: Mapping[str, Any]) -> Rows | None:
    """The rows of a batch of `collate`; None for one of batching.collate."""
    return Rows.of(batch["lengths"], model.device) if "lengths" in batch else None


@contextmanager
def kept_apart(core: Any, rows: Rows | None) -> Iterator[None]:
    """Within the context, attention of the base keeps these rows of a packed pass apart. None: the pass is not packed."""
    if rows is None:
        yield
        return
    with attention_of.lent(core, _NAME, _active, rows):
        yield


def attention(
    module: Any,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attention_mask: torch.Tensor | None,
    scaling: float | None = None,
    **others: Any,
) -> tuple[torch.Tensor, None]:
    """Causal attention of each row to itself, in the form that transformers calls.

    `query`: (1, heads, positions, width); `key` and `value` may have fewer heads. Returns (1, positions, heads, width).
    """
    if unknown := [name for name in (*shared_prefix.UNKNOWN, "sliding_window") if others.get(name) is not None]:
        raise NotImplementedError(f"attention with {', '.join(unknown)} on packed rows")
    rows, grouped = _active[-1], query.shape[1] != key.shape[1]
    if has_kernel(query.device, query.dtype):
        q, k, v = (one[0].transpose(0, 1) for one in (query, key, value))
        where: Any = (rows.starts, rows.starts, rows.longest, rows.longest)
        options: dict[str, Any] = {}
        if grouped and _TAKES_GROUPS:
            options["enable_gqa"] = True
        elif grouped:  # an earlier torch
            k, v = (one.repeat_interleave(q.shape[1] // one.shape[1], dim=1) for one in (k, v))
        found = varlen_attn(q, k, v, *where, scale=scaling, window_size=(-1, 0), **options)
        assert isinstance(found, torch.Tensor)
        return found[None], None
    # in float32: on a CPU the backward of a row of 100 tokens takes 3.9 ms in bfloat16, and 1.0 so
    own = zip(*(one.float().split(rows.lengths, dim=2) for one in (query, key, value)), strict=True)
    usual = torch.nn.functional.scaled_dot_product_attention
    parts = [usual(q, k, v, is_causal=True, scale=scaling, enable_gqa=grouped) for q, k, v in own]
    return torch.cat(parts, dim=2).transpose(1, 2).contiguous().to(query.dtype), None


_TAKES_GROUPS = "enable_gqa" in inspect.signature(varlen_attn).parameters


AttentionInterface.register(_NAME, attention)


def has_kernel(device: torch.device, kind: torch.dtype) -> bool:
    """Whether one kernel attends to all rows, wherever they begin: FlashAttention's, for 16 bits on GPUs from Ampere on."""
    if device.type != "cuda" or kind not in (torch.float16, torch.bfloat16):
        return False
    return torch.cuda.get_device_capability(device) >= (8, 0)


def obstacle(model: Any, settings: Train, rows: Sequence[Example]) -> str | None:
    """Why the PEFT model cannot be trained on packed rows as on single ones; None if it can.

    The longest rows are tried both ways, with as many tokens as two of them have.
    """
    core = model.get_base_model()
    if settings.neftune > 0:
        return "train.neftune scales its noise by the length of the padded rows"
    if base.dropouts(core) or any(isinstance(module, torch.nn.Dropout) and module.p > 0 for module in model.modules()):
        return "dropout draws other random numbers for packed rows"
    if core.device.type == "cuda" and not has_kernel(core.device, core.dtype):
        return "no kernel for several rows in this type on this GPU, where padded rows are replayed as CUDA graphs"
    return shared_prefix.obstacle(core) or _tried(model, rows)


def _tried(model: Any, rows: Sequence[Example]) -> str | None:
    """What is wrong with a row's gradient behind another row; None if nothing is."""
    if not shared_prefix.reads(model.get_base_model()):
        return "its attention is its own"
    ordered = sorted(rows, key=lambda row: -len(row.input_ids))
    second = next((row for row in ordered if any(label != IGNORED for label in row.labels[1:])), None)
    if second is None:
        return None  # nothing is learnt
    other = next((row for row in ordered if row is not second), second)
    first = Example(other.source, other.input_ids, [IGNORED] * len(other.labels))
    known = _alike.setdefault(model.get_base_model(), set())
    if (key := (_kinds(model), len(first.input_ids), len(second.input_ids))) in known:
        return None
    training = model.training
    model.train()
    try:
        # alone as the model itself runs it: its attention may do more than the one above, which then loses it in both ways
        alone, behind = _gradient(model, batching.collate([second], 0)), _gradient(model, collate([first, second]))
    except Exception as error:  # an architecture's code may raise anything when it is run in a way that it does not know
        oom.release()
        return f"{type(error).__name__}: {' '.join(str(error).split())[:160]}"
    finally:
        model.train(training)
    share = float((alone - behind).norm() / alone.norm())
    if share > _ROUNDING[model.dtype]:
        return f"gradients of packed rows differ by {share:.2g} of their norm"
    known.add(key)
    return None


def _kinds(model: Any) -> frozenset[tuple[str, ...]]:
    """The layers with an adapter by name, with the classes of layer and variant."""
    layers = adapted_layers(model.get_base_model()).items()
    return frozenset(
        (name, type(layer).__name__, *(type(one).__name__ for one in getattr(layer, "lora_variant", {}).values()))
        for name, layer in layers
    )


def _gradient(model: Any, batch: Mapping[str, Any]) -> torch.Tensor:
    """The gradient of the rows' summed loss by the adapter's weights, as one vector in float32."""
    inputs = {name: value.to(model.device) for name, value in batching.forward_inputs(batch).items()}
    labels = batch["labels"].to(model.device)
    here = counted(labels)
    with kept_apart(model.get_base_model(), rows_of(model, batch)):
        logits = logits_at(model, inputs, predicting(here)).float()
    weights = [weight for weight in model.parameters() if weight.requires_grad]
    loss = torch.nn.functional.cross_entropy(logits, labels[:, 1:][here], reduction="sum")
    found = torch.autograd.grad(loss, weights, allow_unused=True, materialize_grads=True)
    return torch.cat([one.float().flatten() for one in found])
