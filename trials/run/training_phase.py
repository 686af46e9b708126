"""The phases from a spec to a trained adapter: prepare, mix rows, train or derive, measure drift."""

import copy
import functools
import shutil
import tempfile
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

from pydantic import BaseModel

from trials import mix
from trials.adapters import derived, init, peft_adapter
from trials.data import decontamination
from trials.drift import heldout as drift
from trials.drift import kl
from trials.errors import InputError, writing
from trials.hub import identity
from trials.hub.hub import SELF
from trials.ledger import storage
from trials.ledger.checkpoint import CheckpointStore, Saved
from trials.ledger.record import Halving, TrialRecord
from trials.mix import Example
from trials.models import base, layout, meta_model
from trials.models.base import LoadedBase
from trials.run import provenance, self_samples
from trials.run.attempt import Attempt
from trials.run.session import Session
from trials.training import packing, trainer, unsloth


class TrainingRows(NamedTuple):
    rows: list[Example]
    """The rows of all epochs, in training order."""
    heldout: Sequence[Example]
    begins_at: Sequence[Example]
    """Rows for those lora.init that initialise the adapter from data."""


class JointTraining(NamedTuple):
    """The result of a training together with other trials."""

    rows: TrainingRows
    end: trainer.State | None
    """None where the trial has to be trained alone after all."""


def prepare(session: Session, attempt: Attempt) -> LoadedBase:
    """Loads the base and binds the checkpoints to it."""
    spec, record = attempt.spec, attempt.record
    if attempt.checkpoints.origin:  # prepared by a joint training
        return session.base(spec.base)
    identity.check(spec, session.hub)
    with attempt.phase("load"):
        loaded = session.base(spec.base)
        record.base_checksum = loaded.checksum
        record.notes = layout.notes(spec, meta_model.layout(loaded.model))
    record.seeds = {f"eval.{role}": evaluation.seed for role, evaluation in spec.eval.items()}
    if not spec.is_baseline:
        record.seeds |= {"data": spec.data.seed, "train": spec.train.seed}
    attempt.checkpoints = attempt.checkpoints.bound(
        key=spec.key, base=loaded.checksum, versions=provenance.versions(), device=base.device().type
    )
    return loaded


def mix_rows(session: Session, attempt: Attempt) -> TrainingRows:
    """Mixes and decontaminates the rows, and records their numbers by source."""
    spec, record, loaded = attempt.spec, attempt.record, session.base(attempt.spec.base)
    own = functools.partial(self_samples.samples, loaded, spec.base, session.ledger)

    def build() -> tuple[mix.Mixture, dict[str, dict[str, int]]]:
        documents = decontamination.documents(session.tasks, spec.eval.values())
        screen = decontamination.Screen(documents, spec.data.max_overlap)
        return mix.mixture(spec.data, session.hub, loaded.tokenizer, screen, own), screen.seen

    with attempt.phase("mix"):
        tasks = frozenset(name for evaluation in spec.eval.values() for name in evaluation.tasks)
        mixed, seen = session.once("rows", (session.data_identity(spec), tasks), build)
        examples = mixed.rows
        # a copy, because the cached mixture serves the next trial too
        record.overlap = copy.deepcopy(seen)
        _count(record, mixed.drawn)
        loaded.check_ids(examples)  # a GPU only reports a failed assertion for an id beyond the embeddings
        heldout = kl.sample(session.heldout(spec), trainer.KL_ROWS)
        record.rows = dict(Counter(example.source for example in examples))
    begins_at: Sequence[Example] = examples
    if spec.lora.init == "corda":  # it preserves the directions that matter for these rows: text sampled from the base
        begins_at = [Example(SELF, ids, ids) for ids, _ in own(init.ROWS)]
    return TrainingRows(trainer.epochs(examples, spec.train, spec.data.seed), heldout, begins_at)


def _count(record: TrialRecord, drawn: Mapping[str, mix.Drawn]) -> None:
    """Records the counts of the sources' rows that are not zero."""
    for name, counts in copy.deepcopy(dict(drawn)).items():
        if counts.left_out:
            record.left_out[name] = dict(counts.left_out)
        if counts.places:
            record.unused[name] = counts.places
        if counts.unusual:
            record.unusual[name] = counts.unusual
        for field in ("cut", "cut_tokens", "duplicates"):
            if number := getattr(counts, field):
                getattr(record, field)[name] = number
        if counts.format:
            record.formats[name] = counts.format


def train(session: Session, attempt: Attempt, joint: JointTraining | None = None) -> list[Path]:
    """Trains an adapter, unless a joint training has; returns its folder, then those of its copies (see Attempt.keep)."""
    spec, loaded = attempt.spec, session.base(attempt.spec.base)
    rows = joint.rows if joint else mix_rows(session, attempt)
    with peft_adapter.adapted(loaded, spec.lora, spec.train.seed, rows.begins_at) as model:
        if joint and joint.end:
            trainer.put_weights(joint.end, model)
            end = joint.end
        else:
            end = _fit(session, attempt, rows, model)
        attempt.record.losses, attempt.record.kl = end.losses, end.kl
        attempt.record.training = trainer.summary(rows.rows, end, spec.train)
        whole = attempt.checkpoints.save_adapter(functools.partial(peft_adapter.save, model))
    kept = [attempt.checkpoints.local / f"adapter-{wanted}" for wanted in attempt.keep]
    return [whole, *(folder for folder in kept if folder.is_dir())]


def derive(session: Session, attempt: Attempt, parent: TrialRecord) -> Path:
    """Derives the adapter from its parent's; returns its folder."""
    spec, record, loaded = attempt.spec, attempt.record, session.base(attempt.spec.base)
    record.parent = parent.key
    name = "adapter" if spec.derive.samples is None else f"adapter-{spec.derive.samples}"
    with tempfile.TemporaryDirectory(prefix="slimsweep-") as folder:
        source, there = Path(folder), session.ledger.folder(parent.key) / name
        if not _downloaded(there, source):
            if spec.derive.samples is None:
                raise InputError(f"{there} is gone; move its record.json away, and it is trained again")
            # the parent was trained without a copy at this number of rows, so train again up to it
            again = replace(attempt, keep=(), until=spec.derive.samples)
            shutil.copytree(train(session, again)[0], source, dirs_exist_ok=True)
        record.rows = dict(Counter(mix.order_of_rows(spec.data)[: spec.derive.samples]))
        with peft_adapter.borrowed(loaded, source) as model:
            if spec.derive.rank is not None:
                derived.truncate(model, spec.derive.rank)
            derived.strengthen(model, spec.derive.strength, spec.derive.shallow)
            if spec.derive.off is not None:
                derived.switch_off(model, spec.derive.off)
            return attempt.checkpoints.save_adapter(functools.partial(peft_adapter.save, model))


def measure_drift(session: Session, attempt: Attempt, model: Any) -> None:
    """Records the distance of the model from its base on held-out rows."""
    spec, record = attempt.spec, attempt.record
    with attempt.phase("drift"):
        heldout = session.heldout(spec)
        pad_id, rows = session.base(spec.base).tokenizer.pad_token_id, spec.train.micro_batch_size
        count, report = sum(map(len, heldout.values())), attempt.reporter.rows
        measure = functools.partial(drift.measure, model, pad_id, heldout, report=lambda done: report(done, count))
        record.learning, record.similarity = attempt.with_oom_backoff("drift", rows, measure)


class Progress:
    """A training's checkpoints, with the record fields of the attempts that wrote them."""

    def __init__(self, record: TrialRecord, checkpoints: CheckpointStore):
        self.record, self.checkpoints = record, checkpoints

    @classmethod
    def of(cls, attempt: Attempt, rows: TrainingRows) -> "Progress":
        return cls(attempt.record, attempt.checkpoints.bound(rows=trainer.digest(rows.rows)))

    def save(self, state: trainer.State) -> None:
        values, tensors = state.packed()
        reported = {
            "out_of_memory": [one.model_dump() for one in self.record.out_of_memory],
            "resumed": self.record.resumed,
            "set_aside": self.record.set_aside + self.checkpoints.set_aside,
        }
        self.checkpoints.save({"training": values, "told": reported}, tensors)

    def newest(self) -> trainer.State | None:
        return self.checkpoints.load(_state)

    def resume(self) -> trainer.State | None:
        """The newest state of an earlier attempt; its record fields are added to the record."""
        found = self.checkpoints.load(lambda saved: (_state(saved), _Reported.model_validate(saved.state["told"])))
        if found is None:
            return None
        state, reported = found
        self.record.out_of_memory, self.record.set_aside = reported.out_of_memory, reported.set_aside
        self.record.resumed = [*reported.resumed, state.step]
        return state


class _Reported(BaseModel):
    """The record fields of earlier attempts in a checkpoint."""

    out_of_memory: list[Halving]
    resumed: list[int]
    set_aside: list[str]


def _state(saved: Saved) -> trainer.State:
    return trainer.State.unpacked(saved.state["training"], saved.tensors)


def _fit(session: Session, attempt: Attempt, rows: TrainingRows, model: Any) -> trainer.State:
    """Trains from the newest checkpoint to the end."""
    spec, settings, progress = attempt.spec, attempt.spec.train, Progress.of(attempt, rows)
    names = {wanted // settings.batch_size: f"adapter-{wanted}" for wanted in attempt.keep}

    def reached(step: int, loss: float) -> None:
        attempt.reporter.step(step, loss)
        if step in names:
            attempt.checkpoints.save_adapter(functools.partial(peft_adapter.save, model), names[step])

    inputs = trainer.TrainingInputs(
        model=model,
        pad_id=session.base(spec.base).tokenizer.pad_token_id,
        rows=rows.rows,
        settings=settings,
        save=progress.save,
        pace=session.pace,
        heldout=rows.heldout,
        reached=reached,
        until=attempt.until and attempt.until // settings.batch_size,
    )
    beginning, tokens = trainer.beginning(model, settings), trainer.tokens(rows.rows, settings.batch_size)

    def fit(micro_batch_size: int) -> trainer.State:
        start = replace(progress.newest() or beginning, micro_batch_size=micro_batch_size)
        attempt.reporter.training(tokens, start.step)
        if settings.backend == "unsloth":
            return unsloth.fit(inputs, start, spec.base, session.hub.locate(spec.base.model))
        return trainer.fit(inputs, start)

    with attempt.phase("train"):
        start = progress.resume()
        if start is None:
            start = beginning = replace(beginning, packed_rows=_packs(attempt, inputs))
        smaller = functools.partial(trainer.smaller, batch_size=settings.batch_size)
        end = attempt.with_oom_backoff("train", start.micro_batch_size, fit, smaller)
        if inputs.until is None or end.step < inputs.until:  # else it goes on from the state that was saved at the cut
            progress.save(end)
    # with the seconds of earlier attempts, which the checkpoint carries
    attempt.record.seconds["train"] = round(attempt.record.seconds["train"] + start.seconds, 3)
    return end


def _packs(attempt: Attempt, inputs: trainer.TrainingInputs) -> bool:
    """Whether rows can be packed; records why they cannot."""
    if inputs.settings.backend != "transformers":
        return False
    reason = packing.obstacle(inputs.model, inputs.settings, inputs.rows)
    if reason:
        attempt.record.notes.append(f"training rows are padded, not packed: {reason}")
    return reason is None


def _downloaded(there: Path, folder: Path) -> bool:
    with writing(there):
        try:
            storage.download(there, folder)
        except FileNotFoundError:
            return False
    return True
