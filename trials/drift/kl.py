"""KL divergence between a tuned model and its base, and their losses, on given rows: adapter on against adapter off."""

import hashlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, TypeVar
from weakref import WeakKeyDictionary

import torch
from torch.nn import functional

from trials.data.batching import collate, counted, forward_inputs
from trials.mix import Example
from trials.models.lm_head import logits_and_states, logits_at, logits_of, predicting

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


def _base_log_probabilities(model: Any, inputs: Mapping[str, torch.Tensor]) -> torch.Tensor:
    """`log_probabilities` of the base, bit by bit the same each time. Its head's input is cached, which is far smaller."""
    given = {name: inputs[name] for name in ("input_ids", "attention_mask")}
    places = predicting(counted(inputs["labels"]))

    def find() -> torch.Tensor | None:
        logits, states = logits_and_states(model, given, places)
        # a model may change its logits after the head
        return states if states is not None and torch.equal(logits_of(model, states), logits) else None

    states = of_base(model, "states", inputs, find)
    with base_alone(model):
        logits = logits_at(model, given, places) if states is None else logits_of(model, states)
    return functional.log_softmax(logits.float(), dim=-1)


def kl(p: torch.Tensor, q: torch.Tensor) -> torch.Tensor:
    """KL(p || q) of log-probabilities (tokens, vocabulary), in nats, summed over the tokens."""
    return functional.kl_div(q, p, reduction="sum", log_target=True)


def measure(
    model: Any,
    pad_id: int,
    rows: Mapping[str, Sequence[Example]],
    batch_size: int,
    report: Callable[[int], None] = lambda done: None,
) -> dict[str, dict[str, float]]:
    """By source: `tokens` that count, and per such token in nats `loss`, `base_loss`, `kl` and `reverse_kl`.

    kl is KL(base || tuned), reverse_kl KL(tuned || base). Sources without rows are left out. The model, its gradients and the
    random generators stay as they are. `report` gets the number of rows that are done.
    """
    count = _Count(report)
    return {source: _source(model, pad_id, examples, batch_size, count) for source, examples in rows.items() if examples}


class _Count:
    """Reports the rows of all sources that are done."""

    def __init__(self, report: Callable[[int], None]):
        self._report, self._done = report, 0

    def add(self, rows: int) -> None:
        self._done += rows
        self._report(self._done)


def _source(model: Any, pad_id: int, rows: Sequence[Example], batch_size: int, count: _Count) -> dict[str, float]:
    sums = dict.fromkeys(("tokens", "loss", "base_loss", "kl", "reverse_kl"), 0.0)
    ordered = sorted(rows, key=lambda row: len(row.input_ids))  # so that little of a batch is padding
    with evaluating(model):
        for first in range(0, len(ordered), batch_size):
            batch = collate(ordered[first : first + batch_size], pad_id)
            inputs = {name: tensor.to(model.device) for name, tensor in batch.items()}
            targets = inputs["labels"][:, 1:][counted(inputs["labels"])]
            tuned = log_probabilities(model, inputs)
            base = _base_log_probabilities(model, inputs)
            sums["tokens"] += len(targets)
            sums["loss"] += float(functional.nll_loss(tuned, targets, reduction="sum"))
            sums["base_loss"] += float(functional.nll_loss(base, targets, reduction="sum"))
            sums["kl"] += float(kl(base, tuned))
            sums["reverse_kl"] += float(kl(tuned, base))
            count.add(len(batch["input_ids"]))
    return {name: value if name == "tokens" else value / sums["tokens"] for name, value in sums.items()}


def sample(rows: Mapping[str, Sequence[Example]], most: int) -> list[Example]:
    """At most so many rows, from the sources in turn."""
    longest = max((len(examples) for examples in rows.values()), default=0)
    turns = [examples[i] for i in range(longest) for _, examples in sorted(rows.items()) if i < len(examples)]
    return turns[:most]
