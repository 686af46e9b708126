"""Runs a model's head at selected positions only: it is a large part of a small model, and the loss counts few positions."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch

from trials.data.batching import sent


@dataclass(frozen=True)
class Pass:
    """What a model computed at the places asked for, row by row."""

    logits: torch.Tensor
    """(places, vocabulary)"""
    states: torch.Tensor | None
    """(places, hidden): the head's inputs; None for a model without a separate head."""
    layers: tuple[torch.Tensor, ...]
    """Hidden states (rows, length, hidden) of the embeddings and of each block, all places; empty unless asked for."""


def logits_at(model: Any, inputs: Mapping[str, Any], places: torch.Tensor) -> torch.Tensor:
    """(places, vocabulary): the model's logits where `places`, (rows, length) of bools, is true, row by row."""
    return run(model, inputs, places).logits


def run(model: Any, inputs: Mapping[str, Any], places: torch.Tensor, layers: bool = False) -> Pass:
    """One pass of the model; `places`: (rows, length) of bools."""
    inputs = {**inputs, "output_hidden_states": True} if layers else inputs
    head = model.get_output_embeddings()
    if head is None:
        found = model(**inputs)
        return Pass(found.logits[places], None, found.hidden_states if layers else ())
    states: list[torch.Tensor] = []
    numbers = places.flatten().nonzero()[:, 0]  # with `places` on the CPU this waits for no GPU

    def chosen(_: Any, given: tuple[Any, ...]) -> tuple[Any, ...]:
        states.append(given[0].flatten(0, 1)[sent(numbers, given[0].device)])
        return states[0][None], *given[1:]

    hook = head.register_forward_pre_hook(chosen)
    try:
        found = model(**inputs)
    finally:
        hook.remove()
    return Pass(found.logits[0], states[0], found.hidden_states if layers else ())


def logits_of(model: Any, states: torch.Tensor) -> torch.Tensor:
    """(places, vocabulary): the head's output, which is the model's logits unless the model changes them afterwards."""
    found: torch.Tensor = model.get_output_embeddings()(states[None])[0]
    return found


def predicting(counted: torch.Tensor) -> torch.Tensor:
    """(rows, length) of bools: the positions that predict a counted token, from batching.counted's (rows, length - 1)."""
    return torch.nn.functional.pad(counted, (0, 1))
