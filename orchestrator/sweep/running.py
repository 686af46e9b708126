"""The trials of a sweep that run now, as any process sees them: by their leases and their progress in the ledger."""

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from analysis.results.manifest import Manifest
from trials.ledger import trial_progress
from trials.ledger.trial_progress import TrialProgress

if TYPE_CHECKING:
    from analysis.results.sweep import Sweep


@dataclass(frozen=True)
class RunningTrial:
    key: str
    number: int | None = None
    """None for a baseline."""
    replicate: int = 0
    replicates: int = 1
    settings: dict[str, Any] | None = None
    progress: TrialProgress | None = None
    """None in a trial's first seconds."""

    @property
    def silent(self) -> float | None:
        """Seconds since the worker wrote its progress, by two machines' clocks."""
        try:
            written = datetime.fromisoformat(self.progress.written) if self.progress else None
            return max((datetime.now(UTC) - written).total_seconds(), 0.0) if written else None
        except (ValueError, TypeError):  # somebody else wrote it
            return None

    def as_dict(self) -> dict[str, Any]:
        """The fields as JSON values."""
        now = self.progress.model_dump(mode="json", exclude={"key", "losses"}, exclude_none=True) if self.progress else None
        named = {"number": self.number, "key": self.key, "replicate": self.replicate, "settings": self.settings or {}}
        return {**named, "progress": now}


def running(sweep: "Sweep") -> list[RunningTrial]:
    """The sweep's running trials, baselines first."""
    return list(_held(sweep))


def _held(sweep: "Sweep") -> Iterator[RunningTrial]:
    ledger = sweep.ledger
    for one in _unfinished(sweep):
        now = trial_progress.read(ledger, one.key)
        # a failed trial runs again only in a later command, and then it has progress: most leases need not be looked at
        if (now is None and one.key in sweep.records) or not ledger.held(one.key):
            continue
        yield RunningTrial(one.key, one.number, one.replicate, one.replicates, one.settings, now)


def _unfinished(sweep: "Sweep") -> Iterator[RunningTrial]:
    manifest = Manifest.read(sweep.folder)
    complete = {key for key, record in sweep.records.items() if record.state == "complete"}
    for key in manifest.baseline_keys:
        if key not in complete:
            yield RunningTrial(key)
    seen = set(complete)
    for trial in manifest.trials:
        for replicate, key in enumerate(trial.keys):
            if key not in seen:
                seen.add(key)  # several trials may share it
                yield RunningTrial(key, trial.number, replicate, len(trial.keys), trial.params)
