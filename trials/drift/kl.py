"""KL divergence between a tuned model and its base on given rows: adapter on against adapter off."""

import hashlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, TypeVar
from weakref import WeakKeyDictionary

import torch
from torch.nn import functional

from trials.data.batching import counted, forward_inputs
from trials.mix import Example
from trials.models.lm_head import logits_at, predicting

Value = TypeVar("Value")

_of_base: WeakKeyDictionary[Any, dict[tuple[str, bytes], Any]] = WeakKeyDictionary()
"""By base, values that were computed from it on some rows: all trials of a worker measure drift on the same held-out rows."""


@contextmanager
def evaluating(model: Any) -> Iterator[None]:
    """Turns dropout and gradients off in the block; restores the model's mode afterwards."""
    training = model.training
    model.eval()
    try:
        with torch.no_grad():
            yield
    finally:
        model.train(training)


@contextmanager
def base_alone(model: Any) -> Iterator[None]:
    """Turns the adapters of a PEFT model off in the block."""
    before = [(weight, weight.requires_grad) for weight in model.parameters()]
    try:
        with model.disable_adapter():
            yield
    finally:
        for weight, requires_grad in before:  # PEFT makes every adapter trainable again, a frozen one too
            weight.requires_grad_(requires_grad)


def log_probabilities(model: Any, inputs: Mapping[str, Any]) -> torch.Tensor:
    """(counted tokens, vocabulary), float32: log-probabilities that predict each token which the loss counts."""
    logits = logits_at(model, forward_inputs(inputs), predicting(counted(inputs["labels"])))
    return functional.log_softmax(logits.float(), dim=-1)


def of_base(model: Any, what: str, inputs: Mapping[str, torch.Tensor], find: Callable[[], Value]) -> Value:
    """`find()` for the base alone on these rows, in evaluation mode; cached as long as the base is."""
    digest = hashlib.sha256()
    for name in ("input_ids", "attention_mask", "labels"):
        digest.update(repr(tuple(inputs[name].shape)).encode() + inputs[name].cpu().numpy().tobytes())
    known, key = _of_base.setdefault(model.get_base_model(), {}), (what, digest.digest())
    if key not in known:
        with base_alone(model):
            known[key] = find()
    found: Value = known[key]
    return found


def kl(p: torch.Tensor, q: torch.Tensor) -> torch.Tensor:
    """KL(p || q) of log-probabilities (tokens, vocabulary), in nats, summed over the tokens."""
    return functional.kl_div(q, p, reduction="sum", log_target=True)


def sample(rows: Mapping[str, Sequence[Example]], most: int) -> list[Example]:
    """At most so many rows, from the sources in turn."""
    longest = max((len(examples) for examples in rows.values()), default=0)
    turns = [examples[i] for i in range(longest) for _, examples in sorted(rows.items()) if i < len(examples)]
    return turns[:most]
