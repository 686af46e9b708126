"""Trains the adapters of several trials in one pass over the base that they share, each as if it were trained alone.

The rows of a pass are the trials' micro-batches one after the other. A layer of the base computes all of them at once, and what
the adapters add is one batched product of their stacked factors, with ranks padded with zeros: a trial's rows meet its own
factors alone, so that the gradients are those of a training by itself, and those from the other trials' losses are exactly 0.
Every trial has its own loss, clipping, optimiser, rate, schedule and number of steps, and leaves the pass when it has ended.

A trial's states are those of trials.train: a training that was cut off goes on alone or with others, whichever it began as.
Sums over a longer padding or in another order differ in rounding; so do the adapters.
"""

import json
import math
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from itertools import zip_longest
from typing import Any

import bitsandbytes as bnb
import torch
from transformers import Trainer

from trials.data.batching import collate, counted
from trials.mix import Example
from trials.models import base
from trials.models.lm_head import logits_at, predicting
from trials.spec import Lora, Train, TrialSpec
from trials.template import IGNORED
from trials.training import trainer

_PREFIX = "base_model.model."  # PEFT's, before the base's own names
_DOWN, _UP = ".lora_A.default.weight", ".lora_B.default.weight"


class Unstackable(Exception):
    """The base cannot carry several adapters in one pass; the text says why. Its trials can still be trained one by one."""


def stackable(spec: TrialSpec) -> str | None:
    """Specs with the same one can be trained in one pass; None of a spec that is trained alone, or not at all.

    Alone are trained: what draws random numbers as it trains (dropout, NEFTune's noise), adapters that are more than B @ A
    (DoRA, a beginning at a part of the base), penalties and train.stop_kl, which look at the base beside it, other backends.
    """
    lora, settings = spec.lora, spec.train
    alone = (
        spec.is_baseline,
        spec.parent is not None,
        lora.dropout > 0,
        lora.use_dora,
        lora.converted,
        settings.neftune > 0,
        settings.kl > 0,
        settings.l2 > 0,
        settings.stop_kl is not None,
        settings.backend != "transformers",
    )
    if any(alone):
        return None
    parts = spec.canonical()
    shared = {"base": parts["base"], "max_length": spec.data.max_length}
    shared |= {name: parts["lora"][name] for name in ("target_modules", "layers")}
    shared |= {"batch_size": settings.batch_size, "micro_batch_size": min(settings.micro_batch_size, settings.batch_size)}
    return json.dumps(shared, sort_keys=True)


class Training:
    """One trial's own part: its weights, loss, optimiser, schedule and rows (all epochs')."""

    def __init__(
        self,
        lora: Lora,
        settings: Train,
        rows: Sequence[Example],
        start: trainer.State,
        save: Callable[[trainer.State], None],
        device: torch.device,
    ):
        self.settings, self.rows, self.start, self.save = settings, rows, start, save
        self.scaling = lora.alpha / (math.sqrt(lora.rank) if lora.use_rslora else lora.rank)
        self.weights = {name: torch.nn.Parameter(weight.to(device, copy=True)) for name, weight in start.weights.items()}
        with tempfile.TemporaryDirectory(prefix="slimsweep-") as folder:
            wanted = trainer.arguments(settings, start.micro_batch_size, folder)
            kind, named = Trainer.get_optimizer_cls_and_kwargs(wanted)
        # the Trainer's two groups, the second of biases and norms: its states and these are one another's
        groups = [
            {"params": [*self.weights.values()], "weight_decay": settings.weight_decay},
            {"params": [], "weight_decay": 0.0},
        ]
        self.optimizer: torch.optim.Optimizer = kind(groups, **named)
        self.steps = math.ceil(len(rows) / settings.batch_size)
        self.schedule = trainer.schedule_of(settings, self.optimizer, self.steps)
        trainer.put_back(start, self.optimizer, self.schedule)
        self.step, self.losses, self.seconds = start.step, list(start.losses), start.seconds
        self.end: trainer.State | None = None
        self.failure: trainer.NonFiniteLoss | None = None

    @property
    def over(self) -> bool:
        return self.failure is not None or self.step >= self.steps

    def batch(self) -> tuple[list[Sequence[Example]], int]:
        """The micro-batches of the next step, and the tokens that count in all of them."""
        size, micro = self.settings.batch_size, self.start.micro_batch_size
        rows = self.rows[self.step * size : (self.step + 1) * size]
        tokens = sum(label != IGNORED for row in rows for label in row.labels[1:])
        return [rows[first : first + micro] for first in range(0, len(rows), micro)], tokens

    def update(self, loss: float) -> None:
        """A step with the gradients that the weights have. One that is no number ends this training, and no other."""
        norm = torch.nn.utils.clip_grad_norm_(list(self.weights.values()), self.settings.max_grad_norm)
        self.step += 1
        try:
            trainer.check_finite(self.step, loss, float(norm))
        except trainer.NonFiniteLoss as failure:
            self.failure = failure
            return
        self.optimizer.step()
        self.schedule.step()
        self.losses.append((self.step, loss))

    def state(self) -> trainer.State:
        """As it is between two steps, and at the end."""
        going_on = self.step < self.steps
        return trainer.State(
            step=self.step,
            micro_batch_size=self.start.micro_batch_size,
            weights={name: weight.detach() for name, weight in self.weights.items()},
            others=trainer.optimizer_tensors(self.optimizer) if going_on else {},
            schedule=self.schedule.state_dict() if going_on else {},
            losses=list(self.losses),
            seconds=round(self.seconds, 3),
        )

    def finish(self) -> None:
        """Sets and saves the end of a training that is over, unless it failed."""
        if self.failure is not None:
            return
        try:
            self.end = trainer.check_end(self.state())
        except trainer.NonFiniteLoss as failure:
            self.failure = failure
        else:
            self.save(self.end)


def fit(model: Any, pad_id: int, trainings: Sequence[Training], pace: trainer.Pace) -> None:
    """Trains until all are over: each has its `end` or its `failure`, and has saved its state now and then and at its end.

    `model` is the base without an adapter, and is so afterwards. All micro-batches have the same size. Raises Unstackable.
    """
    _check(model)
    saved, cost = time.perf_counter(), 0.0
    left = list(trainings)
    while left:
        for training in [training for training in left if training.over]:
            training.finish()
        left = [training for training in left if not training.over]
        if not left:
            return
        with stacked(model, left) as stack:
            while not any(training.over for training in left):
                stack.step(pad_id)
                now = time.perf_counter()
                if pace.due(now - saved, cost):
                    for training in left:
                        if not training.over:
                            training.save(training.state())
                    saved = time.perf_counter()
                    cost = saved - now


def _check(model: Any) -> None:
    """Raises Unstackable where a training of this base draws random numbers."""
    if dropped := base.dropouts(model):
        raise Unstackable(f"the base trains with dropout of its own ({', '.join(dropped)})")


# ---------------------------------------------------------------------- the adapters in one pass


class Layer(torch.nn.Module):
    """A layer of the base and what k adapters add to it, each to its own rows; in the types in which PEFT's layer computes.

    (k x rows, length, inputs) -> (k x rows, length, outputs). `down` is (k, largest rank, inputs) and `up` (k, outputs, largest
    rank), zero beyond an adapter's own rank.
    """

    def __init__(self, base: Any, downs: Sequence[torch.Tensor], ups: Sequence[torch.Tensor], scaling: torch.Tensor):
        super().__init__()
        rank = max(map(len, downs))
        pad = torch.nn.functional.pad
        self.base = base
        self.down = torch.nn.Parameter(torch.stack([pad(one.detach(), (0, 0, 0, rank - len(one))) for one in downs]))
        self.up = torch.nn.Parameter(torch.stack([pad(one.detach(), (0, rank - one.shape[1])) for one in ups]))
        self.scaling = scaling.to(self.down.dtype)[:, None, None]
        self.down.grad, self.up.grad = torch.zeros_like(self.down), torch.zeros_like(self.up)
        self.tokens = 0
        """Of the pass, padding included."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if x.numel() != self.tokens * x.shape[-1]:
            raise Unstackable("a layer of the base sees some tokens and not others")
        result: torch.Tensor = self.base(x)
        each = x.to(self.down.dtype).reshape(len(self.down), -1, x.shape[-1])
        update = torch.bmm(torch.bmm(each, self.down.mT), self.up.mT) * self.scaling
        update = update.reshape(result.shape)
        if isinstance(self.base, bnb.nn.Linear4bit):  # PEFT rounds the update before the sum here, and after it elsewhere
            update = update.to(result.dtype)
        return (result + update).to(result.dtype)


class Stack:
    """The trainings of a pass and the base's layers that carry them."""

    def __init__(self, model: Any, trainings: Sequence[Training]):
        self.model, self.trainings = model, trainings
        scaling = torch.tensor([training.scaling for training in trainings], device=model.device)
        names = [name.removeprefix(_PREFIX).removesuffix(_DOWN) for name in trainings[0].weights if name.endswith(_DOWN)]
        self.layers: dict[str, Layer] = {}
        for name in names:
            downs, ups = ([one.weights[f"{_PREFIX}{name}{end}"] for one in trainings] for end in (_DOWN, _UP))
            self.layers[name] = Layer(model.get_submodule(name), downs, ups, scaling)
        self.own: list[torch.Tensor] = []
        """The trainings' weights, then their gradients, their places in the stack and the gradients' places, in one order."""
        self.own_gradients: list[torch.Tensor] = []
        self.slots: list[torch.Tensor] = []
        self.gradients: list[torch.Tensor] = []
        for number, training in enumerate(trainings):
            for name, layer in self.layers.items():
                down, up = training.weights[f"{_PREFIX}{name}{_DOWN}"], training.weights[f"{_PREFIX}{name}{_UP}"]
                down.grad, up.grad = torch.empty_like(down), torch.empty_like(up)
                rank = len(down)
                self.own += [down, up]
                self.own_gradients += [down.grad, up.grad]
                self.slots += [layer.down.data[number, :rank], layer.up.data[number, :, :rank]]
                assert layer.down.grad is not None
                assert layer.up.grad is not None
                self.gradients += [layer.down.grad[number, :rank], layer.up.grad[number, :, :rank]]

    def step(self, pad_id: int) -> None:
        """One optimiser step of every training."""
        began = time.perf_counter()
        losses = self.backward(pad_id)
        for training, loss in zip(self.trainings, losses.tolist(), strict=True):
            training.update(loss)
        with torch.no_grad():
            torch._foreach_copy_(self.slots, self.own)
        share = (time.perf_counter() - began) / len(self.trainings)
        for training in self.trainings:
            training.seconds += share

    def backward(self, pad_id: int) -> torch.Tensor:
        """(k,) the losses of the next batches; gives the trainings' weights their gradients."""
        for layer in self.layers.values():
            assert layer.down.grad is not None
            assert layer.up.grad is not None
            layer.down.grad.zero_()
            layer.up.grad.zero_()
        batches = [training.batch() for training in self.trainings]
        tokens = [count for _, count in batches]
        losses = torch.zeros(len(batches), device=self.model.device)
        for micro in zip_longest(*(micros for micros, _ in batches), fillvalue=()):
            found = self.losses(micro, tokens, pad_id)
            found.sum().backward()  # type: ignore[no-untyped-call]
            losses += found.detach()
        with torch.no_grad():
            torch._foreach_copy_(self.own_gradients, self.gradients)
        return losses

    def losses(self, micro: Sequence[Sequence[Example]], tokens: Sequence[int], pad_id: int) -> torch.Tensor:
        """(k,) each micro-batch's cross-entropy in nats over its counted tokens, divided by all that count in its step.

        A micro-batch with fewer rows than another is filled up with rows that do not count.
        """
        rows = max(map(len, micro))
        empty = {"input_ids": [pad_id], "labels": [IGNORED]}
        flat = [row for one in micro for row in [*map(_fields, one), *[empty] * (rows - len(one))]]
        inputs = {name: value.to(self.model.device) for name, value in collate(flat, pad_id).items()}
        labels = inputs.pop("labels")
        here = counted(labels)
        for layer in self.layers.values():
            layer.tokens = labels.numel()
        logits = logits_at(self.model, inputs, predicting(here))
        each = here.view(len(micro), -1).sum(dim=1).tolist()
        pairs = zip(logits.split(each), labels[:, 1:][here].split(each), tokens, strict=True)
        total = torch.nn.functional.cross_entropy
        return torch.stack([total(mine.float(), wanted, reduction="sum") / count for mine, wanted, count in pairs])


def _fields(row: Example) -> dict[str, list[int]]:
    return {"input_ids": row.input_ids, "labels": row.labels}


@contextmanager
def stacked(model: Any, trainings: Sequence[Training]) -> Iterator[Stack]:
    """The base with the trainings' adapters on it, in training mode; afterwards it is as it was."""
    stack = Stack(model, trainings)
    try:
        for name, layer in stack.layers.items():
            model.set_submodule(name, layer)
        model.train()
        yield stack
    finally:
        for name, layer in stack.layers.items():
            model.set_submodule(name, layer.base)
        model.eval()
