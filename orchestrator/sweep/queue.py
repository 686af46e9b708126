"""The jobs of a sweep: queued, held or running; and the trials whose outcome the study lacks. No I/O."""

from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from trials.spec import TrialSpec

if TYPE_CHECKING:
    from orchestrator.search.looks import Look


@dataclass(frozen=True)
class Job:
    """A TrialSpec to run. `number` is its trial's in the study; None for a baseline."""

    spec: TrialSpec
    number: int | None
    settings: dict[str, Any] = field(default_factory=dict)
    replicate: int = 0


@dataclass
class PendingTrial:
    """A trial of the study whose outcome is not complete yet."""

    number: int
    settings: dict[str, Any]
    specs: list[TrialSpec]
    """One for each replicate; empty where the settings contradict each other."""
    free: bool = False
    """Derived from the training of another trial."""
    reported: bool = False
    """The study has the outcome, and only a lost record is made again."""
    failure: str | None = None
    """The kind of a replicate's failure, or why the baseline is unusable."""
    look: "Look | None" = None
    """What it had shown when it was last paused."""

    @property
    def baseline(self) -> str:
        """The baseline's key."""
        return self.specs[0].baseline().key

    def jobs(self) -> list[Job]:
        return [Job(spec, self.number, self.settings, i) for i, spec in enumerate(self.specs)]


class JobQueue:
    def __init__(self) -> None:
        self.running: dict[str, Job] = {}
        """By key: one run of a key at a time, even if several trials wait for it."""
        self.pending: dict[int, PendingTrial] = {}
        """By number."""
        self.paused: dict[int, PendingTrial] = {}
        """By number: trials that wait for a decision. They are not pending, and have no job."""
        self._queued: deque[Job] = deque()
        self._held: list[Job] = []

    def __len__(self) -> int:
        """Jobs that have not ended."""
        return len(self._queued) + len(self._held) + len(self.running)

    # ------------------------------------------------------------------ in

    def add(self, jobs: Iterable[Job]) -> None:
        self._queued.extend(jobs)

    def add_first(self, job: Job) -> None:
        self._queued.appendleft(job)

    def add_lost(self, jobs: Iterable[Job]) -> None:
        """Queues jobs whose record is gone, unless their key is queued, held or running."""
        busy = {*self.running, *(job.spec.key for job in [*self._queued, *self._held])}
        self._queued.extend([job for job in jobs if job.spec.key not in busy])

    def hold(self, job: Job) -> None:
        """Keeps a job whose key runs already: for another trial, or in another process."""
        self._held.append(job)

    # ------------------------------------------------------------------ out

    def pop(self) -> Job | None:
        """Removes and returns the next job; None where nothing is queued."""
        while self._queued:
            job = self._queued.popleft()
            if job.number is not None and job.number not in self.pending:
                continue  # the trial has failed with another replicate
            if job.spec.key not in self.running:
                return job
            self._held.append(job)
        return None

    def start(self, job: Job) -> None:
        self.running[job.spec.key] = job

    def pause(self, trial: PendingTrial) -> None:
        self.pending.pop(trial.number, None)
        self.paused[trial.number] = trial

    def go_on(self, number: int) -> None:
        """Queues the job of a paused trial."""
        self.pending[number] = self.paused.pop(number)
        self.add(self.pending[number].jobs())

    def end(self, key: str) -> Job:
        return self.running.pop(key)

    def give_back(self, key: str) -> None:
        """Makes a running job that was not run the next one."""
        self.add_first(self.running.pop(key))

    def take_held(self, key: str) -> list[Job]:
        """Removes and returns the jobs held for this key."""
        found = [job for job in self._held if job.spec.key == key]
        self._held = [job for job in self._held if job.spec.key != key]
        return found

    def take_held_elsewhere(self) -> list[Job]:
        """Removes and returns the held jobs whose key does not run here: another process ran it when last seen."""
        found = [job for job in self._held if job.spec.key not in self.running]
        self._held = [job for job in self._held if job.spec.key in self.running]
        return found

    # ------------------------------------------------------------------ state

    @property
    def idle(self) -> bool:
        """Whether nothing is queued, held, running or paused, and no outcome is missing."""
        return not (len(self) or self.pending or self.paused)

    @property
    def has_queued(self) -> bool:
        return bool(self._queued)

    @property
    def others_run_some(self) -> bool:
        """Whether the sweep waits for a key that another process runs."""
        return any(job.spec.key not in self.running for job in self._held)

    @property
    def baselines(self) -> int:
        """The number of baselines that have not ended."""
        return sum(job.number is None for job in [*self._queued, *self._held, *self.running.values()])
