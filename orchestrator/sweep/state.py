"""What the parts of a sweep share."""

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
    """Guarded by the controller's lock."""

    config: SweepConfig
    folder: Path
    study: StudyClient
    records: Records
    manifest: RunningManifest
    budget: Budget
    policy: FailurePolicy
    front: RunningFront
    notice: Callable[[str], None]
    """Prints one line about something that is not as it should be."""
    queue: JobQueue = field(default_factory=JobQueue)
    counts: dict[str, int] = field(default_factory=lambda: {"done": 0, "failed": 0, "given up": 0})
    failed: SweepFailed | None = None
    """Why the sweep cannot go on."""
    exhausted: bool = False
    """Every point of the space has been proposed."""
    slots: int = 1
    """Trials that run at once."""

    @property
    def may_ask(self) -> bool:
        """Whether the study may be asked for another trial. Trials that it lost count already, and most have their records."""
        if self.exhausted:
            return False
        return bool(self.manifest.missing) or self.budget.allows_another(self.manifest.counted)

    @property
    def expected(self) -> int | None:
        """Trials that there will be, with those derived from trials that are done; None where only time limits them."""
        trials = self.budget.trials
        return None if trials is None else trials + len(self.manifest.trials) - self.manifest.counted

    @property
    def unfinished(self) -> int | None:
        """Runs of trials and baselines that have not ended; None where only time limits the trials."""
        left = self.budget.left(self.manifest.counted)
        if left is None:
            return None
        proposed_later = left * self.config.search.replicates if self.may_ask else 0
        return proposed_later + len(self.queue) + self.policy.held_back

    def lost_to_another(self) -> bool:
        """Whether another driver took this one for dead and reports its trials. That ends the sweep here."""
        if self.study.drivers.lost:
            self.failed = SweepFailed("this command was taken for dead (was it suspended?), and another has its trials now")
        return self.study.drivers.lost
