"""How far a tuned model is from its base on held-out rows: their losses, their KL divergence, and how alike their layers are.

Each batch runs once with the adapter and once without it. What the base computes is kept for the next trial.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import torch
from torch.nn import functional

from trials.data.batching import collate, counted
from trials.drift import cka
from trials.drift.kl import base_alone, evaluating, kl, of_base
from trials.mix import Example
from trials.models.lm_head import logits_of, predicting, run


class Drift(NamedTuple):
    """By source."""

    learning: dict[str, dict[str, float]]
    """`tokens` that the loss counts, and per such token in nats `loss`, `base_loss`, `kl` and `reverse_kl`."""
    similarity: dict[str, list[float]]
    """The alignment (see cka) of the embeddings' output and of each block's output."""


def measure(
    model: Any,
    pad_id: int,
    rows: Mapping[str, Sequence[Example]],
    batch_size: int,
    report: Callable[[int], None] = lambda done: None,
) -> Drift:
    """The drift of a PEFT model on these rows by source.

    kl is KL(base || tuned), reverse_kl KL(tuned || base). Sources without rows are left out, and of the similarity those with
    fewer than four counted tokens. The model, its gradients and the random generators stay as they are. `report` gets the
    number of rows that are done.
    """
    losses, similarity, done = {}, {}, 0
    for source, examples in rows.items():
        if not examples:
            continue
        sums = _Sums()
        for batch in _batches(model, pad_id, examples, cka.compared(examples), batch_size):
            sums.add(model, batch)
            done += len(batch.inputs["input_ids"])
            report(done)
        losses[source] = sums.learning()
        if (alike := sums.similarity(model.device)) is not None:
            similarity[source] = alike
    return Drift(losses, similarity)


def learning(model: Any, pad_id: int, rows: Sequence[Example], batch_size: int) -> dict[str, float]:
    """The losses and the KL on these rows alone, as `measure` has them for a source."""
    sums = _Sums()
    for batch in _batches(model, pad_id, rows, [0] * len(rows), batch_size):
        sums.add(model, batch)
    return sums.learning()


class _Batch(NamedTuple):
    inputs: dict[str, torch.Tensor]
    compared: torch.Tensor
    """(rows, length - 1) of bools: positions whose layers are compared."""


def _batches(model: Any, pad_id: int, rows: Sequence[Example], tokens: Sequence[int], batch_size: int) -> list[_Batch]:
    """`tokens`: by row, how many are compared."""
    ordered = sorted(zip(rows, tokens, strict=True), key=lambda one: len(one[0].input_ids))  # so that little is padding
    found = []
    for first in range(0, len(ordered), batch_size):
        some, taken = zip(*ordered[first : first + batch_size], strict=True)
        batch = collate(some, pad_id)
        here = counted(batch["labels"])
        compared = here & (here.cumsum(1) <= torch.tensor(taken)[:, None])
        found.append(_Batch({name: tensor.to(model.device) for name, tensor in batch.items()}, compared))
    return found


class _Sums:
    """Of one source, over its batches."""

    def __init__(self) -> None:
        self._sums = dict.fromkeys(("tokens", "loss", "base_loss", "kl", "reverse_kl"), 0.0)
        self._layers: tuple[list[list[torch.Tensor]], list[list[torch.Tensor]]] = ([], [])

    def add(self, model: Any, batch: _Batch) -> None:
        with evaluating(model):
            tuned, layers = _of(model, batch)
            base, base_layers = _of_base(model, batch)
            labels = batch.inputs["labels"]
            targets, sums = labels[:, 1:][counted(labels)], self._sums
            sums["tokens"] += len(targets)
            sums["loss"] += float(functional.nll_loss(tuned, targets, reduction="sum"))
            sums["base_loss"] += float(functional.nll_loss(base, targets, reduction="sum"))
            sums["kl"] += float(kl(base, tuned))
            sums["reverse_kl"] += float(kl(tuned, base))
        if layers:
            self._layers[0].append(layers)
            self._layers[1].append(base_layers)

    def learning(self) -> dict[str, float]:
        return {name: value if name == "tokens" else value / self._sums["tokens"] for name, value in self._sums.items()}

    def similarity(self, device: torch.device) -> list[float] | None:
        # kept on the CPU, but multiplied on the model's device
        tuned, base = ([torch.cat(layer).to(device) for layer in zip(*side, strict=True)] for side in self._layers)
        if not tuned or len(tuned[0]) < cka.FEWEST:
            return None
        return [cka.alignment(one, other) for one, other in zip(tuned, base, strict=True)]


def _of(model: Any, batch: _Batch) -> tuple[torch.Tensor, list[torch.Tensor]]:
    """Log-probabilities (counted tokens, vocabulary) in float32, and the compared states (tokens, hidden) by layer."""
    found = run(model, _given(batch), predicting(counted(batch.inputs["labels"])), bool(batch.compared.any()))
    return functional.log_softmax(found.logits.float(), dim=-1), _compared(found.layers, batch)


def _of_base(model: Any, batch: _Batch) -> tuple[torch.Tensor, list[torch.Tensor]]:
    """`_of` the base, bit by bit the same each time. Its head's input is kept, which is far smaller than the logits."""
    given, places = _given(batch), predicting(counted(batch.inputs["labels"]))

    def find() -> tuple[torch.Tensor | None, list[torch.Tensor]]:
        found = run(model, given, places, bool(batch.compared.any()))
        # a model may change its logits after the head
        plain = found.states is not None and torch.equal(logits_of(model, found.states), found.logits)
        return found.states if plain else None, _compared(found.layers, batch)

    states, layers = of_base(model, f"drift {batch.compared.sum(1).tolist()}", batch.inputs, find)
    with base_alone(model):
        logits = run(model, given, places).logits if states is None else logits_of(model, states)
    return functional.log_softmax(logits.float(), dim=-1), layers


def _given(batch: _Batch) -> dict[str, torch.Tensor]:
    return {name: batch.inputs[name] for name in ("input_ids", "attention_mask")}


def _compared(layers: Sequence[torch.Tensor], batch: _Batch) -> list[torch.Tensor]:
    return [layer[:, :-1][batch.compared].float().cpu() for layer in layers]
