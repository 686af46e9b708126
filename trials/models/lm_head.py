"""A model's head asked at some positions alone: it is a fifth to a half of a small model, and the loss counts few positions."""

from collections.abc import Mapping
from typing import Any

import torch

from trials.data.batching import sent


def logits_at(model: Any, inputs: Mapping[str, Any], places: torch.Tensor) -> torch.Tensor:
    """(places, vocabulary): the model's logits where `places`, (rows, length) of bools, is true; in the order of the rows.

    With `places` on the CPU nothing waits for a GPU.
    """
    return logits_and_states(model, inputs, places)[0]


def logits_and_states(model: Any, inputs: Mapping[str, Any], places: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor | None]:
    """logits_at, and what the head was given for them, (places, hidden); None of a model that has no head of its own."""
    head = model.get_output_embeddings()
    if head is None:
        return model(**inputs).logits[places], None
    states: list[torch.Tensor] = []
    numbers = places.flatten().nonzero()[:, 0]

    def chosen(_: Any, given: tuple[Any, ...]) -> tuple[Any, ...]:
        states.append(given[0].flatten(0, 1)[sent(numbers, given[0].device)])
        return states[0][None], *given[1:]

    hook = head.register_forward_pre_hook(chosen)
    try:
        return model(**inputs).logits[0], states[0]
    finally:
        hook.remove()


def logits_of(model: Any, states: torch.Tensor) -> torch.Tensor:
    """(places, vocabulary): what the head makes of its input; the model's logits, unless it changes them after the head."""
    found: torch.Tensor = model.get_output_embeddings()(states[None])[0]
    return found


def predicting(counted: torch.Tensor) -> torch.Tensor:
    """(rows, length), where a token that counts is predicted; of (rows, length - 1) as batch.counted gives it."""
    return torch.nn.functional.pad(counted, (0, 1))
