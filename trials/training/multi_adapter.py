"""Joint training: trains the adapters of several trials in one pass over the base that they share.

A pass runs the trials' micro-batches as one batch. Each layer of the base computes all rows at once; the adapters' updates are
one batched product of their stacked factors. Every trial keeps its own loss, clipping, optimiser, learning rate, schedule and
number of steps, and leaves the pass when it has ended.
"""

import json
import math
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from itertools import zip_longest

import bitsandbytes as bnb
import torch
from transformers import Trainer

from trials.data.batching import collate, counted
from trials.mix import Example
from trials.models import base
from trials.models.lm_head import logits_at, predicting
from trials.spec import Lora, TrialSpec
from trials.template import IGNORED
from trials.training import trainer

_PREFIX = "base_model.model."  # PEFT's, before the base's own names
_DOWN, _UP = ".lora_A.default.weight", ".lora_B.default.weight"


class Unstackable(Exception):
    """The base cannot carry several adapters in one pass; its trials can still be trained one by one."""


def stackable(spec: TrialSpec) -> str | None:
    """The group of a spec: specs of one group can be trained in one pass. None for a spec that must be trained alone."""
    lora, settings = spec.lora, spec.train
    alone = (
        spec.is_baseline,
        spec.parent is not None,
        # random numbers are drawn for a whole pass, so they would differ from those of a training by itself
        lora.dropout > 0,
        settings.neftune > 0,
        # the stacked layers compute B @ A and nothing else
        lora.method != "lora",
        lora.use_dora,
        lora.converted,
        # these compare with the base, which has no adapter to switch off here
        settings.kl > 0,
        settings.l2 > 0,
        settings.stop_kl is not None,
        settings.loss != "nll",
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
    """One trial of a pass: its weights, loss, optimiser, schedule and rows.

    `inputs.model` is the base without an adapter; model, pad_id and pace are the same for all trainings of a pass.
    """

    def __init__(self, lora: Lora, inputs: trainer.TrainingInputs, start: trainer.State):
        self.inputs, self.settings, self.start = inputs, inputs.settings, start
        self.scaling = lora.alpha / (math.sqrt(lora.rank) if lora.use_rslora else lora.rank)
        device = inputs.model.device
        self.weights = {name: torch.nn.Parameter(weight.to(device, copy=True)) for name, weight in start.weights.items()}
        with tempfile.TemporaryDirectory(prefix="slimsweep-") as folder:
            wanted = trainer.arguments(self.settings, start.micro_batch_size, folder)
            kind, named = Trainer.get_optimizer_cls_and_kwargs(wanted)
        # two groups as in the Trainer (the second holds biases and norms), so that optimiser states are interchangeable
        groups = [
            {"params": [*self.weights.values()], "weight_decay": self.settings.weight_decay},
            {"params": [], "weight_decay": 0.0},
        ]
        self.optimizer: torch.optim.Optimizer = kind(groups, **named)
        self.schedule = trainer.schedule_of(self.settings, self.optimizer, inputs.steps)
        trainer.put_back(start, self.optimizer, self.schedule)
        self.step, self.losses, self.seconds = start.step, list(start.losses), start.seconds
        self.end: trainer.State | None = None
        self.failure: trainer.NonFiniteLoss | None = None

    @property
    def over(self) -> bool:
        return self.failure is not None or self.step >= self.inputs.steps

    def batch(self) -> tuple[list[Sequence[Example]], int]:
        """The micro-batches of the next step, and the number of their counted tokens."""
        size, micro = self.settings.batch_size, self.start.micro_batch_size
        rows = self.inputs.rows[self.step * size : (self.step + 1) * size]
        tokens = sum(label != IGNORED for row in rows for label in row.labels[1:])
        return [rows[first : first + micro] for first in range(0, len(rows), micro)], tokens

    def update(self, loss: float) -> None:
        """One optimiser step. A loss or gradient that is not finite ends this training only."""
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
        self.inputs.reached(self.step, loss)

    def state(self) -> trainer.State:
        """The state between two steps or at the end; trainer.fit resumes from it, too."""
        unfinished = self.step < self.inputs.steps
        return trainer.State(
            step=self.step,
            micro_batch_size=self.start.micro_batch_size,
            weights={name: weight.detach() for name, weight in self.weights.items()},
            others=trainer.optimizer_tensors(self.optimizer) if unfinished else {},
            schedule=self.schedule.state_dict() if unfinished else {},
            losses=list(self.losses),
            seconds=round(self.seconds, 3),
        )

    def finish(self) -> None:
        """Sets `end` and saves it, unless the training failed."""
        if self.failure is not None:
            return
        try:
            self.end = trainer.check_end(self.state())
        except trainer.NonFiniteLoss as failure:
            self.failure = failure
        else:
            self.inputs.save(self.end)


def fit(trainings: Sequence[Training]) -> None:
    """Trains until every training has its `end` or its `failure`. All need the same micro-batch size.

    The results equal those of separate training up to rounding, because sums run over other paddings and orders. Raises
    Unstackable. The model has no adapter before and after.
    """
    model, pace = trainings[0].inputs.model, trainings[0].inputs.pace
    if model.dtype == torch.float16:
        raise Unstackable("gradients in float16 need a scale, which each training has of its own")
    if dropped := base.dropouts(model):
        raise Unstackable(f"the base trains with dropout of its own ({', '.join(dropped)})")
    saved, cost = time.perf_counter(), 0.0
    left = list(trainings)
    while left:
        for training in left:
            if training.over:  # also one that resumes at its end: stacked, it would only take memory
                training.finish()
        left = [training for training in left if not training.over]
        if not left:
            return
        with stacked(left) as stack:
            while not any(training.over for training in left):
                stack.step()
                now = time.perf_counter()
                if pace.due(now - saved, cost):
                    for training in left:
                        if not training.over:  # else `finish` saves it
                            training.inputs.save(training.state())
                    saved = time.perf_counter()
                    cost = saved - now


# ---------------------------------------------------------------------- the adapters in one pass


class Layer(torch.nn.Module):
    """A layer of the base with k adapters, each applied to its own rows.

    (k x rows, length, inputs) -> (k x rows, length, outputs). `down` is (k, largest rank, inputs) and `up` (k, outputs, largest
    rank), zero beyond an adapter's own rank.
    """

    def __init__(
        self, base: torch.nn.Module, downs: Sequence[torch.Tensor], ups: Sequence[torch.Tensor], scaling: torch.Tensor
    ):
        super().__init__()
        rank = max(map(len, downs))
        pad = torch.nn.functional.pad
        self.base = base
        self.down = torch.nn.Parameter(torch.stack([pad(one.detach(), (0, 0, 0, rank - len(one))) for one in downs]))
        self.up = torch.nn.Parameter(torch.stack([pad(one.detach(), (0, rank - one.shape[1])) for one in ups]))
        self.scaling = scaling.to(self.down.dtype)[:, None, None]
        # made once and zeroed in place: the stack holds views of them
        self.gradients = torch.zeros_like(self.down), torch.zeros_like(self.up)
        self.down.grad, self.up.grad = self.gradients
        self.tokens = 0
        """Tokens of the pass, padding included."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        # rows can be assigned to adapters only if the layer sees every token of every row; an expert does not
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
    """The trainings of a pass and the stacked layers that carry their adapters."""

    def __init__(self, trainings: Sequence[Training]):
        self.trainings = trainings
        self.model, self.pad_id = trainings[0].inputs.model, trainings[0].inputs.pad_id
        scaling = torch.tensor([training.scaling for training in trainings], device=self.model.device)
        self.layers: dict[str, Layer] = {}
        # four lists in one order: the trainings' weights, their gradients, and the views of the stack that hold the same
        self.weights: list[torch.Tensor] = []
        self.gradients: list[torch.Tensor] = []
        self.stacked_weights: list[torch.Tensor] = []
        self.stacked_gradients: list[torch.Tensor] = []
        for name in [name.removesuffix(_DOWN) for name in trainings[0].weights if name.endswith(_DOWN)]:
            downs, ups = ([training.weights[name + end] for training in trainings] for end in (_DOWN, _UP))
            own = name.removeprefix(_PREFIX)
            layer = self.layers[own] = Layer(self.model.get_submodule(own), downs, ups, scaling)
            down_gradient, up_gradient = layer.gradients
            for number, (down, up) in enumerate(zip(downs, ups, strict=True)):
                down.grad, up.grad = torch.empty_like(down), torch.empty_like(up)
                rank = len(down)
                self.weights += [down, up]
                self.gradients += [down.grad, up.grad]
                self.stacked_weights += [layer.down.data[number, :rank], layer.up.data[number, :, :rank]]
                self.stacked_gradients += [down_gradient[number, :rank], up_gradient[number, :, :rank]]

    def step(self) -> None:
        """One optimiser step of every training."""
        began = time.perf_counter()
        losses = self.backward()
        for training, loss in zip(self.trainings, losses.tolist(), strict=True):
            training.update(loss)
        with torch.no_grad():
            torch._foreach_copy_(self.stacked_weights, self.weights)
        share = (time.perf_counter() - began) / len(self.trainings)
        for training in self.trainings:
            training.seconds += share

    def backward(self) -> torch.Tensor:
        """(k,) losses of the next batches; sets the gradients of the trainings' weights."""
        for layer in self.layers.values():
            for gradient in layer.gradients:
                gradient.zero_()
        batches = [training.batch() for training in self.trainings]
        tokens = [count for _, count in batches]
        losses = torch.zeros(len(batches), device=self.model.device)
        for micro in zip_longest(*(micros for micros, _ in batches), fillvalue=()):
            # one sum: an adapter sees its own rows only, so the other losses' gradients for it are exactly 0
            found = self.losses(micro, tokens)
            found.sum().backward()  # type: ignore[no-untyped-call]
            losses += found.detach()
        with torch.no_grad():
            torch._foreach_copy_(self.gradients, self.stacked_gradients)
        return losses

    def losses(self, micro: Sequence[Sequence[Example]], tokens: Sequence[int]) -> torch.Tensor:
        """(k,) cross-entropy of each micro-batch in nats, summed and divided by `tokens`, the counted tokens of its step.

        A micro-batch with fewer rows than another is filled up with rows that do not count.
        """
        rows = max(map(len, micro))
        empty = Example("", [self.pad_id], [IGNORED])
        flat = [row for one in micro for row in [*one, *[empty] * (rows - len(one))]]
        inputs = {name: value.to(self.model.device) for name, value in collate(flat, self.pad_id).items()}
        labels = inputs.pop("labels")
        here = counted(labels)
        for layer in self.layers.values():
            layer.tokens = labels.numel()
        logits = logits_at(self.model, inputs, predicting(here))
        each = here.view(len(micro), -1).sum(dim=1).tolist()
        pairs = zip(logits.split(each), labels[:, 1:][here].split(each), tokens, strict=True)
        total = torch.nn.functional.cross_entropy
        return torch.stack([total(mine.float(), wanted, reduction="sum") / count for mine, wanted, count in pairs])


@contextmanager
def stacked(trainings: Sequence[Training]) -> Iterator[Stack]:
    """Puts the trainings' adapters on the base, in training mode; takes them off afterwards."""
    stack = Stack(trainings)
    try:
        for name, layer in stack.layers.items():
            stack.model.set_submodule(name, layer)
        stack.model.train()
        yield stack
    finally:
        for name, layer in stack.layers.items():
            stack.model.set_submodule(name, layer.base)
        stack.model.eval()
