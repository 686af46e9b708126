"""The training loss: weighted cross-entropy on the labels, plus optional penalties on the distance from the base.

Loss and penalties are normalised per optimiser step: a micro-batch contributes its share of the batch's counted tokens, so that
the micro-batch size changes results by rounding only.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from transformers import Trainer

from trials.adapters.low_rank import factors
from trials.data.batching import counted, forward_inputs
from trials.drift import kl as drift
from trials.models.lm_head import logits_at, predicting
from trials.spec import Train
from trials.training import packing, token_weights


def squared_update(model: Any) -> torch.Tensor:
    """Squared Frobenius norm of the adapters' updates B @ A, summed over the layers (L2-SP, arXiv 1802.01483)."""
    return torch.stack([_squared(a.float(), b.float()) for a, b in factors(model).values()]).sum()


def _squared(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
    if not a.requires_grad and b.requires_grad:  # the identity of a full update (trials/adapters/methods.py)
        return b.square().sum()
    # ||B A||^2 = trace(A^T B^T B A), the sum over the entrywise product of B^T B and A A^T: only (r, r) matrices are made
    return ((b.T @ b) * (a @ a.T)).sum()


_STEEPEST = 2.0**16
"""Largest factor on the gradients of a model in float16; what torch.amp.GradScaler begins with."""


class _Steep(torch.autograd.Function):
    """The same value, with a gradient that is `scale` times as large."""

    @staticmethod
    def forward(ctx: Any, loss: torch.Tensor, scale: torch.Tensor) -> torch.Tensor:
        ctx.save_for_backward(scale)
        return loss.clone()

    @staticmethod
    def backward(ctx: Any, gradient: torch.Tensor) -> Any:  # type: ignore[override]
        return gradient * ctx.saved_tensors[0], None


class Regularised(Trainer):
    """A Trainer with the weights of `settings.loss`, whose loss includes `kl` x KL(base || tuned) and `l2` x squared_update."""

    def __init__(self, *args: Any, settings: Train, **named: Any):
        super().__init__(*args, **named)
        # makes the Trainer count the batch's labels for every model, from each row's second token on
        self.model_accepts_loss_kwargs = self._loss_shifts_labels = True
        self.settings = settings
        self._penalties: dict[str, torch.Tensor] = {}
        self._scale = torch.ones(())
        """Factor on the gradients inside of a model in float16."""

    @contextmanager
    def scaled(self) -> Iterator[None]:
        """Within the context, gradients of a model in float16 are scaled, and those of its adapter scaled back.

        A token's share of a mean over 200,000 is less than float16's smallest normal number.
        """
        assert self.model is not None
        weights = [weight for weight in self.model.parameters() if weight.requires_grad and self.model.dtype == torch.float16]
        hooks = [weight.register_hook(lambda gradient: gradient / self._scale) for weight in weights]
        try:
            yield
        finally:
            for hook in hooks:
                hook.remove()

    def floating_point_ops(self, inputs: Any) -> int:
        return 0  # unused, and the Trainer would count the parameters for it at every step

    def penalties(self) -> dict[str, float]:
        """Returns what each penalty added to the loss since the last call."""
        found = {name: float(value) for name, value in self._penalties.items()}
        self._penalties = {}
        return found

    def compute_loss(  # type: ignore[override]
        self, model: Any, inputs: dict[str, Any], return_outputs: bool = False, num_items_in_batch: Any = None
    ) -> Any:
        with packing.kept_apart(model.get_base_model(), packing.rows_of(model, inputs)):
            loss = self._loss(model, inputs, num_items_in_batch)
        if model.dtype != torch.float16:
            return loss
        # A token then weighs about one, as in a sum. A power of two adds no rounding.
        tokens = torch.as_tensor(num_items_in_batch, device=loss.device).float()
        self._scale = tokens.log2().floor().exp2().clamp(max=_STEEPEST)
        return _Steep.apply(loss, self._scale)

    def _loss(self, model: Any, inputs: dict[str, Any], tokens: Any) -> torch.Tensor:
        """The pass's share of the loss of an optimiser step with so many counted tokens."""
        # from the logits, because some models' own loss ignores `tokens` and averages over the micro-batch
        here = counted(inputs["labels"])
        kl, l2, base = self.settings.kl, self.settings.l2, None
        if kl > 0 or self.settings.loss == "masked":
            # in evaluation mode: without noise or dropout, and without drawing random numbers
            with drift.evaluating(model), drift.base_alone(model):
                base = drift.log_probabilities(model, inputs)
        logits = logits_at(model, forward_inputs(inputs), predicting(here)).float()
        loss = self._cross_entropy(logits, inputs["labels"][:, 1:][here], base) / tokens
        if base is not None and kl > 0:
            tuned = torch.log_softmax(logits, dim=-1)
            loss = loss + self._recorded("kl", kl * drift.kl(base, tuned) / tokens)
        if l2 > 0:
            loss = loss + self._recorded("l2", l2 * squared_update(model) * here.sum() / tokens)
        return loss

    def _cross_entropy(self, logits: torch.Tensor, wanted: torch.Tensor, base: torch.Tensor | None) -> torch.Tensor:
        """Sum over the counted tokens, in nats; `base` are the base's log-probabilities (tokens, vocabulary)."""
        if self.settings.loss == "nll":
            return torch.nn.functional.cross_entropy(logits, wanted, reduction="sum")
        nll = torch.nn.functional.cross_entropy(logits, wanted, reduction="none")
        with torch.no_grad():
            match self.settings.loss:
                case "dft":
                    weights = token_weights.dft(nll)
                case "eaft":
                    weights = token_weights.eaft(logits)
                case "masked":
                    assert base is not None
                    weights = token_weights.masked(-base.gather(1, wanted[:, None])[:, 0], self.settings.mask_above)
        return (weights * nll).sum()

    def _recorded(self, name: str, penalty: torch.Tensor) -> torch.Tensor:
        self._penalties[name] = self._penalties.get(name, 0.0) + penalty.detach()
        return penalty
