"""Runs trials in this process: mix -> train -> evaluate -> record. Base and tasks stay loaded from one trial to the next.

While a trial runs, `partial/` in its folder holds what it has done so far, and an attempt that finds it goes on from there.
"""

import copy
import functools
import platform
import shutil
import tempfile
import time
import traceback
from collections import Counter
from collections.abc import Callable, Collection, Hashable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, NamedTuple

import pandas as pd
from pydantic import BaseModel

from trials.adapters import init, lora
from trials.data import decontamination
from trials.data import mixture as mix
from trials.drift import cka, kl
from trials.errors import InputError, StorageFailed, disk_failure, storage_failed, writing
from trials.evaluation import aggregate, evaluate, racing
from trials.evaluation.racing import GivenUp, Race
from trials.hub import identity
from trials.hub.hub import SELF, Hub
from trials.ledger import storage
from trials.ledger.checkpoint import Origin, Partial, Saved
from trials.ledger.lease import Lease
from trials.ledger.outcomes import STAGES
from trials.ledger.record import Failure, Halving, Ledger, TrialRecord
from trials.models import base, layout, meta_model, oom
from trials.printable import without_passwords
from trials.run import provenance, revision, self_samples
from trials.spec import Base, TrialSpec
from trials.tasks.tasks import Tasks
from trials.training import multi_adapter, trainer, unsloth


class HeldElsewhere(Exception):
    """Another process runs this trial; its record will be in the ledger."""


class _ParentFailed(Exception):
    """There is no adapter to derive from; `failure` is the parent's."""

    def __init__(self, parent: TrialRecord):
        assert parent.failure is not None
        super().__init__(parent.failure.message)
        message = f"its training, {parent.key}, failed: {parent.failure.message}"
        self.failure = parent.failure.model_copy(update={"message": message})


class _Mixed(NamedTuple):
    """What a trial is trained on."""

    rows: list[mix.Example]
    """Of all epochs."""
    heldout: Sequence[mix.Example]
    begins_at: Sequence[mix.Example]
    """What some of lora.init look at."""


@dataclass
class _Joint:
    """A trial on its way through a training with others."""

    lease: Lease
    record: TrialRecord
    partial: Partial
    origin: Origin | None = None
    mixed: _Mixed | None = None
    progress: "_Progress | None" = None
    beginning: trainer.State | None = None
    end: trainer.State | None = None
    """None where there was no training together after all: it is then trained alone."""
    error: Exception | None = None
    """What ended it."""

    def begin(self) -> trainer.State:
        """The newest state, with the weights in the model's order."""
        assert self.progress is not None
        assert self.beginning is not None
        state = self.progress.newest() or self.beginning
        return replace(state, weights={name: state.weights[name] for name in self.beginning.weights})


class Worker:
    """Runs one trial after the other on this process's device; the trainings of some of them together."""

    pace = trainer.Pace()

    def __init__(self, ledger: Ledger, hub: Hub):
        self.ledger = ledger
        self.hub = hub
        self.tasks = Tasks(hub)
        self._base: tuple[Base, base.LoadedBase] | None = None
        self._kept: dict[str, tuple[Hashable, Any]] = {}
        self.race: Callable[[TrialSpec], Race | None] = lambda spec: None
        """Who judges a trial while it is evaluated: it may end with GivenUp."""

    def run(self, spec: TrialSpec, keep: Collection[int] = ()) -> TrialRecord:
        """The spec's record: the ledger's if it is complete there, else a new one, written to the ledger.

        A derived point's parent is run first where it has no record. `keep` are numbers of rows after which a copy of the
        adapter is kept, for points that will be derived; they change nothing else.

        A trial that fails becomes a failed record with its traceback. Raises HeldElsewhere where another process runs it,
        GivenUp where `race` wants no more of it, and StorageFailed where nothing can be written; it is unfinished then.
        """
        if done := self.ledger.complete(spec.key):
            return done
        with writing(self.ledger.folder(spec.key)):
            lease = self.ledger.lease(spec.key)
        if lease is None:
            raise HeldElsewhere(f"{spec.key}: another process runs this trial")
        try:
            return self.ledger.complete(spec.key) or self._run_alone(spec, lease, keep)
        finally:
            lease.release()

    def run_together(self, specs: Sequence[TrialSpec], keep: Mapping[str, Collection[int]] | None = None) -> "list[Ended]":
        """The specs' records in their order, as `run` gives them, or its GivenUp; None of one that another process runs.

        Those that several.stackable puts together are trained in one pass; `keep`, by key, is as in `run`, and what has some is
        trained alone. One that fails ends no other.
        """
        keep = keep or {}
        groups: dict[str, dict[str, TrialSpec]] = {}
        for spec in specs:
            shared = multi_adapter.stackable(spec) if not keep.get(spec.key) else None
            if shared is not None:
                groups.setdefault(shared, {})[spec.key] = spec
        stacked = {key for group in groups.values() if len(group) > 1 for key in group}
        records: dict[str, Ended] = {}
        for spec in [spec for spec in specs if spec.key not in stacked]:  # baselines first: without them nothing is judged
            records[spec.key] = self._run_or_leave(spec, keep.get(spec.key, ()))
        for group in groups.values():
            records |= self._run_stacked(group.values())
        for spec in specs:
            if spec.key not in records:
                records[spec.key] = self._run_or_leave(spec)
        return [records[spec.key] for spec in specs]

    def _run_or_leave(self, spec: TrialSpec, keep: Collection[int] = ()) -> "Ended":
        try:
            return self.run(spec, keep)
        except GivenUp as given_up:
            return given_up
        except HeldElsewhere:
            return None

    def _run_stacked(self, specs: Collection[TrialSpec]) -> "dict[str, Ended]":
        """What became, by key, of those that are neither done nor another's; none where that leaves fewer than two."""
        with ExitStack() as leases:
            joints = []
            for spec in specs:
                if self.ledger.complete(spec.key):
                    continue
                with writing(self.ledger.folder(spec.key)):
                    lease = self.ledger.lease(spec.key)
                if lease is not None:
                    leases.callback(lease.release)
                    if not self.ledger.complete(spec.key):
                        joints.append(_Joint(lease, *self._blank(spec)))
            if len(joints) < 2:
                return {}
            self._train_together(joints)
            records: dict[str, Ended] = {}
            for joint in joints:
                try:
                    records[joint.record.key] = self._run_alone(joint.record.spec, joint.lease, (), joint)
                except GivenUp as given_up:
                    records[joint.record.key] = given_up
                except HeldElsewhere:
                    continue  # `run` meets it again, when the others are done
                finally:
                    joint.lease.release()
            return records

    def _blank(self, spec: TrialSpec) -> tuple[TrialRecord, Partial]:
        record = TrialRecord(key=spec.key, state="complete", spec=spec)
        return record, Partial(self.ledger.folder(spec.key) / "partial")

    def _run_alone(self, spec: TrialSpec, lease: Lease, keep: Collection[int], joint: _Joint | None = None) -> TrialRecord:
        """The record of a trial that this process has the lease of; where it was trained in a `joint` training, of the rest."""
        record, partial = (joint.record, joint.partial) if joint else self._blank(spec)
        documents: pd.DataFrame | None = None
        adapters: list[Path] = []
        try:
            if joint and joint.error:
                raise joint.error
            documents, adapters = self._run(spec, record, partial, keep, joint)
        except GivenUp:
            partial.leave()
            raise
        except (StorageFailed, HeldElsewhere):
            raise
        except Exception as error:
            if reason := disk_failure(error):  # another disk than the storage's: a cache, a temporary folder
                raise storage_failed(getattr(error, "filename", None) or "a disk of this machine", reason) from error
            self._base = None  # whatever state it is in, the next trial does not inherit it
            record.state = "failed"
            message, trace = without_passwords(str(error)), without_passwords(traceback.format_exc())
            record.failure = Failure(kind=type(error).__name__, message=message, traceback=trace)
            if isinstance(error, _ParentFailed):
                record.failure = error.failure
        if record.failure:
            oom.release()
        record.versions = provenance.versions()
        record.git = revision.git_revision()
        record.hardware = provenance.hardware()
        record.host = platform.node()
        for peak in record.memory.values():
            record.peak_memory = {where: max(size, record.peak_memory.get(where, 0)) for where, size in peak.items()}
        record.set_aside += partial.set_aside
        record.finished = datetime.now(UTC).isoformat(timespec="seconds")
        if lease.lost:
            raise HeldElsewhere(f"{spec.key}: this process was taken for dead, and another runs the trial now")
        with writing(self.ledger.folder(spec.key)):
            self.ledger.write(record, documents, adapters)
            if record.failure is None or record.failure.kind == trainer.NonFiniteLoss.__name__:  # going on ends there again
                partial.remove()
        return record

    def _run(
        self, spec: TrialSpec, record: TrialRecord, partial: Partial, keep: Collection[int], joint: _Joint | None = None
    ) -> tuple[pd.DataFrame, list[Path]]:
        """The outcomes, and the local folders with the adapters."""
        if spec.train.backend == "unsloth" and not spec.is_baseline:
            unsloth.check_settings(spec)
            unsloth.check_machine()
        parent = self._parent(spec, keep) if spec.parent is not None else None
        if joint is not None and joint.origin is not None:
            loaded, origin = self._load(spec.base), joint.origin
        else:
            loaded, origin = self._begun(record)
        if spec.is_baseline:
            return self._evaluate(loaded.model, loaded.tokenizer, record, partial, origin), []
        if parent is None:
            adapters = self._trained(loaded, record, partial, origin, keep, joint=joint)
        else:
            record.parent = parent.key
            record.rows = dict(Counter(mix.order_of_rows(spec.data)[: spec.derive.samples]))
            adapters = [self._derived(loaded, record, partial, origin)]
        with lora.borrowed(loaded, adapters[0]) as model:
            origin = {**origin, "weights": lora.checksum(adapters[0])}
            with _timed(record, "drift"):
                heldout = self._heldout(loaded, spec)
                rows = spec.train.micro_batch_size
                measure = functools.partial(kl.measure, model, loaded.tokenizer.pad_token_id, heldout)
                record.learning = oom.within("drift", rows, measure, lambda rows: rows // 2, record.out_of_memory)
                alike = functools.partial(cka.measure, model, loaded.tokenizer.pad_token_id, heldout)
                record.similarity = oom.within("drift", rows, alike, lambda rows: rows // 2, record.out_of_memory)
            with lora.merged(model) as whole:
                documents = self._evaluate(whole, loaded.tokenizer, record, partial, origin)
        return documents, adapters

    def _begun(self, record: TrialRecord) -> tuple[base.LoadedBase, Origin]:
        """The base of the record's spec, and what a state of this trial must have come from."""
        spec = record.spec
        identity.check(spec, self.hub)
        with _timed(record, "load"):
            loaded = self._load(spec.base)
            record.base_checksum = loaded.checksum
            record.notes = layout.notes(spec, meta_model.layout(loaded.model))
        record.seeds = {f"eval.{role}": evaluation.seed for role, evaluation in spec.eval.items()}
        if not spec.is_baseline:
            record.seeds |= {"data": spec.data.seed, "train": spec.train.seed}
        return loaded, {
            "key": spec.key,
            "base": loaded.checksum,
            "versions": provenance.versions(),
            "device": base.device().type,
        }

    def _mixed(self, loaded: base.LoadedBase, record: TrialRecord) -> _Mixed:
        spec = record.spec
        own = functools.partial(self_samples.samples, loaded, spec.base, self.ledger)

        def build() -> tuple[mix.Mixture, dict[str, dict[str, int]]]:
            screen = decontamination.Screen(decontamination.documents(self.tasks, spec.eval.values()), spec.data.max_overlap)
            return mix.mixture(spec.data, self.hub, loaded.tokenizer, screen, own), screen.seen

        with _timed(record, "mix"):
            tasks = frozenset(name for evaluation in spec.eval.values() for name in evaluation.tasks)
            mixture, seen = self._once("rows", (self._of_data(spec), tasks), build)
            examples = mixture.rows
            record.overlap, record.left_out, record.cut = copy.deepcopy((seen, mixture.left_out, mixture.cut))
            loaded.check_ids(examples)
            heldout = kl.sample(self._heldout(loaded, spec), trainer.LOOKED_AT)
            record.rows = dict(Counter(example.source for example in examples))
        begins_at: Sequence[mix.Example] = examples
        if spec.lora.init == "corda":  # it leaves alone what matters to these rows: what the base says by itself
            begins_at = [mix.Example(SELF, ids, ids) for ids, _ in own(init.ROWS)]
        return _Mixed(trainer.epochs(examples, spec.train, spec.data.seed), heldout, begins_at)

    def _heldout(self, loaded: base.LoadedBase, spec: TrialSpec) -> dict[str, list[mix.Example]]:
        return self._once("held out", self._of_data(spec), lambda: mix.heldout(spec.data, self.hub, loaded.tokenizer))

    def _of_data(self, spec: TrialSpec) -> Hashable:
        """Equal for trials with the same rows as the same tokens."""
        return spec.base.model_dump_json(), spec.data.model_dump_json(), mix.state(spec.data, self.hub)

    def _once(self, what: str, asked: Hashable, make: Callable[[], Any]) -> Any:
        """What the last trial made, where this one asks for the same: a sweep's trials often share their rows."""
        if what not in self._kept or self._kept[what][0] != asked:
            self._kept.pop(what, None)  # before the new one is made: it may be large
            self._kept[what] = (asked, make())
        return self._kept[what][1]

    def _train_together(self, joints: Sequence[_Joint]) -> None:
        """Gives every trial its `end` or its `error`; neither to one that is to be trained alone."""
        for joint in joints:
            try:
                self._make_ready(joint)
            except StorageFailed:
                raise
            except Exception as error:
                joint.error = error
        ready = [joint for joint in joints if joint.error is None]
        sizes = [joint.begin().micro_batch_size for joint in ready]  # one that an earlier attempt had to halve differs
        for wanted in sorted(set(sizes)):
            self._pass([joint for joint, size in zip(ready, sizes, strict=True) if size == wanted])

    def _make_ready(self, joint: _Joint) -> None:
        spec, (loaded, origin) = joint.record.spec, self._begun(joint.record)
        joint.origin, joint.mixed = origin, self._mixed(loaded, joint.record)
        joint.progress = _Progress(joint.record, joint.partial, {**origin, "rows": trainer.digest(joint.mixed.rows)})
        with lora.adapted(loaded, spec.lora, spec.train.seed, joint.mixed.begins_at) as model:
            joint.beginning = trainer.beginning(model, spec.train)
        joint.progress.resume()

    def _pass(self, joints: Sequence[_Joint]) -> None:
        """Trains them together. Where the memory does not suffice, half as many; one that is left over is trained alone."""
        if len(joints) < 2:
            return
        provenance.reset_peak_memory()
        try:
            trainings = self._fit_together(joints)
        except multi_adapter.Unstackable:
            return
        except StorageFailed:
            raise
        except Exception as error:
            if not oom.is_out_of_memory(error):
                for joint in joints:
                    joint.error = error
                return
        else:
            for joint, training in zip(joints, trainings, strict=True):
                joint.end, joint.error = training.end, training.failure
                joint.record.together = len(joints)
                joint.record.seconds["train"] = round(training.seconds, 3)
                joint.record.memory["train"] = provenance.peak_memory()
            return
        oom.release()  # the error is gone here, and with it the frames that held the tensors
        half = (len(joints) + 1) // 2
        self._pass(joints[:half])
        self._pass(joints[half:])

    def _fit_together(self, joints: Sequence[_Joint]) -> list[multi_adapter.Training]:
        loaded = self._load(joints[0].record.spec.base)
        trainings = []
        for joint in joints:
            assert joint.mixed is not None
            assert joint.progress is not None
            spec, save = joint.record.spec, joint.progress.save
            trainings.append(
                multi_adapter.Training(spec.lora, spec.train, joint.mixed.rows, joint.begin(), save, loaded.model.device)
            )
        multi_adapter.fit(loaded.model, loaded.tokenizer.pad_token_id, trainings, self.pace)
        return trainings

    def _trained(
        self,
        loaded: base.LoadedBase,
        record: TrialRecord,
        partial: Partial,
        origin: Origin,
        keep: Collection[int],
        until: int | None = None,
        joint: _Joint | None = None,
    ) -> list[Path]:
        """Trains on the record's spec; the adapter's folder, then those of the adapter as it stood after `keep` rows each.

        With `until` training ends after so many rows, as if it had been cut off. A `joint` training that has ended is not
        repeated: the adapter is given its weights.
        """
        spec, pad_id = record.spec, loaded.tokenizer.pad_token_id
        mixed = (joint and joint.mixed) or self._mixed(loaded, record)
        steps = {wanted // spec.train.batch_size: f"adapter-{wanted}" for wanted in keep}
        with lora.adapted(loaded, spec.lora, spec.train.seed, mixed.begins_at) as model:
            save = functools.partial(lora.save, model)

            def reached(step: int) -> None:
                if step in steps:
                    with writing(partial.folder):
                        partial.save_adapter(save, steps[step])

            if joint and joint.end:
                trainer.put_weights(joint.end, model)
                _tell(record, mixed.rows, joint.end)
            else:
                last = until and until // spec.train.batch_size
                self._train(model, pad_id, mixed.rows, mixed.heldout, record, partial, origin, reached, last)
            with writing(partial.folder):
                whole = partial.save_adapter(save)
        kept = [partial.local / name for name in steps.values()]
        return [whole, *(folder for folder in kept if folder.is_dir())]

    def _parent(self, spec: TrialSpec, keep: Collection[int]) -> TrialRecord:
        """The record of the trial that this one is derived from, trained here where it is not there yet."""
        assert spec.parent is not None
        known = self.ledger.read(spec.parent.key)
        if known is not None and known.failure is not None and known.failure.kind == trainer.NonFiniteLoss.__name__:
            raise _ParentFailed(known)  # it would end there again
        record = self.run(spec.parent, {*keep, *([spec.derive.samples] if spec.derive.samples else [])})
        if record.failure is not None:
            raise _ParentFailed(record)
        return record

    def _derived(self, loaded: base.LoadedBase, record: TrialRecord, partial: Partial, origin: Origin) -> Path:
        """The folder of the adapter that the record's spec derives from its parent's."""
        derive = record.spec.derive
        name = "adapter" if derive.samples is None else f"adapter-{derive.samples}"
        with tempfile.TemporaryDirectory(prefix="slimsweep-") as folder:
            source, there = Path(folder), self.ledger.folder(record.parent or "") / name
            if not _fetched(there, source):
                if derive.samples is None:
                    raise InputError(f"{there} is gone; move its record.json away, and it is trained again")
                # the parent was trained when nobody asked for this one
                again = self._trained(loaded, record, partial, origin, (), derive.samples)
                shutil.copytree(again[0], source, dirs_exist_ok=True)
            with lora.borrowed(loaded, source) as model:
                if derive.rank is not None:
                    lora.truncate(model, derive.rank)
                lora.strengthen(model, derive.strength)
                if derive.off is not None:
                    lora.switch_off(model, derive.off)
                with writing(partial.folder):
                    return partial.save_adapter(functools.partial(lora.save, model))

    def _load(self, wanted: Base) -> base.LoadedBase:
        if self._base is None or self._base[0] != wanted:
            self._base = None  # frees the old base before the new one is loaded
            self._base = (wanted, base.load(wanted, self.hub))
        return self._base[1]

    def _train(
        self,
        model: Any,
        pad_id: int,
        rows: Sequence[mix.Example],
        heldout: Sequence[mix.Example],
        record: TrialRecord,
        partial: Partial,
        origin: Origin,
        reached: Callable[[int], None],
        until: int | None,
    ) -> None:
        settings = record.spec.train
        progress = _Progress(record, partial, {**origin, "rows": trainer.digest(rows)})
        beginning = trainer.beginning(model, settings)

        def attempt(micro_batch_size: int) -> trainer.State:
            start = replace(progress.newest() or beginning, micro_batch_size=micro_batch_size)
            if settings.backend == "unsloth":
                path = self.hub.locate(record.spec.base.model)
                return unsloth.fit(model, pad_id, rows, record.spec, path, start, progress.save, self.pace)
            return trainer.fit(model, pad_id, rows, settings, start, progress.save, self.pace, heldout, reached, until)

        with _timed(record, "train"):
            start = progress.resume() or beginning
            end = oom.within(
                "train",
                start.micro_batch_size,
                attempt,
                lambda micro_batch_size: trainer.smaller(micro_batch_size, settings.batch_size),
                record.out_of_memory,
            )
            progress.save(end)
        record.seconds["train"] = round(record.seconds["train"] + start.seconds, 3)
        _tell(record, rows, end)

    def _evaluate(self, model: Any, tokenizer: Any, record: TrialRecord, partial: Partial, origin: Origin) -> pd.DataFrame:
        frames = []
        if race := self.race(record.spec):
            self._race(model, tokenizer, record, partial, origin, race)
        for role in record.spec.eval:
            documents = self._role(model, tokenizer, role, record, partial, origin)
            record.scores[role], record.details[role] = aggregate.scores(documents)
            record.halves[role] = aggregate.halves(documents)
            frames.append(documents)
        together = pd.concat(frames, ignore_index=True)
        # texts are long and the same for all models: the baseline keeps them
        return together if record.spec.is_baseline else together.drop(columns=["question", "cluster"], errors="ignore")

    def _race(self, model: Any, tokenizer: Any, record: TrialRecord, partial: Partial, origin: Origin, race: Race) -> None:
        """Answers the documents in stages; raises GivenUp where the judge wants no more of the trial after one of them."""
        with writing(partial.folder):
            if any(partial.load_documents(origin, role) for role in race.roles):
                return  # an earlier attempt was beyond the stages
        asked, plans = {}, {}
        for role in race.roles:
            evaluation = record.spec.eval[role]
            built = self.tasks.build(evaluation)
            asked[role] = racing.documents(built, evaluate.asked(evaluation, built))
            plans[role] = racing.stages(asked[role], race.half)
        parts: dict[str, list[pd.DataFrame]] = {role: [] for role in race.roles}
        for number, share in enumerate(STAGES):
            for role, plan in plans.items():
                if plan[number]:
                    parts[role].append(
                        self._part(model, tokenizer, role, f"{role}@{number}", plan[number], record, partial, origin)
                    )
            outcomes = {role: racing.so_far(role, asked[role], some) for role, some in parts.items() if some}
            if reason := race.judge(record.model_copy(update={"outcomes": outcomes}), share):
                raise GivenUp(reason)

    def _role(
        self, model: Any, tokenizer: Any, role: str, record: TrialRecord, partial: Partial, origin: Origin
    ) -> pd.DataFrame:
        """The role's documents: an earlier attempt's, or evaluated here, less what stages of a race have answered."""
        evaluation = record.spec.eval[role]
        with writing(partial.folder):
            found = [partial.load_documents(origin, f"{role}@{number}") for number in range(len(STAGES))]
        parts = [one for one in found if one is not None]
        if not parts:  # as a rule: nobody races
            return self._part(model, tokenizer, role, role, None, record, partial, origin)
        frames, took = [frame for _, frame in parts], sum(state["seconds"] for state, _ in parts)
        for frame in frames:
            record.engine.setdefault(role, {}).update(frame.attrs.get("engine", {}))
        record.seconds.pop(f"evaluate.{role}", None)
        if rest := racing.without(evaluate.asked(evaluation, self.tasks.build(evaluation)), frames):
            frames.append(self._part(model, tokenizer, role, role, rest, record, partial, origin))
        record.seconds[f"evaluate.{role}"] = round(record.seconds.get(f"evaluate.{role}", 0.0) + took, 3)
        return racing.together(frames)

    def _part(
        self,
        model: Any,
        tokenizer: Any,
        role: str,
        name: str,
        samples: dict[str, list[int]] | None,
        record: TrialRecord,
        partial: Partial,
        origin: Origin,
    ) -> pd.DataFrame:
        """Documents of the role, kept under the name: an earlier attempt's, or evaluated here."""
        phase, evaluation = f"evaluate.{role}", record.spec.eval[role]
        with writing(partial.folder):
            kept = partial.load_documents(origin, name)
        if kept is not None:
            state, documents = kept
            record.seconds[phase] = state["seconds"]
            record.out_of_memory += [Halving.model_validate(one) for one in state["out_of_memory"]]
            record.engine.setdefault(role, {}).update(documents.attrs.get("engine", {}))
            return documents
        halvings: list[Halving] = []
        with _timed(record, phase):
            documents = oom.within(
                phase,
                evaluation.batch_size,
                lambda rows: evaluate.evaluate(model, tokenizer, role, evaluation, self.tasks, rows, samples),
                lambda rows: rows // 2,
                halvings,
            )
        record.out_of_memory += halvings
        record.engine.setdefault(role, {}).update(documents.attrs["engine"])
        state = {"seconds": record.seconds[phase], "out_of_memory": [one.model_dump() for one in halvings]}
        with writing(partial.folder):
            partial.save_documents(origin, name, state, documents)
        return documents


Ended = TrialRecord | GivenUp | None
"""What became of a trial; None: another process runs it."""


def _tell(record: TrialRecord, rows: Sequence[mix.Example], end: trainer.State) -> None:
    record.losses, record.kl = end.losses, end.kl
    record.training = trainer.summary(rows, end, record.spec.train)


def _fetched(there: Path, folder: Path) -> bool:
    with writing(there):
        try:
            storage.download(there, folder)
        except FileNotFoundError:
            return False
    return True


class _Progress:
    """A training's states in `partial/`, with what the record is to tell of the attempts that made them."""

    def __init__(self, record: TrialRecord, partial: Partial, origin: Origin):
        self.record, self.partial, self.origin = record, partial, origin

    def save(self, state: trainer.State) -> None:
        told = {
            "out_of_memory": [one.model_dump() for one in self.record.out_of_memory],
            "resumed": self.record.resumed,
            "set_aside": self.record.set_aside + self.partial.set_aside,
        }
        values, tensors = state.packed()
        with writing(self.partial.folder):
            self.partial.save(self.origin, {"training": values, "told": told}, tensors)

    def newest(self) -> trainer.State | None:
        with writing(self.partial.folder):
            return self.partial.load(self.origin, _state)

    def resume(self) -> trainer.State | None:
        """The newest state that an earlier attempt left; the record tells what it told."""
        with writing(self.partial.folder):
            found = self.partial.load(self.origin, lambda saved: (_state(saved), _Told.model_validate(saved.state["told"])))
        if found is None:
            return None
        state, told = found
        self.record.out_of_memory, self.record.set_aside = told.out_of_memory, told.set_aside
        self.record.resumed = [*told.resumed, state.step]
        return state


class _Told(BaseModel):
    """What the record is to tell of earlier attempts."""

    out_of_memory: list[Halving]
    resumed: list[int]
    set_aside: list[str]


def _state(saved: Saved) -> trainer.State:
    return trainer.State.unpacked(saved.state["training"], saved.tensors)


@contextmanager
def _timed(record: TrialRecord, phase: str) -> Iterator[None]:
    """Measures a phase: its seconds and its peak memory."""
    provenance.reset_peak_memory()
    began = time.perf_counter()
    try:
        yield
    finally:
        record.seconds[phase] = round(time.perf_counter() - began, 3)
        peak, before = provenance.peak_memory(), record.memory.get(phase, {})  # a race evaluates a role in parts
        record.memory[phase] = {where: max(size, before.get(where, 0)) for where, size in peak.items()}
