"""What is minimised: the loss on the labels and, beside it, penalties on the distance from the base.

Both penalties are per optimiser step: a micro-batch contributes its share of the batch's counted tokens, so that how a batch is
cut into micro-batches moves the result by rounding alone.
"""

from typing import Any

import torch
from transformers import Trainer

from trials.adapters.low_rank import factors
from trials.data.batching import counted
from trials.drift import kl as drift
from trials.models.lm_head import logits_at, predicting


def squared_update(model: Any) -> torch.Tensor:
    """Squared Frobenius norm of what the adapters add, summed over the layers, without making the layers' B @ A.

    ||B A||^2 = trace(A^T B^T B A), the sum over the entrywise product of B^T B and A A^T, each (r, r). L2-SP, arXiv 1802.01483.
    """
    norms = [((b.T @ b) * (a @ a.T)).sum() for a, b in ((a.float(), b.float()) for a, b in factors(model).values())]
    return torch.stack(norms).sum()


class Regularised(Trainer):
    """A Trainer whose loss may carry `kl` x KL(base || tuned) and `l2` x squared_update.

    The loss is computed here, from the logits, and divided by the counted tokens of the whole batch. A model's own loss is not
    used: some models take no number of tokens and average over the micro-batch instead.
    """

    def __init__(self, *args: Any, kl: float, l2: float, **named: Any):
        super().__init__(*args, **named)
        # the Trainer then counts the batch's tokens for every model, from each row's second on
        self.model_accepts_loss_kwargs = self._loss_shifts_labels = True
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
        base = None
        if self.kl > 0:
            # in evaluation mode: the base as it is, and no random number is drawn for it
            with drift.evaluating(model), drift.base_alone(model):
                base = drift.log_probabilities(model, inputs)
        asked = {name: value for name, value in inputs.items() if name != "labels"}
        logits = logits_at(model, asked, predicting(here)).float()
        loss = torch.nn.functional.cross_entropy(logits, inputs["labels"][:, 1:][here], reduction="sum") / num_items_in_batch
        if base is not None:
            tuned = torch.log_softmax(logits, dim=-1)
            loss = loss + self._told("kl", self.kl * drift.kl(base, tuned) / num_items_in_batch)
        if self.l2 > 0:
            loss = loss + self._told("l2", self.l2 * squared_update(model) * here.sum() / num_items_in_batch)
        return loss

    def _told(self, name: str, penalty: torch.Tensor) -> torch.Tensor:
        self._penalties[name] = self._penalties.get(name, 0.0) + penalty.detach()
        return penalty
