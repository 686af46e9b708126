"""Runs a model's head at selected positions only: it is a large part of a small model, and the loss counts few positions."""

from collections.abc import Mapping
from typing import Any

import torch

from trials.data.batching import sent


def logits_at(model: Any, inputs: Mapping[str, Any], places: torch.Tensor) -> torch.Tensor:
    """(places, vocabulary): the model's logits where `places`, (rows, length) of bools, is true, row by row."""
    return logits_and_states(model, inputs, places)[0]


def logits_and_states(model: Any, inputs: Mapping[str, Any], places: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor | None]:
    """As logits_at, and the head's inputs, (places, hidden); None for a model without a separate head."""
    head = model.get_output_embeddings()
    if head is None:
        return model(**inputs).logits[places], None
    states: list[torch.Tensor] = []
    numbers = places.flatten().nonzero()[:, 0]  # with `places` on the CPU this waits for no GPU

    def chosen(_: Any, given: tuple[Any, ...]) -> tuple[Any, ...]:
        states.append(given[0].flatten(0, 1)[sent(numbers, given[0].device)])
        return states[0][None], *given[1:]

    hook = head.register_forward_pre_hook(chosen)
    try:
        return model(**inputs).logits[0], states[0]
    finally:
        hook.remove()


def logits_of(model: Any, states: torch.Tensor) -> torch.Tensor:
    """(places, vocabulary): the head's output, which is the model's logits unless the model changes them afterwards."""
    found: torch.Tensor = model.get_output_embeddings()(states[None])[0]
    return found


def predicting(counted: torch.Tensor) -> torch.Tensor:
    """(rows, length) of bools: the positions that predict a counted token, from batching.counted's (rows, length - 1)."""
    return torch.nn.functional.pad(counted, (0, 1))
