"""The controller of a sweep: hands out the next job, takes its outcome, and knows when the sweep is over."""

import math
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal

from orchestrator.config.model import SweepConfig
from orchestrator.errors import SweepFailed
from orchestrator.search.study_client import StudyClient
from orchestrator.search.study_storage import STUDY_ERRORS, opening
from orchestrator.sweep.budget import Budget
from orchestrator.sweep.events import Emitter, Event
from orchestrator.sweep.failure_policy import FailurePolicy
from orchestrator.sweep.fidelity import Fidelity
from orchestrator.sweep.intake import Intake
from orchestrator.sweep.manifest import RunningManifest
from orchestrator.sweep.outcome_reporter import OutcomeReporter
from orchestrator.sweep.queue import Job
from orchestrator.sweep.reconcile import claim_folder, reconcile
from orchestrator.sweep.records import Records
from orchestrator.sweep.running_front import RunningFront
from orchestrator.sweep.state import SweepState
from trials.ledger.outcomes import ALL, SEARCH
from trials.ledger.record import Ledger
from trials.ledger.trial_progress import TrialProgress

_POLL = 1.0  # seconds between two reads of what other processes run

End = Literal["record", "held", "storage", "died", "given up"]


class SweepController:
    """Thread-safe; each method returns soon."""

    def __init__(self, state: SweepState, observe: Callable[[Event], None], clock: Callable[[], float]):
        self.state = state
        self.config, self.folder, self.ledger, self.study = state.config, state.folder, state.records.ledger, state.study
        self.front, self.counts, self.running = state.front, state.counts, state.queue.running
        self.stopping = False
        self._queue, self._clock = state.queue, clock
        self._polled = -math.inf
        self._lock = threading.RLock()
        self._emitter = Emitter(state.config.name, observe)
        self._intake = Intake(state)
        self._reporter = OutcomeReporter(state, self._intake, self._emitter)
        self._fidelity = Fidelity(state, self._intake, self._reporter)
        self.pause_of = self._fidelity.pause_of

    @classmethod
    def open(
        cls,
        config: SweepConfig,
        storage: Path,
        observe: Callable[[Event], None] = lambda event: None,
        notice: Callable[[str], None] = lambda text: None,
        clock: Callable[[], float] = time.monotonic,
    ) -> "SweepController":
        """Opens or resumes the sweep in `storage`.

        `observe` gets every event, `notice` a line for each problem that does not end the sweep. `clock` is monotonic, in
        seconds.
        """
        folder, ledger = storage / config.name, Ledger(storage)
        budget = Budget(config.budget, config.search.gpu_hours, config.search.hours, clock)
        manifest = RunningManifest(config, folder, clock)
        claim_folder(config, folder, ledger, notice)
        with opening(config, folder):
            state = SweepState(
                config=config,
                folder=folder,
                study=StudyClient.open(config, folder, manifest.seen, notice),
                records=Records(ledger, SEARCH if config.search.documents == "half" else ALL, notice, config.criteria.metrics),
                manifest=manifest,
                budget=budget,
                policy=FailurePolicy([spec.key for spec in config.baseline_specs()]),
                front=RunningFront(config.search.objectives),
                notice=notice,
            )
            sweep = cls(state, observe, clock)
            try:
                with state.study.drivers.alone():  # another driver's proposals would be missing from the manifest
                    reconcile(state, sweep._intake, sweep._reporter)
            except BaseException:
                state.study.drivers.leave()
                raise
        return sweep

    # ------------------------------------------------------------------ handing out

    def next_job(self) -> Job | None:
        """The next job to run; None where there is none now (see `over`). Reports the jobs before it that have records."""
        with self._lock:
            self._poll_held()
            while self.failed is None and not self.stopping:
                job = self._queue.pop()
                if job is None:
                    if self._fidelity.next():  # its first job may have a record
                        continue
                    break
                if (record := self.state.records.complete(job.spec.key)) is not None:
                    self._reporter.report(job, record, ran=False)
                elif self.ledger.held(job.spec.key):
                    self._queue.hold(job)
                else:
                    self._queue.start(job)
                    self._emitter.trial("trial_started", job)
                    return job
            self.state.manifest.write(self.spent)
            return None

    @property
    def over(self) -> bool:
        """Whether no job will be handed out any more, however the running ones end."""
        with self._lock:
            if self.failed is not None or self.stopping:
                return True
            return self._queue.idle and not self.state.may_ask and self.study.drivers.last()

    @property
    def waits_for_others(self) -> bool:
        """Whether other commands run everything that is left: `next_job` returns None until they end."""
        with self._lock:
            if self._queue.has_queued or self._queue.paused or self.state.may_ask:
                return False
            return self._queue.others_run_some or not self.study.drivers.last()

    def _poll_held(self) -> None:
        """Takes the held jobs whose process has left a record, or has died."""
        if self._clock() - self._polled < _POLL:
            return
        self._polled = self._clock()
        for job in self._queue.take_held_elsewhere():
            if (record := self.state.records.complete(job.spec.key)) is not None:
                self._reporter.report(job, record, ran=False)
            elif self.ledger.reclaim(job.spec.key):
                self._queue.add_first(job)
            else:
                self._queue.hold(job)
        if self.study.drivers.shared:
            self._intake.adopt()

    def give_back(self, key: str) -> None:
        """Makes a job that was handed out and did not run the next one."""
        with self._lock:
            self._queue.give_back(key)

    # ------------------------------------------------------------------ outcomes

    def finish(self, key: str, end: End = "record", reason: str = "", seconds: float | None = None) -> None:
        """Takes the outcome of the running job of this key.

        "record": its record is in the ledger. "held": another process runs the key. "storage": the storage cannot be written.
        "died": the worker died without a record. "given up": the front beats the trial. `reason` explains the last three.
        `seconds` is the worker's time; it exceeds the record's phases where the worker ran the parent too.
        """
        with self._lock:
            job, records = self._queue.end(key), self.state.records
            if end == "held":
                self._queue.hold(job)
                return
            if end == "storage":
                failed = SweepFailed(f"{reason}; what was done is kept, and the same command goes on")
                self.state.failed = self.failed or failed
                return
            if end == "given up":
                self._reporter.give_up(job, reason, seconds or 0.0)
                return
            # a worker that died may have left an earlier attempt's failure behind
            record = records.complete(key) if end == "died" else records.read(key)
            if record is None:
                record = records.write_death(job.spec, reason)
            self._reporter.spend(record, seconds)
            self._reporter.report(job, record)
            for held in self._queue.take_held(key):
                self._reporter.report(held, record, ran=False)
            self.state.manifest.write(self.spent)

    def pause(self, key: str, found: Mapping[str, Any], seconds: float) -> None:
        """The running job of this key has paused; `found` is what pause.pausing measured, `seconds` the worker's time."""
        with self._lock:
            self._reporter.pause(self._queue.end(key), found, seconds)

    def report_progress(self, key: str, progress: TrialProgress) -> None:
        """Emits the progress of a job while it runs."""
        with self._lock:
            if (job := self.running.get(key)) is not None:
                self._emitter.trial("trial_progress", job, progress=progress)

    def write_manifest(self) -> None:
        """Writes manifest.json where it lacks entries, so that `status` shows the running trials."""
        with self._lock:
            if self.state.manifest.unwritten:
                self.state.manifest.write(self.spent)

    # ------------------------------------------------------------------ beginning and end

    def stop(self) -> None:
        """Hands out no more jobs; running ones may finish."""
        self.stopping = True

    @contextmanager
    def going(self) -> Iterator[None]:
        """Wraps the run: emits its start and its end, and writes study and manifest however it ends."""
        self._emitter("sweep_started")
        try:
            yield
        finally:
            over = self._at_the_end(lambda: self.over)
            done = over and self.failed is None and not self.stopping
            if done:
                self._at_the_end(self._report_failed)
            self._at_the_end(self._reporter.write_spent)
            self._at_the_end(lambda: self.state.manifest.write(self.spent, at_once=True))
            if done and self.study.drivers.shared:
                self._at_the_end(self._learn_from_others)
            reason = str(self.failed) if self.failed else "done" if done else "stopped"
            self._emitter("sweep_finished", reason=reason)
            self.study.drivers.leave()

    def _learn_from_others(self) -> None:
        """Writes what other drivers reported since this one asked last: nobody writes the manifest after it."""
        with self._lock, self.study.drivers.alone():
            self._intake.learn_from_others()
            self.state.manifest.write(self.spent, at_once=True)

    def _report_failed(self) -> None:
        with self._lock:
            self._reporter.report_failed()

    def _at_the_end(self, call: Callable[[], Any]) -> Any:
        try:
            return call()
        # the same full storage may have ended the sweep: its own error must stay the reported one
        except (*STUDY_ERRORS, OSError) as error:
            self.state.notice(f"at the end: {' '.join(str(error).split())[:200]}")
            return None

    # ------------------------------------------------------------------ state

    @property
    def failed(self) -> SweepFailed | None:
        return self.state.failed

    @property
    def spent(self) -> tuple[float, float]:
        """GPU-seconds and seconds, see Budget.spent."""
        return self.state.budget.spent

    def pending(self, number: int | None) -> bool:
        """Whether the outcome of the trial is still missing."""
        with self._lock:
            return number in self._queue.pending

    def judged(self, job: Job) -> bool:
        """Whether the study lacks the job's outcome; False for baselines and for trials whose lost record is made again."""
        with self._lock:
            trial = self._queue.pending.get(job.number) if job.number is not None else None
            return trial is not None and not trial.reported
