"""Shared-prefix attention: what all rows of a batch begin with, few-shot examples as a rule, is computed and cached once.

Every row attends to that cache and to its own tokens. The scores on the beginning are one product for all rows, where a cache
for each row would be read once a row. Both parts are joined by their sums of exponentials, as attention in blocks does (Dao et
al. 2022, arXiv 2205.14135, section 3.1).
"""

import inspect
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from transformers import AttentionInterface, DynamicCache
from transformers.cache_utils import DynamicLayer

from trials.data.batching import sent
from trials.evaluation.engine.kv_cache import PrefixCache
from trials.models import attention as attention_of

_WORTH = 16
"""Tokens; running fewer twice costs less than another pass."""
_NAME = "slimsweep_prefix"
"""Name under which transformers knows the attention below."""
_MOST = 2**25
"""Scores in memory at once."""
UNKNOWN = ("softcap", "s_aux", "position_bias")
"""Arguments of some architectures' attention that the one here does not implement."""

# scaled_dot_product_attention itself calls it on a CPU, and drops the sums that are needed here
_FLASH = getattr(torch.ops.aten, "_scaled_dot_product_flash_attention_for_cpu", None)

_active: list[PrefixCache] = []
"""The cache of the pass that is under way, for `attention`."""


def obstacle(model: Any) -> str | None:
    """Why the fast engine cannot run the model, as far as its configuration shows; None if trying may succeed."""
    lacks = {"position_ids", "past_key_values", "logits_to_keep"} - set(inspect.signature(model.forward).parameters)
    if lacks:
        return f"its forward pass takes no {', '.join(sorted(lacks))}"
    if model.config._attn_implementation not in ("sdpa", "eager"):
        return f"its attention is {model.config._attn_implementation}"
    if any(type(layer) is not DynamicLayer for layer in DynamicCache(config=model.config).layers):
        return "its past has a window, a state or latents"
    return None


def fits(model: Any) -> bool:
    """Whether the fast engine may be tried; verification.py checks whether its numbers are the model's own."""
    return obstacle(model) is None


def reads(model: Any) -> bool:
    """Whether the attention below can take the place of the model's own."""
    return bool(model._supports_attention_backend) and not getattr(model.config, "attn_logit_softcapping", None)


def common(model: Any, rows: Sequence[list[int]]) -> int:
    """The number of tokens that all rows begin with; 0 if they are not worth a pass, or the model's attention is its own."""
    if len(rows) < 2 or not reads(model):
        return 0
    first, last = min(rows), max(rows)  # rows in between begin with whatever these two share
    shared = next((i for i, (a, b) in enumerate(zip(first, last, strict=False)) if a != b), min(len(first), len(last)))
    return shared if shared >= _WORTH else 0


def beginning(model: Any, ids: Sequence[int]) -> PrefixCache:
    """An empty cache whose beginning are these tokens, run once; without tokens it has no beginning."""
    cache = PrefixCache(model.config)
    if ids:
        model(sent(torch.tensor([ids]), model.device), past_key_values=cache, use_cache=True, logits_to_keep=1)
    return cache.as_beginning()


@contextmanager
def attending(model: Any, cache: PrefixCache) -> Iterator[None]:
    """In the block the model's rows attend to the beginning of their cache, and to what their own mask shows."""
    if not cache.beginning and not cache.in_slots:
        yield
        return
    with attention_of.lent(model, _NAME, _active, cache):
        yield


def attention(
    module: Any,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attention_mask: torch.Tensor,
    scaling: float | None = None,
    **others: Any,
) -> tuple[torch.Tensor, None]:
    """Attention, in the form that transformers calls, to the shared beginning and to the rows' own `key` and `value`.

    `query`: (rows, heads, positions, width). Every position sees all of the beginning; `attention_mask`, (rows, 1, positions,
    keys), is true where it sees an own key. Returns (rows, positions, heads, width).
    """
    if any(others.get(name) is not None for name in UNKNOWN):
        raise NotImplementedError(f"attention with {', '.join(UNKNOWN)} to a beginning that rows share")
    cache = _active[-1]
    keys, values = cache.beginning[module.layer_idx] if cache.beginning else (key[:1, :, :0], value[:1, :, :0])
    scale = query.shape[-1] ** -0.5 if scaling is None else scaling
    positions = max(1, _MOST // (query.shape[1] * (keys.shape[2] + key.shape[2])))  # of all rows of a part
    rows = max(1, positions // query.shape[2])
    parts = []
    for i in range(0, len(query), rows):
        own = slice(i, i + rows)
        cut = zip(query[own].split(positions, dim=2), attention_mask[own].split(positions, dim=2), strict=True)
        some = [_joined(one, key[own], value[own], mask, (keys, values), scale) for one, mask in cut]
        parts.append(some[0] if len(some) == 1 else torch.cat(some, dim=2))
    whole = parts[0] if len(parts) == 1 else torch.cat(parts)
    return whole.transpose(1, 2).contiguous(), None


def _joined(
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    mask: torch.Tensor,
    beginning: tuple[torch.Tensor, torch.Tensor],
    scale: float,
) -> torch.Tensor:
    """Attention of some rows, or of some positions of a row, to the beginning and to own keys: as `query`."""
    some = len(query)
    grouped = query.reshape(some, key.shape[1], -1, query.shape[3])  # grouped heads
    mask = mask.expand(-1, query.shape[1] // key.shape[1], -1, -1).flatten(1, 2)[:, None]
    joined, own_sums = _attended(grouped, key, value, mask, scale)
    if beginning[0].shape[2]:
        every = grouped.transpose(0, 1).reshape(1, key.shape[1], -1, query.shape[3])
        of_shared, sums = _attended(every, *beginning, None, scale)
        of_shared, sums = (one[0].unflatten(1, (some, -1)).transpose(0, 1) for one in (of_shared, sums))
        part, of_own = torch.sigmoid(sums - own_sums)[..., None], joined.float()
        joined = of_own + part * (of_shared.float() - of_own)
    return joined.to(query.dtype).reshape(*query.shape[:3], -1)


def _attended(
    query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, mask: torch.Tensor | None, scale: float
) -> tuple[torch.Tensor, torch.Tensor]:
    """Attention of queries (rows, heads, positions, width), and its logarithm of the sum of exponentials in float32."""
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
    """`_attended` by two products with a softmax in float32: scores in 16 bits are too coarse."""
    scores = query.float() * scale @ key.float().mT if _converts(query) else _product(query, key.mT).mul_(scale)
    if mask is not None:
        scores.masked_fill_(~mask, torch.finfo(torch.float32).min)
    most = scores.amax(dim=-1, keepdim=True)
    total = scores.sub_(most).exp_().sum(dim=-1, keepdim=True)
    shares, sums = scores / total, (most + total.log())[..., 0]
    return (shares @ value.float() if _converts(query) else _product(shares.to(value.dtype), value)), sums


def _converts(values: torch.Tensor) -> bool:
    """Whether products in float32 need a conversion: a GPU adds up 16-bit products in float32 by itself."""
    return values.device.type != "cuda" or values.dtype == torch.float32


def _product(one: torch.Tensor, other: torch.Tensor) -> torch.Tensor:
    """The product in float32 of (rows, heads, n, m) and (rows, heads, m, k)."""
    return torch.bmm(one.flatten(0, 1), other.flatten(0, 1), out_dtype=torch.float32).unflatten(0, one.shape[:2])


AttentionInterface.register(_NAME, attention)
