"""Trains an adapter on a mix through transformers' Trainer: the rows in the mix's order, the loss on the labels."""

import math
import tempfile
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch.nn.utils.rnn import pad_sequence
from transformers import Trainer, TrainerCallback, TrainingArguments

from trials.mix import IGNORED, Example
from trials.spec import Train


class NonFiniteLoss(ArithmeticError):
    """The loss became NaN or infinite; the setting is of no use and training stops."""


class _Watch(TrainerCallback):
    """Keeps (step, loss) of every logged step and stops at the first loss that is no number."""

    def __init__(self) -> None:
        self.losses: list[tuple[int, float]] = []

    def on_log(self, args: Any, state: Any, control: Any, logs: dict[str, float] | None = None, **_: Any) -> None:
        loss = (logs or {}).get("loss")
        if loss is not None:
            if not math.isfinite(loss):
                raise NonFiniteLoss(f"the loss was {loss} at step {state.global_step}; a lower train.learning_rate may help")
            self.losses.append((state.global_step, float(loss)))


def epochs(examples: Sequence[Example], train: Train, data_seed: int) -> list[Example]:
    """The rows as they are trained on: the first epoch in the mix's order (prefixes stay prefixes), later ones shuffled."""
    rows = list(examples)
    for epoch in range(1, train.epochs):
        rows += [examples[i] for i in np.random.default_rng([data_seed, epoch]).permutation(len(examples))]
    return rows


def collate(rows: list[dict[str, list[int]]], pad_id: int) -> dict[str, torch.Tensor]:
    """(micro-batch, longest row) tensors, padded on the right; labels are padded with IGNORED."""
    ids = [torch.tensor(row["input_ids"]) for row in rows]
    labels = [torch.tensor(row["labels"]) for row in rows]
    return {
        "input_ids": pad_sequence(ids, batch_first=True, padding_value=pad_id),
        "attention_mask": pad_sequence([torch.ones_like(row) for row in ids], batch_first=True),
        "labels": pad_sequence(labels, batch_first=True, padding_value=IGNORED),
    }


def arguments(train: Train, folder: str) -> TrainingArguments:
    micro = min(train.micro_batch_size, train.batch_size)
    chosen = TrainingArguments(
        output_dir=folder,
        per_device_train_batch_size=micro,
        gradient_accumulation_steps=train.batch_size // micro,
        num_train_epochs=1,  # the epochs are laid out in the rows
        train_sampling_strategy="sequential",
        learning_rate=train.learning_rate,
        lr_scheduler_type="constant_with_warmup" if train.schedule == "constant" else train.schedule,
        warmup_steps=train.warmup,
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
    # a trial has one device; the Trainer would multiply the batch by every other one that it sees
    chosen._n_gpu = min(chosen.n_gpu, 1)
    return chosen


def fit(
    model: Any, tokenizer: Any, examples: Sequence[Example], train: Train, data_seed: int
) -> tuple[dict[str, float], list[tuple[int, float]]]:
    """Trains the adapter of `model` in place.

    Returns rows, tokens, steps and final_loss (nats per counted token, last step), and the (step, loss) pairs of all steps.
    """
    rows = epochs(examples, train, data_seed)
    watch = _Watch()
    with tempfile.TemporaryDirectory(prefix="slimsweep-") as folder:
        trainer = Trainer(
            model=model,
            args=arguments(train, folder),
            train_dataset=[{"input_ids": row.input_ids, "labels": row.labels} for row in rows],  # type: ignore[arg-type]
            data_collator=lambda batch: collate(batch, tokenizer.pad_token_id),
            callbacks=[watch],
        )
        trainer.pop_callback(next(c for c in trainer.callback_handler.callbacks if type(c).__name__ == "PrinterCallback"))
        trainer.train()
    model.eval()
    summary: dict[str, float] = {
        "rows": len(rows),
        "tokens": sum(len(row.input_ids) for row in rows),
        "steps": trainer.state.global_step,
    }
    if watch.losses:
        summary["final_loss"] = watch.losses[-1][1]
    return summary, watch.losses
