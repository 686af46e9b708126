"""The interface of a tracker and what trackers share: one naming scheme for runs, settings, metrics and tags.

Settings have their dotted paths and metrics their names, as in the config. `seconds.PHASE`, `training.loss` over the
optimiser's steps, and `sweep`, `number`, `key`, `replicate`, `state` come on top.
"""

import importlib
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, Protocol

from orchestrator.sweep.events import Event
from trials.errors import InputError
from trials.ledger.storage import is_local

_STATES = {
    "trial_progress": "running",
    "trial_finished": "complete",
    "trial_failed": "failed",
    "trial_given_up": "given up",
}


class Tracker(Protocol):
    name: str

    def __init__(self, sweep: str, folder: Path):
        """`folder` is the sweep's; trackers without a server write there."""

    @classmethod
    def check(cls, folder: Path) -> None:
        """Raises InputError where the tracker is not installed or cannot write; writes nothing."""

    def progress(self, event: Event) -> None:
        """Records what is new of a running trial."""

    def trial(self, event: Event) -> None:
        """Records a trial that has finished, failed or was given up."""

    def close(self) -> None:
        """Ends the runs of trials that have not ended: the sweep was stopped."""


def run_name(event: Event) -> str:
    if event.number is None:
        return f"baseline-{event.key}"
    return f"trial-{event.number}" + (f"-replicate-{event.replicate}" if event.replicate else "")


def settings(event: Event) -> dict[str, Any]:
    """Every setting of the trial by dotted path, searched or not."""
    found = dict(_flatten("", event.record.spec.model_dump(mode="json"))) if event.record is not None else {}
    return {**found, **event.settings}


def _flatten(prefix: str, value: Any) -> Iterator[tuple[str, Any]]:
    if isinstance(value, dict):
        for name, inner in value.items():
            yield from _flatten(f"{prefix}.{name}" if prefix else name, inner)
    else:
        yield prefix, value


def metrics(event: Event) -> dict[str, float]:
    """The trial's defined metrics, and its seconds by phase."""
    known = {name: value for name, value in event.metrics.items() if value is not None}
    return known | {f"seconds.{phase}": seconds for phase, seconds in event.seconds.items()}


class Losses:
    """The losses of the running trials that a tracker has not recorded yet."""

    def __init__(self) -> None:
        self._recorded: dict[str, set[int]] = {}  # steps by run

    def begin(self, event: Event, recorded: Iterable[int] = ()) -> None:
        """The trial's run begins, or goes on with the steps that an earlier command has recorded."""
        self._recorded[run_name(event)] = set(recorded)

    def new(self, event: Event) -> list[tuple[int, float]]:
        """(step, loss) that no earlier event of this run had: from its record, or from the progress of a running one.

        A resumed trial repeats steps, which are recorded once.
        """
        known = self._recorded[run_name(event)]
        found = event.record.losses if event.record is not None else event.progress.losses if event.progress is not None else []
        fresh = [(step, loss) for step, loss in found if step not in known]
        known.update(step for step, _ in fresh)
        return fresh

    def end(self, event: Event) -> None:
        """The trial's run has ended; its steps are forgotten."""
        del self._recorded[run_name(event)]


def rate(event: Event) -> tuple[int, float] | None:
    """(step, tokens per second) of a running training."""
    now = event.progress
    if now is None or now.step is None or now.tokens_per_second is None:
        return None
    return now.step, now.tokens_per_second


def tags(event: Event) -> dict[str, str]:
    found = {
        "sweep": event.sweep,
        "number": "baseline" if event.number is None else str(event.number),
        "key": event.key or "",
        "replicate": str(event.replicate),
        "state": _STATES[event.event],
    }
    if event.failure is not None:
        found["failure"] = f"{event.failure['kind']}: {event.failure['message']}"
    return found


def package(module: str, extra: str) -> Any:
    """Imports a tracker's package."""
    try:
        return importlib.import_module(module)
    except ImportError:
        raise InputError(f"trackers: {extra} is not installed: pip install 'slimsweep[{extra}]'") from None


def require_local(folder: Path, name: str, instead: str) -> None:
    if not is_local(folder):
        raise InputError(f"trackers: {name} writes to a folder of this machine, not to {folder}; {instead}")
