"""What each lever is worth by itself: its phase of one trial with it and without it, in one warm process of one thread.

`python -m tests.benchmarks.levers micro`, or `... smollm2 --hub-mirror DIR`. A lever is switched off from here, all others
stay on; with and without take turns, `--times` of each, and the least counts. The first row is another comparison: the second
trial of a process against the imports and the first. Prints a Markdown table.
"""

import argparse
import functools
import math
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from typing import Any
from unittest import mock

import bitsandbytes
import torch
from transformers.cache_utils import DynamicLayer

from tests.benchmarks.programs import SWEEPS
from trials import mix
from trials.adapters import peft_adapter
from trials.drift import heldout, kl
from trials.evaluation import evaluate
from trials.evaluation.engine import fast_engine, kv_cache, lm_eval_adapter, shared_prefix
from trials.evaluation.engine import greedy as decode
from trials.evaluation.engine.lm_eval_adapter import LmEvalAdapter
from trials.evaluation.engine.protocol import Prompt
from trials.hub.hub import Hub
from trials.ledger.record import Ledger, TrialRecord
from trials.models import base, dequantize
from trials.run.attempt import Attempt
from trials.run.session import Session
from trials.run.training_phase import mix_rows
from trials.run.worker import Worker
from trials.spec import TrialSpec
from trials.tasks import tasks, templates
from trials.training import loss, trainer

STEPS = 8
"""Of the training that is timed."""


@dataclass(frozen=True)
class Lever:
    name: str
    phase: str
    off: Callable[[], AbstractContextManager[Any]]
    """The block in which the lever is off."""


# ---------------------------------------------------------------------- switched off


def _held(flight: Any, most: int, ends: Callable[[list[int]], bool]) -> None:
    """decode.settle for rows that wait until all of their batch have ended; what they generate meanwhile is thrown away."""
    for row in flight.rows:
        if not hasattr(row, "end") and (ends(row.generated) or len(row.generated) >= most):
            row.end, row.stopped = len(row.generated), ends(row.generated)
    if all(hasattr(row, "end") for row in flight.rows):
        for row in flight.rows:
            row.generated = row.generated[: row.end]
        flight.keep(set())


def _everywhere(model: Any, inputs: Any, places: torch.Tensor) -> torch.Tensor:
    """head.logits_at that asks the head at every token."""
    found: torch.Tensor = model(**inputs).logits[places]
    return found


@contextmanager
def _compiled_each_time() -> Iterator[None]:
    kept = vars(templates._environment).pop("from_string")
    try:
        yield
    finally:
        templates._environment.from_string = kept  # type: ignore[method-assign]


@contextmanager
def _tokenised_each_time() -> Iterator[None]:
    """Every evaluation begins with nothing tokenised."""
    whole = LmEvalAdapter.__init__

    def forgetting(self: Any, *given: Any) -> None:
        lm_eval_adapter._tokens.clear()
        whole(self, *given)

    with mock.patch.object(LmEvalAdapter, "__init__", forgetting):
        yield


def _without_gold(adapter: LmEvalAdapter, texts: Sequence[str], golds: Sequence[str], max_tokens: int) -> list[Prompt]:
    """Prompts whose gold solutions are not scored along."""
    return [Prompt(prompt.tokens) for prompt in _prompts(adapter, texts, golds, max_tokens)]


_prompts = LmEvalAdapter._prompts


def _walked(self: Any, **asked: Any) -> Iterator[tuple[int, Any]]:
    """lm-eval's own walk through all documents."""
    found: Iterator[tuple[int, Any]] = self._usual(**asked)
    return found


@contextmanager
def _base_asked_again() -> Iterator[None]:
    """The drift is measured with nothing known of the base."""
    kl._of_base.clear()
    yield


def _made_each_time(session: Session, name: str, identity: Any, make: Callable[[], Any]) -> Any:
    return make()


def _patched(owner: Any, name: str, value: Any) -> Callable[[], AbstractContextManager[Any]]:
    return functools.partial(mock.patch.object, owner, name, value)


# ---------------------------------------------------------------------- the trial's phases


class Trial:
    """One trial's phases, each to be run again and again: `run(phase)` gives its seconds."""

    def __init__(self, spec: TrialSpec, worker: Worker, record: TrialRecord):
        self.spec, self.worker, self.record = spec, worker, record
        session = worker.session
        self.attempt = Attempt.begin(spec, session.ledger.lease(f"{spec.key}.levers"), session.ledger)
        self.loaded = worker.session.base(spec.base)
        with mock.patch.object(dequantize, "SHARE", 0.0):
            self.packed = base.load(spec.base, worker.session.hub)
        for module in self.packed.model.modules():
            if isinstance(module, bitsandbytes.nn.Linear4bit):  # as in script.py: other numbers, and weights that stay rounded
                module.support_avx512bf16_for_cpu = False
        self.rows = mix.build(spec.data, worker.session.hub, self.loaded.tokenizer)[: STEPS * spec.train.batch_size]
        self.heldout = mix.heldout(spec.data, worker.session.hub, self.loaded.tokenizer)
        self.unpacked = True

    @contextmanager
    def still_packed(self) -> Iterator[None]:
        self.unpacked = False
        try:
            yield
        finally:
            self.unpacked = True

    def run(self, phase: str) -> float:
        loaded = self.loaded if self.unpacked else self.packed
        if phase == "mix":
            began = time.perf_counter()
            mix_rows(self.worker.session, self.attempt)
            return time.perf_counter() - began
        if phase == "train":
            with peft_adapter.adapted(loaded, self.spec.lora, 0) as model:
                return self._train(model, loaded.tokenizer.pad_token_id)
        with peft_adapter.borrowed(loaded, self.worker.session.ledger.folder(self.record.key) / "adapter") as model:
            if phase == "drift":
                return self._drift(model, loaded.tokenizer.pad_token_id)
            began = time.perf_counter()
            with peft_adapter.merged(model) as whole:
                for role in self.spec.eval if phase == "evaluate" else [phase.partition(".")[2]]:
                    evaluation = self.spec.eval[role]
                    evaluate.evaluate(
                        evaluate.make_engine(evaluation.engine, whole, loaded.tokenizer, evaluation.batch_size),
                        role,
                        evaluation,
                        self.worker.session.tasks,
                    )
            return time.perf_counter() - began

    def _train(self, model: Any, pad_id: int) -> float:
        start = trainer.beginning(model, self.spec.train)
        began = time.perf_counter()
        never = trainer.Pace(math.inf)
        trainer.fit(trainer.TrainingInputs(model, pad_id, self.rows, self.spec.train, lambda state: None, never), start)
        return time.perf_counter() - began

    def _drift(self, model: Any, pad_id: int) -> float:
        rows, began = self.spec.train.micro_batch_size, time.perf_counter()
        heldout.measure(model, pad_id, self.heldout, rows)
        return time.perf_counter() - began


def levers(trial: Trial) -> Sequence[Lever]:
    def plain(engine: fast_engine.FastEngine, requests: Any) -> Any:
        return engine.plain.log_likelihoods(requests)

    return (
        Lever("4-bit weights unpacked once", "train", trial.still_packed),
        Lever("4-bit weights unpacked once (and so merged)", "evaluate", trial.still_packed),
        Lever("adapter merged for evaluation", "evaluate", _patched(peft_adapter, "_mergeable", lambda layer: False)),
        Lever(
            "endings share their context", "evaluate.commonsense", _patched(fast_engine.FastEngine, "log_likelihoods", plain)
        ),
        Lever(
            "few-shot rows run, kept and read once for all", "evaluate.math", _patched(shared_prefix, "common", lambda *_: 0)
        ),
        Lever("the cache grows in place", "evaluate.math", _patched(kv_cache.GrowingLayer, "update", DynamicLayer.update)),
        Lever("responses leave as they end", "evaluate.math", _patched(decode, "settle", _held)),
        Lever("gold solutions from their prompts' pass", "evaluate.math", _patched(LmEvalAdapter, "_prompts", _without_gold)),
        Lever("documents tokenised once a process", "evaluate", _tokenised_each_time),
        Lever("documents read once, by number", "evaluate", _patched(tasks._Documents, "__call__", _walked)),
        Lever("templates compiled once a process", "evaluate", _compiled_each_time),
        Lever("rows kept for the trials that share them", "mix", _patched(Session, "once", _made_each_time)),
        Lever("head at counted tokens alone", "train", _patched(loss, "logits_at", _everywhere)),
        Lever("what the base says of held-out rows kept", "drift", _base_asked_again),
    )


def measure(trial: Trial, lever: Lever, times: int) -> tuple[float, float]:
    """Least seconds with and without it."""
    found: tuple[list[float], list[float]] = ([], [])
    for _ in range(times):
        for seconds, block in zip(found, (nullcontext, lever.off), strict=True):
            with block():
                seconds.append(trial.run(lever.phase))
    return min(found[0]), min(found[1])


def told(name: str, phase: str, seconds: float, without: float) -> None:
    print(f"| {name} | {phase} | {seconds:.2f} s | {without:.2f} s | {without / seconds:.2f} |", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("sweep", choices=SWEEPS)
    parser.add_argument("--hub-mirror")
    parser.add_argument("--times", type=int, default=3)
    options = parser.parse_args()
    torch.set_num_threads(1)
    sweep = {key: value for key, value in SWEEPS[options.sweep].items() if key != "rates"}
    specs = [
        TrialSpec.model_validate({**sweep, "train": {**sweep["train"], "learning_rate": rate}})
        for rate in SWEEPS[options.sweep]["rates"]
    ]
    with tempfile.TemporaryDirectory() as folder:
        worker, ends = Worker(Ledger(folder), Hub(options.hub_mirror)), [time.perf_counter()]
        subprocess.run([sys.executable, "-c", "import trials.run.worker"], check=True)
        for spec in specs:
            record = worker.run(spec)
            if record.failure:
                raise SystemExit(record.failure.traceback)
            ends.append(time.perf_counter())
        print("| lever | phase | with | without | factor |\n|---|---|---:|---:|---:|")
        told("a worker keeps what it has made", "a trial", ends[2] - ends[1], ends[1] - ends[0])
        trial = Trial(specs[0], worker, worker.run(specs[0]))
        for lever in levers(trial):
            told(lever.name, lever.phase, *measure(trial, lever, options.times))


if __name__ == "__main__":
    main()
