"""Seconds of training several adapters in one pass against one after the other, and how far their gradients differ.

`python -m tests.benchmarks.several [micro|tiny|smollm2|1b]`; smollm2 needs `--hub-mirror DIR`, and 1b, of Llama-3.2-1B's shape
with random weights in bfloat16, a GPU. Ranks and rates differ from adapter to adapter. Both ways take turns, `--times` of each,
and the least counts. Prints a Markdown table; the last column is the largest difference of a gradient, of its tensor's largest.
"""

import argparse
import math
import time
from collections.abc import Callable, Sequence
from types import SimpleNamespace
from typing import Any

import numpy as np
import torch
from transformers import LlamaConfig, LlamaForCausalLM

from tests.benchmarks.programs import SWEEPS
from tests.benchmarks.synthetic import SHAPES
from trials import mix
from trials.adapters import peft_adapter
from trials.data.batching import collate
from trials.hub.hub import Hub
from trials.mix import Example
from trials.models import base
from trials.spec import Base, Data, Lora, Train
from trials.training import multi_adapter, trainer

RANKS = (4, 32, 8, 16)
RATES = (2e-4, 1e-3)
NEVER = trainer.Pace(math.inf)


def loaded_with_rows(name: str, mirror: str | None, count: int) -> tuple[Any, int, list[Example], Train]:
    """The base, its padding token, so many rows to train on, and the batch."""
    if name in SHAPES:
        config = LlamaConfig(**SHAPES[name], tie_word_embeddings=True)  # type: ignore[arg-type]
        model = LlamaForCausalLM(config).to(base.device(), torch.bfloat16 if name == "1b" else torch.float32)
        random = np.random.default_rng(0)
        rows = [random.integers(3, config.vocab_size, size).tolist() for size in random.integers(40, 200, count)]
        loaded = base.LoadedBase(model.eval().requires_grad_(False), SimpleNamespace(pad_token_id=0), None)
        return loaded, 0, [Example("random", ids, ids) for ids in rows], Train(batch_size=8, micro_batch_size=8)
    sweep, hub = SWEEPS[name], Hub(mirror)
    loaded = base.load(Base.model_validate(sweep["base"]), hub)
    data = Data.model_validate({**sweep["data"], "samples": count})
    return loaded, loaded.tokenizer.pad_token_id, mix.build(data, hub, loaded.tokenizer), Train(**sweep["train"])


class Sweep:
    """k trials on one base: `alone` and `together` train them and give the seconds."""

    def __init__(self, loaded: base.LoadedBase, pad_id: int, rows: Sequence[Example], settings: Train):
        self.loaded, self.pad_id, self.rows, self.settings = loaded, pad_id, rows, settings

    def trial(self, number: int) -> tuple[Lora, Train]:
        rate = RATES[number % len(RATES)]
        return Lora(rank=RANKS[number % len(RANKS)]), self.settings.model_copy(update={"learning_rate": rate, "seed": number})

    def alone(self, k: int) -> float:
        began = time.perf_counter()
        for number in range(k):
            lora, settings = self.trial(number)
            with peft_adapter.adapted(self.loaded, lora, settings.seed) as model:
                start = trainer.beginning(model, settings)
                trainer.fit(self.inputs(model, settings), start)
        return time.perf_counter() - began

    def inputs(self, model: Any, settings: Train) -> trainer.TrainingInputs:
        return trainer.TrainingInputs(model, self.pad_id, self.rows, settings, lambda state: None, NEVER)

    def together(self, k: int) -> float:
        began = time.perf_counter()
        multi_adapter.fit(self.trainings(k))
        return time.perf_counter() - began

    def trainings(self, k: int) -> list[multi_adapter.Training]:
        made = []
        for number in range(k):
            lora, settings = self.trial(number)
            with peft_adapter.adapted(self.loaded, lora, settings.seed) as model:
                start = trainer.beginning(model, settings)
            made.append(multi_adapter.Training(lora, self.inputs(self.loaded.model, settings), start))
        return made

    def difference(self, k: int) -> float:
        """Of the first batch's gradients, where no factor is 0 any more."""
        trainings = self.trainings(k)
        for training in trainings:
            _scatter(training.weights)
        with multi_adapter.stacked(trainings) as stack:
            stack.backward()
        return max(self._furthest(number, training) for number, training in enumerate(trainings))

    def _furthest(self, number: int, training: multi_adapter.Training) -> float:
        lora, settings = self.trial(number)
        micros, tokens = training.batch()
        with peft_adapter.adapted(self.loaded, lora, settings.seed) as model:
            weights = trainer.trainable(model)
            _scatter(weights)
            model.train()
            for rows in micros:
                batch = collate(rows, self.pad_id)
                batch = {name: value.to(model.device) for name, value in batch.items()}
                model(**batch, num_items_in_batch=torch.tensor(tokens)).loss.backward()
            return max(_apart(training.weights[name], weight) for name, weight in weights.items())


def _apart(one: torch.nn.Parameter, other: torch.nn.Parameter) -> float:
    assert one.grad is not None
    assert other.grad is not None
    return float((one.grad - other.grad).abs().max() / other.grad.abs().max())


@torch.no_grad()
def _scatter(weights: dict[str, torch.nn.Parameter]) -> None:
    for number, weight in enumerate(weights.values()):
        random = torch.randn(weight.shape, generator=torch.Generator().manual_seed(number))
        weight.copy_(0.02 * random)


def least(run: Sequence[Callable[[], float]], times: int) -> list[float]:
    found = [[each() for each in run] for _ in range(times)]
    return [min(column) for column in zip(*found, strict=True)]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("base", nargs="?", default="micro", choices=[*SWEEPS, *SHAPES])
    parser.add_argument("--hub-mirror")
    parser.add_argument("--steps", type=int, default=8)
    parser.add_argument("--times", type=int, default=2)
    parser.add_argument("--adapters", type=int, nargs="+", default=[1, 2, 4, 8])
    options = parser.parse_args()
    torch.set_num_threads(1)
    batch_size = 8
    sweep = Sweep(*loaded_with_rows(options.base, options.hub_mirror, options.steps * batch_size))
    sweep.alone(1), sweep.together(1)
    print("| adapters | one after the other | in one pass | ratio | gradients apart |\n|---:|---:|---:|---:|---:|")
    for k in options.adapters:
        alone, together = least([lambda k=k: sweep.alone(k), lambda k=k: sweep.together(k)], options.times)  # type: ignore[misc]
        print(f"| {k} | {alone:.2f} s | {together:.2f} s | {alone / together:.2f} | {sweep.difference(k):.1e} |", flush=True)


if __name__ == "__main__":
    main()
