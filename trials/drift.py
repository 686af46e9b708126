"""How far a tuned model has drifted from its base: KL divergences and losses on given rows, adapter on against adapter off."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch.nn import functional

from trials.batch import collate, counted
from trials.head import logits_at, predicting
from trials.mix import Example


@contextmanager
def evaluating(model: Any) -> Iterator[None]:
    """Neither dropout nor gradients in the block; afterwards the model is in the mode that it was in."""
    training = model.training
    model.eval()
    try:
        with torch.no_grad():
            yield
    finally:
        model.train(training)


@contextmanager
def base_alone(model: Any) -> Iterator[None]:
    """The base without the adapters of a PEFT model."""
    asked = [(weight, weight.requires_grad) for weight in model.parameters()]
    try:
        with model.disable_adapter():
            yield
    finally:
        for weight, requires_grad in asked:  # PEFT would train every adapter from now on, also one that was frozen
            weight.requires_grad_(requires_grad)


def log_probabilities(model: Any, inputs: Mapping[str, torch.Tensor]) -> torch.Tensor:
    """(counted tokens, vocabulary), float32: what the model expects at each token of the rows that the loss counts."""
    asked = {name: inputs[name] for name in ("input_ids", "attention_mask")}
    logits = logits_at(model, asked, predicting(counted(inputs["labels"])))
    return functional.log_softmax(logits.float(), dim=-1)


def kl(p: torch.Tensor, q: torch.Tensor) -> torch.Tensor:
    """KL(p || q) of log-probabilities (tokens, vocabulary), in nats, summed over the tokens."""
    return functional.kl_div(q, p, reduction="sum", log_target=True)


def measure(model: Any, pad_id: int, rows: Mapping[str, Sequence[Example]], batch_size: int) -> dict[str, dict[str, float]]:
    """By source: `tokens` that count, and per such token in nats `loss`, `base_loss`, `kl` and `reverse_kl`.

    kl is KL(base || tuned), reverse_kl KL(tuned || base). Sources without rows are left out. The model, its gradients and the
    random generators stay as they are.
    """
    return {source: _source(model, pad_id, examples, batch_size) for source, examples in rows.items() if examples}


def _source(model: Any, pad_id: int, rows: Sequence[Example], batch_size: int) -> dict[str, float]:
    sums = dict.fromkeys(("tokens", "loss", "base_loss", "kl", "reverse_kl"), 0.0)
    ordered = sorted(rows, key=lambda row: len(row.input_ids))  # so that little of a batch is padding
    with evaluating(model):
        for first in range(0, len(ordered), batch_size):
            part = [{"input_ids": row.input_ids, "labels": row.labels} for row in ordered[first : first + batch_size]]
            inputs = {name: tensor.to(model.device) for name, tensor in collate(part, pad_id).items()}
            targets = inputs["labels"][:, 1:][counted(inputs["labels"])]
            tuned = log_probabilities(model, inputs)
            with base_alone(model):
                base = log_probabilities(model, inputs)
            sums["tokens"] += len(targets)
            sums["loss"] += float(functional.nll_loss(tuned, targets, reduction="sum"))
            sums["base_loss"] += float(functional.nll_loss(base, targets, reduction="sum"))
            sums["kl"] += float(kl(base, tuned))
            sums["reverse_kl"] += float(kl(tuned, base))
    return {name: value if name == "tokens" else value / sums["tokens"] for name, value in sums.items()}


def sample(rows: Mapping[str, Sequence[Example]], most: int) -> list[Example]:
    """At most so many rows, from the sources in turn."""
    longest = max((len(examples) for examples in rows.values()), default=0)
    turns = [examples[i] for i in range(longest) for _, examples in sorted(rows.items()) if i < len(examples)]
    return turns[:most]
