"""Worker: runs trials in this process, one after the other: rows -> training -> evaluation -> record."""

import math
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pandas as pd

from trials.adapters import peft_adapter
from trials.errors import StorageFailed, disk_failure, storage_failed, writing
from trials.evaluation.engine import vllm_python
from trials.evaluation.racing import StoppedEarly
from trials.hub.hub import Hub
from trials.ledger.lease import Lease
from trials.ledger.record import Ledger, Score, TrialRecord
from trials.models import oom
from trials.run.attempt import Attempt, HeldElsewhere
from trials.run.early_look import look_early
from trials.run.evaluation_phase import EarlyStopping, evaluate, never
from trials.run.joint_training import Member, train_jointly
from trials.run.session import Session
from trials.run.training_phase import JointTraining, derive, measure_drift, prepare, train
from trials.spec import TrialSpec
from trials.training import multi_adapter, trainer, unsloth

Ended = TrialRecord | StoppedEarly | None
"""How a trial ended; None: another process runs it."""


class NonFiniteNumber(ArithmeticError):
    """A measured number is NaN or infinite, which no record holds."""


class _ParentFailed(Exception):
    """The trial to derive from has failed; `failure` is the parent's."""

    def __init__(self, parent: TrialRecord):
        assert parent.failure is not None
        super().__init__(parent.failure.message)
        message = f"its training, {parent.key}, failed: {parent.failure.message}"
        self.failure = parent.failure.model_copy(update={"message": message})


class Worker:
    """Runs trials on this process's device and turns their errors into failed records."""

    def __init__(self, ledger: Ledger, hub: Hub):
        self.session = Session(ledger, hub)

    def run(self, spec: TrialSpec, keep: Collection[int] = (), early_stopping: EarlyStopping = never) -> TrialRecord:
        """The spec's record: the complete one in the ledger, or a new one, written to the ledger.

        The parent of a derived point runs first where it has no record. After each number of rows in `keep` the training saves
        a copy of the adapter, for points derived from it; nothing else depends on `keep`.

        A trial that fails becomes a failed record with its traceback. Raises HeldElsewhere where another process runs it,
        StoppedEarly where `early_stopping` stops it, and StorageFailed where nothing can be written; it is unfinished then.
        """
        ledger = self.session.ledger
        if done := ledger.complete(spec.key):
            return done
        lease = self._lease(spec)
        if lease is None:
            raise HeldElsewhere(f"{spec.key}: another process runs this trial")
        try:
            if done := ledger.complete(spec.key):  # completed by another process before this one got the lease
                return done
            attempt = Attempt.begin(spec, lease, ledger, keep, self.session.observe)
            with attempt.reporter.running():
                return self._run(attempt, early_stopping)
        finally:
            lease.release()

    def run_many(
        self,
        specs: Sequence[TrialSpec],
        keep: Mapping[str, Collection[int]] | None = None,
        early_stopping: EarlyStopping = never,
    ) -> list[Ended]:
        """Runs the trials and returns how each ended, in the order of the specs; `keep`, by key, is as in `run`.

        Trials with an equal multi_adapter.stackable are trained in one pass, unless they have copies to keep. A failing trial
        ends no other.
        """
        keep = keep or {}
        groups: dict[str, dict[str, TrialSpec]] = {}
        for spec in specs:
            shared = multi_adapter.stackable(spec) if not keep.get(spec.key) else None
            if shared is not None:
                groups.setdefault(shared, {})[spec.key] = spec
        stacked = {key for group in groups.values() if len(group) > 1 for key in group}
        ended: dict[str, Ended] = {}
        for spec in [spec for spec in specs if spec.key not in stacked]:  # baselines first: every comparison needs them
            ended[spec.key] = self._run_or_leave(spec, keep.get(spec.key, ()), early_stopping)
        for group in groups.values():
            ended |= self._run_jointly(group.values(), early_stopping)
        for spec in specs:
            if spec.key not in ended:
                ended[spec.key] = self._run_or_leave(spec, (), early_stopping)
        return [ended[spec.key] for spec in specs]

    def _run_or_leave(self, spec: TrialSpec, keep: Collection[int], early_stopping: EarlyStopping) -> Ended:
        try:
            return self.run(spec, keep, early_stopping)
        except StoppedEarly as stopped:
            return stopped
        except HeldElsewhere:
            return None

    def _run_jointly(self, specs: Collection[TrialSpec], early_stopping: EarlyStopping) -> dict[str, Ended]:
        """How the trials ended, by key. Leaves out trials that are complete or run elsewhere, and a single remaining one."""
        ledger = self.session.ledger
        with ExitStack() as leases:
            members = []
            for spec in specs:
                if ledger.complete(spec.key) or (lease := self._lease(spec)) is None:
                    continue
                leases.callback(lease.release)
                if not ledger.complete(spec.key):
                    members.append(Member(Attempt.begin(spec, lease, ledger, observe=self.session.observe)))
                    leases.enter_context(members[-1].attempt.reporter.running())
            if len(members) < 2:
                return {}
            train_jointly(self.session, members)
            ended: dict[str, Ended] = {}
            for member in members:
                try:
                    ended[member.attempt.spec.key] = self._run(member.attempt, early_stopping, member)
                except StoppedEarly as stopped:
                    ended[member.attempt.spec.key] = stopped
                except HeldElsewhere:
                    continue  # `run` retries it after the others
                finally:
                    member.attempt.reporter.close()
                    member.attempt.lease.release()
            return ended

    def _lease(self, spec: TrialSpec) -> Lease | None:
        with writing(self.session.ledger.folder(spec.key)):
            return self.session.ledger.lease(spec.key)

    def _run(self, attempt: Attempt, early_stopping: EarlyStopping, member: Member | None = None) -> TrialRecord:
        """The record of a trial whose lease this process has."""
        try:
            return self._recorded(attempt, early_stopping, member)
        finally:
            attempt.checkpoints.leave()

    def _recorded(self, attempt: Attempt, early_stopping: EarlyStopping, member: Member | None) -> TrialRecord:
        """Runs the phases. The only place that turns a trial's failure into a record."""
        ledger, record, checkpoints = self.session.ledger, attempt.record, attempt.checkpoints
        documents: pd.DataFrame | None = None
        adapters: list[Path] = []
        try:
            if member and member.error:
                raise member.error
            documents, adapters = self._phases(attempt, early_stopping, member.result if member else None)
            _check_numbers(record)
        except (StoppedEarly, StorageFailed, HeldElsewhere):
            raise
        except Exception as error:
            if reason := disk_failure(error):  # a disk other than the storage's: a cache, a temporary folder
                raise storage_failed(getattr(error, "filename", None) or "a disk of this machine", reason) from error
            self.session.drop_base()  # its state is undefined; the next trial loads it again
            attempt.fail(error)
            if isinstance(error, _ParentFailed):
                record.failure = error.failure
        if record.failure:
            documents, adapters = None, []
            _drop_numbers(record)
            oom.release()
        attempt.finish()
        with writing(ledger.folder(attempt.spec.key)):
            ledger.write(record, documents, adapters)
        if record.failure is None or record.failure.kind in _DIVERGED:  # its checkpoint would lead to the same failure
            checkpoints.remove()
        return record

    def _phases(
        self, attempt: Attempt, early_stopping: EarlyStopping, joint: JointTraining | None
    ) -> tuple[pd.DataFrame, list[Path]]:
        """Runs all phases. Returns the outcomes and the local folders of the adapters."""
        session, spec = self.session, attempt.spec
        if spec.train.backend == "unsloth" and not spec.is_baseline:
            unsloth.check_settings(spec)
            unsloth.check_machine()
        parent = self._parent(attempt, early_stopping) if spec.parent is not None else None
        race = early_stopping(spec)
        loaded = prepare(session, attempt)
        vllm_python.check_settings(spec)
        if vllm_python.wanted(spec):
            session.vllm(spec.base)
        if spec.is_baseline:
            return evaluate(session, attempt, loaded.model, race), []
        if race is not None and race.pause is not None and race.pause.rows < 1:
            look_early(session, attempt, race)
        adapters = train(session, attempt, joint) if parent is None else [derive(session, attempt, parent)]
        with peft_adapter.borrowed(loaded, adapters[0]) as model:
            attempt.checkpoints = attempt.checkpoints.bound(weights=peft_adapter.checksum(adapters[0]))
            pauses = race is not None and race.pause is not None
            if not pauses:
                measure_drift(session, attempt, model)
            attempt.adapter = adapters[0]
            with peft_adapter.merged(model) as whole:
                documents = evaluate(session, attempt, whole, race)
            if pauses:  # a trial that stops for good needs none
                measure_drift(session, attempt, model)
        return documents, adapters

    def _parent(self, attempt: Attempt, early_stopping: EarlyStopping) -> TrialRecord:
        """The record of the trial that this one is derived from, which runs here where it has none."""
        spec = attempt.spec
        assert spec.parent is not None
        known = self.session.ledger.read(spec.parent.key)
        if known is not None and known.failure is not None and known.failure.kind in _DIVERGED:
            raise _ParentFailed(known)  # it would fail again
        keep = {*attempt.keep, *([spec.derive.samples] if spec.derive.samples else [])}
        attempt.reporter.phase("derive", spec.parent.key)
        record = self.run(spec.parent, keep, early_stopping)
        if record.failure is not None:
            raise _ParentFailed(record)
        return record


_DIVERGED = {trainer.NonFiniteLoss.__name__, NonFiniteNumber.__name__}
"""Kinds of failure that the same trial would meet again."""
_MEASURED = ("scores", "details", "halves", "learning", "similarity")
"""The fields of a record with what a trial measured."""


def _check_numbers(record: TrialRecord) -> None:
    """Raises NonFiniteNumber where a measured number is not finite: JSON has no such numbers, so that the record could not be
    read again."""
    wrong = [path for name in _MEASURED for path in _not_finite(getattr(record, name), name)]
    if wrong:
        more = f" and {len(wrong) - 3} more" if len(wrong) > 3 else ""
        advice = "" if record.spec.is_baseline else "; a lower train.learning_rate may help"
        raise NonFiniteNumber(f"not finite: {', '.join(wrong[:3])}{more}{advice}")


def _drop_numbers(record: TrialRecord) -> None:
    """Empties the fields that hold a number that is not finite."""
    for name in _MEASURED:
        if any(_not_finite(getattr(record, name), name)):
            setattr(record, name, {})


def _not_finite(value: Any, path: str) -> Iterator[str]:
    if isinstance(value, Score):
        value = {"value": value.value, "stderr": value.stderr}
    if isinstance(value, dict):
        for name, one in value.items():
            yield from _not_finite(one, f"{path}.{name}")
    elif not all(map(math.isfinite, value if isinstance(value, list) else [value])):
        yield path
