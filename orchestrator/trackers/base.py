"""The interface of a tracker and what trackers share: one naming scheme for runs, settings, metrics and tags.

Settings have their dotted paths and metrics their names, as in the config. `seconds.PHASE`, `training.loss` over the
optimiser's steps, and `sweep`, `number`, `key`, `replicate`, `state` come on top.
"""

import importlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Protocol

from orchestrator.sweep.events import Event
from trials.errors import InputError
from trials.ledger.storage import is_local


class Tracker(Protocol):
    name: str

    def __init__(self, sweep: str, folder: Path):
        """`folder` is the sweep's; trackers without a server write there."""

    @classmethod
    def check(cls, folder: Path) -> None:
        """Raises InputError where the tracker is not installed or cannot write; writes nothing."""

    def trial(self, event: Event) -> None:
        """Records a trial that has finished or failed."""


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


def losses(event: Event) -> list[tuple[int, float]]:
    """(step, loss)"""
    return event.record.losses if event.record is not None else []


def tags(event: Event) -> dict[str, str]:
    found = {
        "sweep": event.sweep,
        "number": "baseline" if event.number is None else str(event.number),
        "key": event.key or "",
        "replicate": str(event.replicate),
        "state": "failed" if event.event == "trial_failed" else "complete",
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
