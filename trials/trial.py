"""Runs trials in this process: mix -> train -> evaluate -> record. Base and tasks stay loaded from one trial to the next.

While a trial runs, `partial/` in its folder holds what it has done so far, and an attempt that finds it goes on from there.
"""

import hashlib
import platform
import time
import traceback
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

import pandas as pd
import torch

from trials import base, environment, evaluate, memory, mix, revision, train
from trials.checkpoint import Origin, Partial, serialized
from trials.errors import InputError, StorageFailed, disk_failure, storage_failed, writing
from trials.hub import Hub, find_source
from trials.lease import Lease
from trials.record import Failure, Halving, Ledger, TrialRecord
from trials.spec import Base, TrialSpec


class HeldElsewhere(Exception):
    """Another process runs this trial; its record will be in the ledger."""


class Worker:
    """Runs one trial after the other on this process's device."""

    pace = train.Pace()

    def __init__(self, ledger: Ledger, hub: Hub):
        self.ledger = ledger
        self.hub = hub
        self.tasks = evaluate.Tasks(hub)
        self._base: tuple[Base, base.LoadedBase] | None = None

    def run(self, spec: TrialSpec) -> TrialRecord:
        """The spec's record: the ledger's if it is complete there, else a new one, written to the ledger.

        A trial that fails becomes a failed record with its traceback. Raises HeldElsewhere where another process runs it, and
        StorageFailed where nothing can be written; the trial is then unfinished, not failed.
        """
        if done := self.ledger.complete(spec.key):
            return done
        with writing(self.ledger.folder(spec.key)):
            lease = self.ledger.lease(spec.key)
        if lease is None:
            raise HeldElsewhere(f"{spec.key}: another process runs this trial")
        try:
            return self.ledger.complete(spec.key) or self._run_alone(spec, lease)
        finally:
            lease.release()

    def _run_alone(self, spec: TrialSpec, lease: Lease) -> TrialRecord:
        record = TrialRecord(key=spec.key, state="complete", spec=spec)
        partial = Partial(self.ledger.folder(spec.key) / "partial")
        documents = adapter = None
        try:
            documents, adapter = self._run(spec, record, partial)
        except StorageFailed:
            raise
        except Exception as error:
            if reason := disk_failure(error):  # another disk than the storage's: a cache, a temporary folder
                raise storage_failed(getattr(error, "filename", None) or "a disk of this machine", reason) from error
            self._base = None  # whatever state it is in, the next trial does not inherit it
            record.state = "failed"
            record.failure = Failure(kind=type(error).__name__, message=str(error), traceback=traceback.format_exc())
        if record.failure:
            memory.release()
        record.versions = environment.versions()
        record.git = revision.git_revision()
        record.hardware = environment.hardware()
        record.host = platform.node()
        record.peak_memory = environment.peak_memory()
        record.set_aside += partial.set_aside
        record.finished = datetime.now(UTC).isoformat(timespec="seconds")
        if lease.lost:
            raise HeldElsewhere(f"{spec.key}: this process was taken for dead, and another runs the trial now")
        with writing(self.ledger.folder(spec.key)):
            self.ledger.write(record, documents, adapter)
            if record.failure is None or record.failure.kind == train.NonFiniteLoss.__name__:  # going on ends there again
                partial.remove()
        return record

    def _run(self, spec: TrialSpec, record: TrialRecord, partial: Partial) -> tuple[pd.DataFrame, Any]:
        if torch.cuda.is_available():
            torch.cuda.reset_peak_memory_stats()
        with _timed(record, "load"):
            loaded = self._load(spec.base)
            record.base_checksum = loaded.checksum
        record.seeds = {f"eval.{role}": evaluation.seed for role, evaluation in spec.eval.items()}
        origin = {
            "key": spec.key,
            "base": loaded.checksum,
            "versions": environment.versions(),
            "device": base.device().type,
        }
        if spec.is_baseline:
            return self._evaluate(loaded.model, loaded.tokenizer, record, partial, origin), None
        record.seeds |= {"data": spec.data.seed, "train": spec.train.seed}
        with _timed(record, "mix"):
            examples = mix.build(spec.data, self.hub, loaded.tokenizer)
            record.rows = dict(Counter(example.source for example in examples))
        rows = train.epochs(examples, spec.train, spec.data.seed)
        with base.adapted(loaded, spec.lora, spec.train.seed) as model:
            end = self._train(model, loaded.tokenizer.pad_token_id, rows, record, partial, origin)
            with writing(partial.folder):
                adapter = partial.save_adapter(model)
            origin["weights"] = hashlib.sha256(serialized(end.weights)).hexdigest()
            documents = self._evaluate(model, loaded.tokenizer, record, partial, origin)
        return documents, adapter

    def _load(self, wanted: Base) -> base.LoadedBase:
        if self._base is None or self._base[0] != wanted:
            self._base = None  # frees the old base before the new one is loaded
            self._base = (wanted, base.load(wanted, self.hub))
        return self._base[1]

    def _train(
        self, model: Any, pad_id: int, rows: Sequence[mix.Example], record: TrialRecord, partial: Partial, origin: Origin
    ) -> train.State:
        settings = record.spec.train
        progress = _Progress(record, partial, {**origin, "rows": train.digest(rows)})
        beginning = train.beginning(model, settings)

        def attempt(micro_batch_size: int) -> train.State:
            start = replace(progress.newest() or beginning, micro_batch_size=micro_batch_size)
            return train.fit(model, pad_id, rows, settings, start, progress.save, self.pace)

        with _timed(record, "train"):
            start = progress.resume() or beginning
            end = memory.within(
                "train",
                start.micro_batch_size,
                attempt,
                lambda micro_batch_size: train.smaller(micro_batch_size, settings.batch_size),
                record.out_of_memory,
            )
            progress.save(end)
        record.seconds["train"] = round(record.seconds["train"] + start.seconds, 3)
        record.losses = end.losses
        record.training = train.summary(rows, end)
        return end

    def _evaluate(self, model: Any, tokenizer: Any, record: TrialRecord, partial: Partial, origin: Origin) -> pd.DataFrame:
        frames = []
        for role in record.spec.eval:
            documents = self._role(model, tokenizer, role, record, partial, origin)
            record.scores[role], record.details[role] = evaluate.scores(documents)
            frames.append(documents)
        return pd.concat(frames, ignore_index=True)

    def _role(
        self, model: Any, tokenizer: Any, role: str, record: TrialRecord, partial: Partial, origin: Origin
    ) -> pd.DataFrame:
        """The role's documents: an earlier attempt's, or evaluated here."""
        phase, evaluation = f"evaluate.{role}", record.spec.eval[role]
        with writing(partial.folder):
            kept = partial.load_documents(origin, role)
        if kept is not None:
            state, documents = kept
            record.seconds[phase] = state["seconds"]
            record.out_of_memory += [Halving.model_validate(one) for one in state["out_of_memory"]]
            return documents
        halvings: list[Halving] = []
        with _timed(record, phase):
            documents = memory.within(
                phase,
                evaluation.batch_size,
                lambda rows: evaluate.evaluate(model, tokenizer, role, evaluation, self.tasks, rows),
                lambda rows: rows // 2,
                halvings,
            )
        record.out_of_memory += halvings
        state = {"seconds": record.seconds[phase], "out_of_memory": [one.model_dump() for one in halvings]}
        with writing(partial.folder):
            partial.save_documents(origin, role, state, documents)
        return documents


class _Progress:
    """A training's states in `partial/`, with what the record is to tell of the attempts that made them."""

    def __init__(self, record: TrialRecord, partial: Partial, origin: Origin):
        self.record, self.partial, self.origin = record, partial, origin

    def save(self, state: train.State) -> None:
        told = {
            "out_of_memory": [one.model_dump() for one in self.record.out_of_memory],
            "resumed": self.record.resumed,
            "set_aside": self.record.set_aside + self.partial.set_aside,
        }
        values, tensors = state.packed()
        with writing(self.partial.folder):
            self.partial.save(self.origin, {"training": values, "told": told}, tensors)

    def newest(self) -> train.State | None:
        with writing(self.partial.folder):
            saved = self.partial.load(self.origin)
        return train.State.unpacked(saved.state["training"], saved.tensors) if saved else None

    def resume(self) -> train.State | None:
        """The newest state that an earlier attempt left; the record tells what it told."""
        with writing(self.partial.folder):
            saved = self.partial.load(self.origin)
        if saved is None:
            return None
        state, told = train.State.unpacked(saved.state["training"], saved.tensors), saved.state["told"]
        self.record.out_of_memory = [Halving.model_validate(one) for one in told["out_of_memory"]]
        self.record.resumed = [*told["resumed"], state.step]
        self.record.set_aside = told["set_aside"]
        return state


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
    base.check_template(spec.base, spec.data, hub)
    for name, share in spec.data.shares.items():
        source = find_source(spec.data, name)
        for role, evaluation in spec.eval.items():
            if task := evaluate.same_split(evaluation, source.dataset, source.config, source.split, tasks):
                raise InputError(
                    f"data.mix: source {name!r} is {source.dataset}/{source.split}, the very split that task {task} "
                    f"(eval.{role}) is scored on; train on another split"
                )
        needed, rows = mix.order_of_sources(spec.data.shares, spec.data.rows).count(name), hub.rows(name, source)
        if needed > len(rows):
            raise InputError(
                f"data.samples: {spec.data.samples} with a share of {share:g} needs {needed} rows of {name!r}; "
                f"it has {len(rows)}"
            )
