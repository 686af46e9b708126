"""A model's head asked at some positions alone: it is a fifth to a half of a small model, and the loss counts few positions."""

from collections.abc import Mapping
from typing import Any

import torch


def logits_at(model: Any, inputs: Mapping[str, Any], places: torch.Tensor) -> torch.Tensor:
    """(places, vocabulary): the model's logits where `places`, (rows, length) of bools, is true; in the order of the rows."""
    head = model.get_output_embeddings()
    if head is None:
        return model(**inputs).logits[places]
    hook = head.register_forward_pre_hook(lambda _, given: (given[0][places][None], *given[1:]))
    try:
        return model(**inputs).logits[0]
    finally:
        hook.remove()


def predicting(counted: torch.Tensor) -> torch.Tensor:
    """(rows, length), where a token that counts is predicted; of (rows, length - 1) as batch.counted gives it."""
    return torch.nn.functional.pad(counted, (0, 1))
