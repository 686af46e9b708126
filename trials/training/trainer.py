"""Trains an adapter with transformers' Trainer on rows in the mix's order.

A training that is cut off after any step resumes in another process with the same result. The Trainer's own resume unpickles
files, so it is not used: a resumed training runs the Trainer on the remaining rows, with the states of optimiser, schedule and
random generators restored.
"""

import hashlib
import math
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, fields, replace
from itertools import accumulate
from typing import Any

import numpy as np
import torch
from transformers import TrainerCallback, TrainingArguments, get_scheduler
from transformers.integrations.neftune import activate_neftune, deactivate_neftune

from trials.data.batching import collate
from trials.drift import heldout as drift
from trials.errors import InputError
from trials.mix import Example
from trials.spec import Train
from trials.training import graphed_blocks, packing
from trials.training.loss import Regularised

KL_CHECKS = 20
"""Maximum number of times that train.stop_kl measures the KL in a training."""
KL_ROWS = 32
"""Maximum number of held-out rows on which it is measured."""


class NonFiniteLoss(ArithmeticError):
    """The loss, its gradient or a weight became NaN or infinite, and training stopped."""


@dataclass
class State:
    """A training after `step` optimiser steps: everything that its remaining steps depend on."""

    step: int
    micro_batch_size: int
    weights: dict[str, torch.Tensor]
    """The adapter's weights by name."""
    others: dict[str, torch.Tensor] = field(default_factory=dict)
    """States of the optimiser, "index.name", and of the random generators, "random.device". Empty at the start and the end."""
    schedule: dict[str, Any] = field(default_factory=dict)
    losses: list[tuple[int, float]] = field(default_factory=list)
    """(step, loss) of the steps so far: nats per counted token, penalties included."""
    penalties: dict[str, float] = field(default_factory=dict)
    """Each penalty's part of the last step's loss."""
    kl: list[tuple[int, float]] = field(default_factory=list)
    """(step, KL(base || tuned) in nats per counted token of the held-out rows), as train.stop_kl measured it."""
    seconds: float = 0.0
    """Time spent on the steps so far, by all attempts."""
    packed_rows: bool = False
    """Whether rows are packed (packing.py). A resumed training goes on as it began."""

    def packed(self) -> tuple[dict[str, Any], dict[str, torch.Tensor]]:
        """The state as JSON values and tensors."""
        values = {one.name: getattr(self, one.name) for one in fields(self) if one.name not in ("weights", "others")}
        return values, {
            **{f"weights/{name}": tensor for name, tensor in self.weights.items()},
            **{f"others/{name}": tensor for name, tensor in self.others.items()},
        }

    @classmethod
    def unpacked(cls, values: Mapping[str, Any], tensors: Mapping[str, torch.Tensor]) -> "State":
        parts: dict[str, dict[str, torch.Tensor]] = {"weights": {}, "others": {}}
        for name, tensor in tensors.items():
            part, _, rest = name.partition("/")
            parts[part][rest] = tensor
        lists = {name: [(step, value) for step, value in values[name]] for name in ("losses", "kl")}
        return cls(**{**values, **lists, **parts})


@dataclass(frozen=True)
class Pace:
    """How often states are saved: at least `seconds` apart, and with at most `share` of the time spent on saving."""

    seconds: float = 30.0
    share: float = 0.03

    def due(self, since: float, cost: float) -> bool:
        """`since` seconds after the last save, which took `cost` seconds."""
        return since >= max(self.seconds, cost / self.share)


@dataclass(frozen=True)
class TrainingInputs:
    """Everything that a training depends on besides the state it starts from."""

    model: Any
    """The model with its adapter, which is trained in place."""
    pad_id: int
    rows: Sequence[Example]
    """The rows of all epochs."""
    settings: Train
    save: Callable[[State], None]
    """Called with the current state at the given pace."""
    pace: Pace
    heldout: Sequence[Example] = ()
    """train.stop_kl measures the KL on the first KL_ROWS of them."""
    reached: Callable[[int, float], None] = lambda step, loss: None
    """Called after every step, with its loss."""
    until: int | None = None
    """The step after which the training is cut off, and its state saved."""

    @property
    def steps(self) -> int:
        return math.ceil(len(self.rows) / self.settings.batch_size)

    def left(self, start: State) -> Sequence[Example]:
        """The rows that `start` has not been trained on."""
        size = self.settings.batch_size
        return [] if stops(start.kl, self.settings) else self.rows[start.step * size : self.until and self.until * size]

    def measure_kl(self, start: State) -> float:
        """The KL on held-out rows, in nats per token."""
        return drift.learning(self.model, self.pad_id, self.heldout[:KL_ROWS], start.micro_batch_size)["kl"]


def trainable(model: Any) -> dict[str, torch.nn.Parameter]:
    return {name: weight for name, weight in model.named_parameters() if weight.requires_grad}


def beginning(model: Any, train: Train) -> State:
    """The state before the first step. Its weights are copies, so that a failed training can start over."""
    weights = {name: weight.detach().clone() for name, weight in trainable(model).items()}
    return State(0, min(train.micro_batch_size, train.batch_size), weights)


def stops(kl: Sequence[tuple[int, float]], train: Train) -> bool:
    """Whether the last KL exceeds train.stop_kl."""
    return train.stop_kl is not None and bool(kl) and kl[-1][1] > train.stop_kl


def smaller(micro_batch_size: int, batch_size: int) -> int:
    """Half the micro-batch size, or the next smaller divisor of the batch size."""
    return next(size for size in range(micro_batch_size // 2, 0, -1) if batch_size % size == 0)


class _Watch(TrainerCallback):
    """Restores the random generators, records losses, saves states, and stops at a non-finite loss or a high KL."""

    def __init__(self, inputs: TrainingInputs, start: State, trainer: Regularised, schedule: Any):
        self.inputs, self.start, self.trainer, self.schedule = inputs, start, trainer, schedule
        self.every = math.ceil(inputs.steps / KL_CHECKS) if inputs.settings.stop_kl is not None else None
        self.losses, self.kl = list(start.losses), list(start.kl)
        self.penalties = dict(start.penalties)
        self.began = self.saved = time.perf_counter()
        self.cost = 0.0

    def on_step_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        if state.global_step == 0:  # not earlier: the data loader draws a random number when it starts
            others = self.start.others
            if "random.cpu" in others:
                torch.set_rng_state(others["random.cpu"])
            if "random.cuda" in others:
                torch.cuda.set_rng_state(others["random.cuda"])

    def on_log(self, args: Any, state: Any, control: Any, logs: dict[str, float] | None = None, **_: Any) -> None:
        if not logs or "loss" not in logs:
            return
        step = self.start.step + state.global_step
        check_finite(step, logs["loss"], logs.get("grad_norm", 0.0))
        self.losses.append((step, float(logs["loss"])))
        self.penalties = self.trainer.penalties()
        self.inputs.reached(step, self.losses[-1][1])
        if self.every is not None and step % self.every == 0:
            self.kl.append((step, self.inputs.measure_kl(self.start)))
            if not math.isfinite(self.kl[-1][1]):
                raise NonFiniteLoss(f"the KL on held-out rows was {self.kl[-1][1]} at step {step}")
            control.should_training_stop = control.should_training_stop or stops(self.kl, self.inputs.settings)
        now = time.perf_counter()
        if self.inputs.pace.due(now - self.saved, self.cost) or step == self.inputs.until:
            self.inputs.save(self.state())
            self.saved = time.perf_counter()
            self.cost = self.saved - now

    def state(self) -> State:
        """The state between two steps."""
        optimizer = self.trainer.optimizer
        assert optimizer is not None
        return replace(self.end(), others={**optimizer_tensors(optimizer), **_random()}, schedule=self.schedule.state_dict())

    def end(self) -> State:
        """The state after the last step."""
        return State(
            step=self.losses[-1][0],
            micro_batch_size=self.start.micro_batch_size,
            weights={name: weight.detach() for name, weight in trainable(self.trainer.model).items()},
            losses=list(self.losses),
            penalties=dict(self.penalties),
            kl=list(self.kl),
            seconds=round(self.start.seconds + time.perf_counter() - self.began, 3),
            packed_rows=self.start.packed_rows,
        )


def check_finite(step: int, loss: float, norm: float) -> None:
    """Raises NonFiniteLoss if a step's loss or the norm of its gradient is not finite."""
    for name, value in {"the loss": loss, "the gradient's norm": norm}.items():
        if not math.isfinite(value):
            raise NonFiniteLoss(f"{name} was {value} at step {step}; a lower train.learning_rate may help")


def check_end(end: State) -> State:
    """Returns the end of a training; raises NonFiniteLoss if one of its weights is not finite."""
    if not all(bool(torch.isfinite(weight).all()) for weight in end.weights.values()):
        raise NonFiniteLoss(f"a weight is not finite after step {end.step}; a lower train.learning_rate may help")
    return end


def optimizer_tensors(optimizer: torch.optim.Optimizer) -> dict[str, torch.Tensor]:
    state = optimizer.state_dict()["state"]
    return {f"{index}.{name}": value for index, values in state.items() for name, value in values.items()}


def _random() -> dict[str, torch.Tensor]:
    # only torch's generators: nothing in a training draws from Python's or numpy's
    found = {"random.cpu": torch.get_rng_state()}
    if torch.cuda.is_available():
        found["random.cuda"] = torch.cuda.get_rng_state()
    return found


def put_weights(state: State, model: Any) -> None:
    """Copies the state's weights into the adapter of `model`."""
    with torch.no_grad():
        for name, weight in trainable(model).items():
            weight.copy_(state.weights[name])
            weight.grad = None


def put_back(start: State, optimizer: torch.optim.Optimizer, schedule: Any) -> None:
    """Restores optimiser and schedule from the state."""
    if not start.others:  # the start of a training
        return
    whole = optimizer.state_dict()
    for name, value in start.others.items():
        index, _, part = name.partition(".")
        if index != "random":
            whole["state"].setdefault(int(index), {})[part] = value
    schedule.load_state_dict(start.schedule)
    for group, rate in zip(whole["param_groups"], schedule.get_last_lr(), strict=True):
        group["lr"] = rate
    optimizer.load_state_dict(whole)


def epochs(examples: Sequence[Example], train: Train, data_seed: int) -> list[Example]:
    """The rows of all epochs: the first in the mix's order, so that prefixes stay prefixes, later ones shuffled."""
    rows = list(examples)
    for epoch in range(1, train.epochs):
        rows += [examples[i] for i in np.random.default_rng([data_seed, epoch]).permutation(len(examples))]
    return rows


def tokens(rows: Sequence[Example], batch_size: int) -> list[int]:
    """The number of tokens in the first i + 1 steps, at i."""
    steps = (rows[first : first + batch_size] for first in range(0, len(rows), batch_size))
    return list(accumulate(sum(len(row.input_ids) for row in step) for step in steps))


def digest(rows: Sequence[Example]) -> str:
    """sha256 of the rows' tokens and labels."""
    found = hashlib.sha256()
    for row in rows:
        found.update(np.array([len(row.labels), *row.input_ids, *row.labels], dtype=np.int64).tobytes())
    return found.hexdigest()


def summary(rows: Sequence[Example], end: State, train: Train) -> dict[str, float]:
    """rows, tokens and steps that were trained on; final_loss, that of the last step with penalties; final_PENALTY, each
    penalty's part of it; with train.stop_kl, stopped_early (1 or 0)."""
    done = rows[: end.step * train.batch_size]
    found: dict[str, float] = {
        "rows": len(done),
        "tokens": sum(len(row.input_ids) for row in done),
        "steps": end.step,
        "final_loss": end.losses[-1][1],
        **{f"final_{name}": value for name, value in end.penalties.items()},
    }
    return found if train.stop_kl is None else {**found, "stopped_early": float(len(done) < len(rows))}


def arguments(train: Train, micro: int, folder: str) -> TrainingArguments:
    chosen = TrainingArguments(
        output_dir=folder,
        per_device_train_batch_size=micro,
        gradient_accumulation_steps=train.batch_size // micro,
        num_train_epochs=1,  # the epochs are laid out in the rows
        train_sampling_strategy="sequential",
        learning_rate=train.learning_rate,
        weight_decay=train.weight_decay,
        max_grad_norm=train.max_grad_norm,
        optim="adamw_torch_fused",
        seed=train.seed,
        logging_steps=1,
        logging_nan_inf_filter=False,
        save_strategy="no",
        report_to="none",
        disable_tqdm=True,
        dataloader_pin_memory=torch.cuda.is_available(),
        remove_unused_columns=False,
        use_cpu=not torch.cuda.is_available(),
    )
    # a trial uses one device; the Trainer would multiply the batch by the number of visible ones
    chosen._n_gpu = min(chosen.n_gpu, 1)
    return chosen


def schedule_of(train: Train, optimizer: torch.optim.Optimizer, steps: int) -> Any:
    """The learning-rate schedule over all steps of a training."""
    warmup = math.ceil(steps * train.warmup)
    names = {"constant": "constant_with_warmup", "wsd": "warmup_stable_decay"}
    extra: dict[str, Any] = {}
    if train.schedule == "wsd":
        extra = {"num_decay_steps": min(max(1, round(steps * train.decay)), steps - warmup), "decay_type": "linear"}
    return get_scheduler(names.get(train.schedule, train.schedule), optimizer, warmup, steps, scheduler_specific_kwargs=extra)


@contextmanager
def noisy(model: Any, size: float) -> Iterator[None]:
    """NEFTune's noise on the embeddings within the context."""
    # not by the Trainer's own argument, which leaves the noise on the model of a training that fails
    if size == 0:
        yield
        return
    hook = activate_neftune(model, size)
    try:
        yield
    finally:
        deactivate_neftune(model, hook)


@contextmanager
def _fast(inputs: TrainingInputs, micro: int, packed: bool) -> Iterator[None]:
    """Replays the blocks as CUDA graphs within the context, on a GPU whose model allows it."""
    model, rows = inputs.model, inputs.rows  # the rows of the whole training, so that a resumed one replays the same steps
    if model.device.type != "cuda" or not graphed_blocks.fits(model, packed):
        yield
        return
    lengths = [len(row.input_ids) for row in rows]
    with graphed_blocks.replayed(model, [lengths[i : i + micro] for i in range(0, len(rows), micro)], packed):
        yield


def fit(inputs: TrainingInputs, start: State) -> State:
    """Trains the adapter in place on the remaining rows and returns the final state.

    Raises NonFiniteLoss, and InputError for train.stop_kl without held-out rows.
    """
    model, settings = inputs.model, inputs.settings
    if settings.stop_kl is not None and not inputs.heldout:
        raise InputError("train.stop_kl needs held-out rows to measure the KL on, and there are none")
    left = inputs.left(start)
    with tempfile.TemporaryDirectory(prefix="slimsweep-") as folder:
        trainer = Regularised(
            model=model,
            args=arguments(settings, start.micro_batch_size, folder),
            train_dataset=list(left),
            data_collator=packing.collate if start.packed_rows else lambda batch: collate(batch, inputs.pad_id),
            settings=settings,
        )
        # would print every log entry to standard output, which --json keeps machine-readable
        trainer.pop_callback(next(c for c in trainer.callback_handler.callbacks if type(c).__name__ == "PrinterCallback"))
        optimizer = trainer.create_optimizer()
        schedule = schedule_of(settings, optimizer, inputs.steps)
        trainer.lr_scheduler = schedule  # over all steps; the Trainer's own would cover only the remaining ones
        put_weights(start, model)
        put_back(start, optimizer, schedule)
        watch = _Watch(inputs, start, trainer, schedule)
        trainer.add_callback(watch)
        if left:
            with _fast(inputs, start.micro_batch_size, start.packed_rows), noisy(model, settings.neftune), trainer.scaled():
                trainer.train()
    model.eval()
    return check_end(watch.end())
