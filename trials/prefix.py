"""What all rows of a batch begin with, few-shot examples as a rule, run through the model once and lent to each of them."""

import inspect
from collections.abc import Sequence
from typing import Any

import torch
from transformers import DynamicCache
from transformers.cache_utils import DynamicLayer

from trials import past

_WORTH = 16
"""Tokens; running fewer twice costs less than another pass."""


def fits(model: Any) -> bool:
    """Whether the model's attention is told by a mask and by positions alone, and its past can be cut and repeated by rows."""
    kept = DynamicCache(config=model.config).layers
    return (
        {"position_ids", "past_key_values", "logits_to_keep"} <= set(inspect.signature(model.forward).parameters)
        and model.config._attn_implementation in ("sdpa", "eager")
        and all(type(layer) is DynamicLayer for layer in kept)  # no window, nothing recurrent
    )


def common(rows: Sequence[list[int]]) -> int:
    """How many tokens all rows begin with; 0 where it is not worth a pass of their own."""
    if len(rows) < 2:
        return 0
    first, last = min(rows), max(rows)
    shared = next((i for i, (a, b) in enumerate(zip(first, last, strict=False)) if a != b), min(len(first), len(last)))
    return shared if shared >= _WORTH else 0


def cache(model: Any, ids: Sequence[int], rows: int) -> DynamicCache | None:
    """The model's past after these tokens, for each of so many rows; None after no tokens."""
    if not ids:
        return None
    kept = past.empty(model.config)
    model(torch.tensor([ids], device=model.device), past_key_values=kept, use_cache=True, logits_to_keep=1)
    kept.batch_repeat_interleave(rows)
    return kept
