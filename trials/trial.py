"""Runs trials in this process: mix -> train -> evaluate -> record. Base and tasks stay loaded from one trial to the next."""

import shutil
import time
import traceback
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import Any

import pandas as pd
import torch

from trials import base, environment, evaluate, mix, train
from trials.errors import InputError
from trials.hub import Hub, find_source
from trials.record import Failure, Ledger, TrialRecord
from trials.spec import Base, TrialSpec


class Worker:
    """Runs one trial after the other on this process's device."""

    def __init__(self, ledger: Ledger, hub: Hub):
        self.ledger = ledger
        self.hub = hub
        self.tasks = evaluate.Tasks(hub)
        self._base: tuple[Base, base.LoadedBase] | None = None

    def run(self, spec: TrialSpec) -> TrialRecord:
        """The spec's record: the ledger's if it is complete there, else a new one, written to the ledger.

        A trial that fails becomes a failed record with its traceback.
        """
        if done := self.ledger.complete(spec.key):
            return done
        record = TrialRecord(key=spec.key, state="complete", spec=spec)
        documents = adapter = None
        try:
            documents, adapter = self._run(spec, record)
        except Exception as error:
            self._base = None  # whatever state it is in, the next trial does not inherit it
            record.state = "failed"
            record.failure = Failure(kind=type(error).__name__, message=str(error), traceback=traceback.format_exc())
        record.versions = environment.versions()
        record.git = environment.git_revision()
        record.hardware = environment.hardware()
        record.peak_memory = environment.peak_memory()
        record.finished = datetime.now(UTC).isoformat(timespec="seconds")
        self.ledger.write(record, documents, adapter)
        return record

    def _run(self, spec: TrialSpec, record: TrialRecord) -> tuple[pd.DataFrame, Any]:
        if torch.cuda.is_available():
            torch.cuda.reset_peak_memory_stats()
        with _timed(record, "load"):
            loaded = self._load(spec.base)
            record.base_checksum = loaded.checksum
        record.seeds = {f"eval.{role}": evaluation.seed for role, evaluation in spec.eval.items()}
        if spec.is_baseline:
            return self._evaluate(loaded.model, loaded.tokenizer, spec, record), None
        record.seeds |= {"data": spec.data.seed, "train": spec.train.seed}
        with _timed(record, "mix"):
            examples = mix.build(spec.data, self.hub, loaded.tokenizer)
            record.rows = dict(Counter(example.source for example in examples))
        with base.adapted(loaded, spec.lora, spec.train.seed) as model:
            with _timed(record, "train"):
                record.training, record.losses = train.fit(model, loaded.tokenizer, examples, spec.train, spec.data.seed)
            adapter = self.ledger.folder(spec.key) / "partial" / "adapter"
            shutil.rmtree(adapter, ignore_errors=True)
            model.save_pretrained(str(adapter))
            documents = self._evaluate(model, loaded.tokenizer, spec, record)
        return documents, adapter

    def _load(self, wanted: Base) -> base.LoadedBase:
        if self._base is None or self._base[0] != wanted:
            self._base = None  # frees the old base before the new one is loaded
            self._base = (wanted, base.load(wanted, self.hub))
        return self._base[1]

    def _evaluate(self, model: Any, tokenizer: Any, spec: TrialSpec, record: TrialRecord) -> pd.DataFrame:
        frames = []
        for role, evaluation in spec.eval.items():
            with _timed(record, f"evaluate.{role}"):
                record.scores[role], record.details[role], documents = evaluate.evaluate(
                    model, tokenizer, role, evaluation, self.tasks
                )
                frames.append(documents)
        return pd.concat(frames, ignore_index=True)


@contextmanager
def _timed(record: TrialRecord, phase: str) -> Iterator[None]:
    began = time.perf_counter()
    try:
        yield
    finally:
        record.seconds[phase] = round(time.perf_counter() - began, 3)


def check(spec: TrialSpec, hub: Hub, tasks: evaluate.Tasks) -> None:
    """Raises InputError when the model, a source or a task cannot be had, or when a source is also evaluated on."""
    base.check(spec.base, hub)
    for role, evaluation in spec.eval.items():
        evaluate.check(role, evaluation, tasks)
    if spec.is_baseline:
        return
    for name, share in spec.data.mix.items():
        if share == 0:
            continue
        source = find_source(spec.data, name)
        for role, evaluation in spec.eval.items():
            if task := evaluate.same_split(evaluation, source.dataset, source.config, source.split, tasks):
                raise InputError(
                    f"data.mix: source {name!r} is {source.dataset}/{source.split}, the very split that task {task} "
                    f"(eval.{role}) is scored on; train on another split"
                )
        needed, rows = mix.order_of_sources(spec.data.mix, spec.data.samples).count(name), hub.rows(name, source)
        if needed > len(rows):
            raise InputError(
                f"data.samples: {spec.data.samples} with a share of {share:g} needs {needed} rows of {name!r}; "
                f"it has {len(rows)}"
            )
