"""Attempt: one try at a trial, with its record and the checkpoints that it resumes from."""

import platform
import time
import traceback
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TypeVar

from trials.ledger.checkpoint import CheckpointStore
from trials.ledger.lease import Lease
from trials.ledger.record import Failure, Ledger, TrialRecord
from trials.models import oom
from trials.run import provenance, revision
from trials.run.reporter import Observe, Reporter, ignore
from trials.spec import TrialSpec

Result = TypeVar("Result")


class HeldElsewhere(Exception):
    """Another process runs this trial; its record will be in the ledger."""


@dataclass
class Attempt:
    spec: TrialSpec
    lease: Lease
    record: TrialRecord
    checkpoints: CheckpointStore
    reporter: Reporter
    keep: Collection[int] = ()
    """Numbers of rows after which the training saves a copy of the adapter, for points derived from it."""
    until: int | None = None
    """The number of rows after which the training stops, as if interrupted."""
    adapter: Path | None = None
    """The local folder of the adapter that is evaluated; None for a baseline."""

    @classmethod
    def begin(
        cls, spec: TrialSpec, lease: Lease, ledger: Ledger, keep: Collection[int] = (), observe: Observe = ignore
    ) -> "Attempt":
        record, folder = TrialRecord(key=spec.key, state="complete", spec=spec), ledger.folder(spec.key)
        reporter = Reporter(spec.key, folder, lambda: not lease.lost, observe)
        return cls(spec, lease, record, CheckpointStore(folder / "partial"), reporter, keep)

    @contextmanager
    def phase(self, name: str) -> Iterator[None]:
        """Records a phase's seconds and peak memory."""
        provenance.reset_peak_memory()
        self.reporter.phase(name)
        began = time.perf_counter()
        try:
            yield
        finally:
            self.record.seconds[name] = round(time.perf_counter() - began, 3)
            self.reporter.phase_ended(name, self.record.seconds[name])
            peak, before = provenance.peak_memory(), self.record.memory.get(name, {})  # racing repeats a phase
            self.record.memory[name] = {where: max(size, before.get(where, 0)) for where, size in peak.items()}

    def with_oom_backoff(
        self, phase: str, rows: int, run: Callable[[int], Result], smaller: Callable[[int], int] = lambda rows: rows // 2
    ) -> Result:
        """`run(rows)`, repeated with `smaller(rows)` when it runs out of memory. The record lists every halving."""

        def noted(rows: int) -> int:
            less = smaller(rows)
            self.reporter.note(f"{phase}: out of memory with {rows} rows at once; {less} from now on")
            return less

        return oom.within(phase, rows, run, noted, self.record.out_of_memory)

    def fail(self, error: Exception) -> None:
        """Turns the record into that of a failed trial."""
        self.record.state = "failed"
        hide = self.reporter.log.without_secrets  # a hub's error may quote a password, and people share reports
        message, trace = hide(str(error)), hide(traceback.format_exc())
        self.record.failure = Failure(kind=type(error).__name__, message=message, traceback=trace)
        self.reporter.note(f"the trial fails\n{trace}")

    def finish(self) -> None:
        """Adds machine, versions and time to the record. Raises HeldElsewhere where the lease was lost."""
        record = self.record
        record.versions = provenance.versions()
        record.git = revision.git_revision()
        record.hardware = provenance.hardware()
        record.host = platform.node()
        for peak in record.memory.values():
            record.peak_memory = {where: max(size, record.peak_memory.get(where, 0)) for where, size in peak.items()}
        record.set_aside += self.checkpoints.set_aside
        if record.failure is None:
            self.reporter.note("the trial is complete")
        record.finished = datetime.now(UTC).isoformat(timespec="seconds")
        if self.lease.lost:  # its record would overwrite that of the new holder
            raise HeldElsewhere(f"{self.spec.key}: the lease expired, and another process runs the trial now")
