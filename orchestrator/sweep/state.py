"""The state that the parts of a sweep share."""

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from orchestrator.config.model import SweepConfig
from orchestrator.errors import SweepFailed
from orchestrator.search.study_client import StudyClient
from orchestrator.sweep.budget import Budget
from orchestrator.sweep.failure_policy import FailurePolicy
from orchestrator.sweep.manifest import RunningManifest
from orchestrator.sweep.queue import JobQueue
from orchestrator.sweep.records import Records
from orchestrator.sweep.running_front import RunningFront


@dataclass
class SweepState:
    """Access it under the controller's lock."""

    config: SweepConfig
    folder: Path
    study: StudyClient
    records: Records
    manifest: RunningManifest
    budget: Budget
    policy: FailurePolicy
    front: RunningFront
    notice: Callable[[str], None]
    """Prints one line about a problem that does not end the sweep."""
    queue: JobQueue = field(default_factory=JobQueue)
    counts: dict[str, int] = field(default_factory=lambda: {"done": 0, "failed": 0, "given up": 0})
    failed: SweepFailed | None = None
    """The reason why the sweep cannot go on."""
    exhausted: bool = False
    """Every point of the space has been proposed."""
    slots: int = 1
    """Trials that run at once."""

    @property
    def may_ask(self) -> bool:
        """Whether the study may propose another trial."""
        if self.exhausted:
            return False
        # trials that the study has lost were paid for already, and most of them have records
        return bool(self.manifest.missing) or self.budget.allows_another(self.manifest.counted)

    @property
    def expected(self) -> int | None:
        """The number of trials at the end, derived ones included so far; None where only time limits them."""
        trials = self.budget.trials
        return None if trials is None else trials + len(self.manifest.trials) - self.manifest.counted

    @property
    def unfinished(self) -> int | None:
        """The number of runs of trials and baselines that have not ended; None where only time limits the trials."""
        left = self.budget.left(self.manifest.counted)
        if left is None:
            return None
        proposed_later = left * self.config.search.replicates if self.may_ask else 0
        return proposed_later + len(self.queue) + len(self.queue.paused) + self.policy.held_back

    def lost_to_another(self) -> bool:
        """Whether this driver's lease expired, so that another driver reports its trials. That ends the sweep here."""
        if self.study.drivers.lost:
            self.failed = SweepFailed("the lease of this command expired (was it suspended?), and another has its trials now")
        return self.study.drivers.lost
