"""What all rows of a batch begin with, few-shot examples as a rule: run through the model once, kept once, read once for all.

Every row attends to that beginning and to its own tokens. The scores on the beginning are one product for all rows, where a
past of its own for each row would be read anew for each; both parts are joined by their sums of exponentials, as attention in
blocks does (Dao et al. 2022, arXiv 2205.14135, section 3.1).
"""

import inspect
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from transformers import AttentionInterface, DynamicCache
from transformers.cache_utils import DynamicLayer

from trials.data.batching import sent
from trials.evaluation.engine.kv_cache import Past

_WORTH = 16
"""Tokens; running fewer twice costs less than another pass."""
_NAME = "slimsweep_prefix"  # as transformers knows the attention below
_MOST = 2**25
"""Scores in memory at once."""
_UNKNOWN = ("softcap", "s_aux", "position_bias")
"""What some architectures' attention does besides, and the one here does not."""

_FLASH = getattr(torch.ops.aten, "_scaled_dot_product_flash_attention_for_cpu", None)
"""What scaled_dot_product_attention itself calls on a CPU, and throws the sums away."""

_lent: list[Past] = []
"""The past of the pass that is under way."""


def obstacle(model: Any) -> str | None:
    """Why the engine cannot run the model, as far as its configuration shows; None where trying may succeed."""
    lacks = {"position_ids", "past_key_values", "logits_to_keep"} - set(inspect.signature(model.forward).parameters)
    if lacks:
        return f"its forward pass takes no {', '.join(sorted(lacks))}"
    if model.config._attn_implementation not in ("sdpa", "eager"):
        return f"its attention is {model.config._attn_implementation}"
    if any(type(layer) is not DynamicLayer for layer in DynamicCache(config=model.config).layers):
        return "its past has a window, a state or latents"
    return None


def fits(model: Any) -> bool:
    """Whether the engine may be tried: trials/evaluation/engine/verification.py finds out whether its numbers are the model's
    own.
    """
    return obstacle(model) is None


def reads(model: Any) -> bool:
    """Whether the attention below can take the place of the model's own."""
    return bool(model._supports_attention_backend) and not getattr(model.config, "attn_logit_softcapping", None)


def common(model: Any, rows: Sequence[list[int]]) -> int:
    """How many tokens all rows begin with; 0 where it is not worth a pass of their own, or the model cannot lend its past."""
    if len(rows) < 2 or not reads(model):
        return 0
    first, last = min(rows), max(rows)
    shared = next((i for i, (a, b) in enumerate(zip(first, last, strict=False)) if a != b), min(len(first), len(last)))
    return shared if shared >= _WORTH else 0


def beginning(model: Any, ids: Sequence[int]) -> Past:
    """The model's past after these tokens, one row that is lent to any number of them; of no tokens an empty one."""
    kept = Past(model.config)
    if ids:
        model(sent(torch.tensor([ids]), model.device), past_key_values=kept, use_cache=True, logits_to_keep=1)
    return kept.lent()


@contextmanager
def attending(model: Any, past: Past) -> Iterator[None]:
    """In the block the model's rows see the beginning that their past was lent, besides what their own mask shows them."""
    if not past.beginning and not past.in_slots:
        yield
        return
    usual = model.config._attn_implementation
    model.config._attn_implementation = _NAME
    _lent.append(past)
    try:
        yield
    finally:
        _lent.pop()
        model.config._attn_implementation = usual


def attention(
    module: Any,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attention_mask: torch.Tensor,
    scaling: float | None = None,
    **others: Any,
) -> tuple[torch.Tensor, None]:
    """What `query`, (rows, heads, positions, width), finds in the lent beginning, which all positions see, and in the rows' own
    `key` and `value`, of which `attention_mask`, (rows, 1, positions, keys), says what is seen. (rows, positions, heads, width)
    """
    if any(others.get(name) is not None for name in _UNKNOWN):
        raise NotImplementedError(f"attention with {', '.join(_UNKNOWN)} to a beginning that rows share")
    past = _lent[-1]
    keys, values = past.beginning[module.layer_idx] if past.beginning else (key[:1, :, :0], value[:1, :, :0])
    scale = query.shape[-1] ** -0.5 if scaling is None else scaling
    rows = max(1, _MOST // (query.shape[1] * query.shape[2] * (keys.shape[2] + key.shape[2])))
    parts = []
    for i in range(0, len(query), rows):
        own, some = slice(i, i + rows), len(query[i : i + rows])
        asked = query[own].reshape(some, key.shape[1], -1, query.shape[3])  # several heads ask one head of the keys
        mask = attention_mask[own].expand(-1, query.shape[1] // key.shape[1], -1, -1).flatten(1, 2)[:, None]
        joined, own_sums = _attended(asked, key[own], value[own], mask, scale)
        if past.beginning:
            every = asked.transpose(0, 1).reshape(1, key.shape[1], -1, query.shape[3])
            of_shared, sums = _attended(every, keys, values, None, scale)
            of_shared, sums = (one[0].unflatten(1, (some, -1)).transpose(0, 1) for one in (of_shared, sums))
            part, of_own = torch.sigmoid(sums - own_sums)[..., None], joined.float()
            joined = of_own + part * (of_shared.float() - of_own)
        parts.append(joined.to(query.dtype).reshape(*query[own].shape[:3], -1))
    return torch.cat(parts).transpose(1, 2).contiguous(), None


def _attended(
    query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, mask: torch.Tensor | None, scale: float
) -> tuple[torch.Tensor, torch.Tensor]:
    """What the queries (rows, heads, positions, width) find, and the logarithm of the sum it was divided by, in float32."""
    if query.device.type != "cpu" or _FLASH is None or query.shape[-1] != value.shape[-1]:
        return _by_products(query, key, value, mask, scale)
    hidden = None
    if mask is not None:
        hidden = torch.zeros_like(mask, dtype=query.dtype).masked_fill_(~mask, torch.finfo(query.dtype).min)
    found, sums = _FLASH(query, key, value, 0.0, False, attn_mask=hidden, scale=scale)
    return found, sums.float()


def _by_products(
    query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, mask: torch.Tensor | None, scale: float
) -> tuple[torch.Tensor, torch.Tensor]:
    """_attended by two products and what is between them, in float32: scores of 16 bits would be off by what decides."""
    scores = query.float() * scale @ key.float().mT if _converts(query) else _product(query, key.mT).mul_(scale)
    if mask is not None:
        scores.masked_fill_(~mask, torch.finfo(torch.float32).min)
    most = scores.amax(dim=-1, keepdim=True)
    total = scores.sub_(most).exp_().sum(dim=-1, keepdim=True)
    shares, sums = scores / total, (most + total.log())[..., 0]
    return (shares @ value.float() if _converts(query) else _product(shares.to(value.dtype), value)), sums


def _converts(values: torch.Tensor) -> bool:
    """Whether it takes a conversion for products to be in float32: a GPU adds up so what is of 16 bits."""
    return values.device.type != "cuda" or values.dtype == torch.float32


def _product(one: torch.Tensor, other: torch.Tensor) -> torch.Tensor:
    """In float32, of (rows, heads, n, m) and (rows, heads, m, k)."""
    return torch.bmm(one.flatten(0, 1), other.flatten(0, 1), out_dtype=torch.float32).unflatten(0, one.shape[:2])


AttentionInterface.register(_NAME, attention)
