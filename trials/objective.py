"""What is minimised: the loss on the labels and, beside it, penalties on the distance from the base.

Both penalties are per optimiser step: a micro-batch contributes its share of the batch's counted tokens, so that how a batch is
cut into micro-batches moves the result by rounding alone.
"""

from collections.abc import Mapping
from typing import Any

import torch
from transformers import Trainer

from trials import drift
from trials.batch import counted
from trials.errors import InputError
from trials.factors import factors
from trials.head import logits_at, predicting


def squared_update(model: Any) -> torch.Tensor:
    """Squared Frobenius norm of what the adapters add, summed over the layers, without making the layers' B @ A.

    ||B A||^2 = trace(A^T B^T B A), the sum over the entrywise product of B^T B and A A^T, each (r, r). L2-SP, arXiv 1802.01483.
    """
    norms = [((b.T @ b) * (a @ a.T)).sum() for a, b in ((a.float(), b.float()) for a, b in factors(model).values())]
    return torch.stack(norms).sum()


def counted_loss(model: Any, inputs: Mapping[str, Any], here: torch.Tensor) -> torch.Tensor:
    """Cross-entropy in nats, summed over the counted tokens (`here`, see batch.counted)."""
    asked = {name: value for name, value in inputs.items() if name != "labels"}
    logits = logits_at(model, asked, predicting(here))
    return torch.nn.functional.cross_entropy(logits.float(), inputs["labels"][:, 1:][here], reduction="sum")


class Regularised(Trainer):
    """A Trainer whose loss may carry `kl` x KL(base || tuned) and `l2` x squared_update. With both 0 it is the Trainer."""

    def __init__(self, *args: Any, kl: float, l2: float, **named: Any):
        super().__init__(*args, **named)
        self.kl, self.l2 = kl, l2
        self._penalties: dict[str, torch.Tensor] = {}

    def floating_point_ops(self, inputs: Any) -> int:
        """Nobody asks how many, and the Trainer would count the parameters for it at every step."""
        return 0

    def penalties(self) -> dict[str, float]:
        """What each penalty added to the loss since this was last asked."""
        found = {name: float(value) for name, value in self._penalties.items()}
        self._penalties = {}
        return found

    def compute_loss(  # type: ignore[override]
        self, model: Any, inputs: dict[str, Any], return_outputs: bool = False, num_items_in_batch: Any = None
    ) -> Any:
        here = counted(inputs["labels"])
        if self.kl == 0 and self.l2 == 0:
            if num_items_in_batch is None or return_outputs:
                return super().compute_loss(model, inputs, return_outputs, num_items_in_batch)
            return counted_loss(model, inputs, here) / num_items_in_batch
        if num_items_in_batch is None:  # a model that cannot take it: the Trainer averages over the micro-batches
            raise InputError("train.kl and train.l2 need a base whose loss can be scaled by the tokens of the whole batch")
        base = None
        if self.kl > 0:
            # in evaluation mode: the base as it is, and no random number is drawn for it
            with drift.evaluating(model), drift.base_alone(model):
                base = drift.log_probabilities(model, inputs)
        loss, outputs = super().compute_loss(model, inputs, True, num_items_in_batch)
        if base is not None:
            tuned = torch.log_softmax(outputs.logits[:, :-1][here].float(), dim=-1)
            loss = loss + self._told("kl", self.kl * drift.kl(base, tuned) / num_items_in_batch)
        if self.l2 > 0:
            loss = loss + self._told("l2", self.l2 * squared_update(model) * here.sum() / num_items_in_batch)
        return (loss, outputs) if return_outputs else loss

    def _told(self, name: str, penalty: torch.Tensor) -> torch.Tensor:
        self._penalties[name] = self._penalties.get(name, 0.0) + penalty.detach()
        return penalty
