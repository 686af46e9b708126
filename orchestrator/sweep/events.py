"""The events of a sweep, their observers, and the log of JSON lines (`--events FILE`)."""

import json
import math
import os
import sys
import threading
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal

from orchestrator.sweep.queue import Job
from trials.errors import InputError
from trials.ledger.record import TrialRecord
from trials.ledger.storage import local
from trials.ledger.trial_progress import TrialProgress
from trials.printable import printable

Kind = Literal[
    "sweep_started",
    "trial_started",
    "trial_progress",
    "trial_finished",
    "trial_failed",
    "trial_given_up",
    "trial_paused",
    "front_changed",
    "sweep_finished",
]

_TRIAL = ("number", "key", "replicate", "settings")
_FIELDS: dict[str, tuple[str, ...]] = {
    "sweep_started": (),
    "trial_started": _TRIAL,
    "trial_progress": (*_TRIAL, "progress"),
    "trial_finished": (*_TRIAL, "metrics", "seconds"),
    "trial_failed": (*_TRIAL, "failure", "seconds"),
    "trial_given_up": (*_TRIAL, "reason"),
    "trial_paused": (*_TRIAL, "metrics", "reason"),
    "front_changed": ("front",),
    "sweep_finished": ("reason",),
}


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="milliseconds")


@dataclass(frozen=True)
class Event:
    """An event. Every kind has `event`, `time` and `sweep`; the other fields are those of its kind in `_FIELDS`."""

    event: Kind
    sweep: str
    """The sweep's name."""
    time: str = field(default_factory=_now)
    """ISO 8601, UTC, milliseconds."""
    number: int | None = None
    """The trial's number in the study; None for a baseline."""
    key: str | None = None
    """The trial's key in the ledger."""
    replicate: int = 0
    """The index of the run among those of the setting with different seeds."""
    settings: dict[str, Any] = field(default_factory=dict)
    """The searched settings by dotted path, as in the config's `space`; a baseline has none."""
    metrics: dict[str, float | None] = field(default_factory=dict)
    """By name, as in objectives of the config ("commonsense.gain"): shares 0..1; None where undefined."""
    seconds: dict[str, float] = field(default_factory=dict)
    """By phase of the trial."""
    failure: dict[str, str] | None = None
    """`kind` and `message`; the traceback is in the record."""
    progress: TrialProgress | None = None
    """What a running trial does. In as_dict without its key and the list of losses."""
    front: list[dict[str, Any]] = field(default_factory=list)
    """The whole front: `number`, `key` and `metrics` of each trial."""
    reason: str | None = None
    """Why the sweep ended, why the trial was given up, or what it has shown when it was paused."""
    record: TrialRecord | None = field(default=None, compare=False, repr=False)
    """The trial's record, for observers in this process; not in as_dict."""

    def as_dict(self) -> dict[str, Any]:
        """The fields of this kind of event as JSON values: NaN and infinity become None."""
        names = ("event", "time", "sweep", *_FIELDS[self.event])
        return {name: _plain(getattr(self, name)) for name in names}


def _plain(value: Any) -> Any:
    if isinstance(value, TrialProgress):
        return value.model_dump(mode="json", exclude={"key", "losses"}, exclude_none=True)
    if isinstance(value, dict):
        return {str(key): _plain(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(inner) for inner in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


Observer = Callable[[Event], None]
"""Called with each event, from several threads and under the sweep's lock: it must return at once.

May have a `close()`, which is called at the end of the sweep.
"""


class Emitter:
    """Builds the events of one sweep for its observer."""

    def __init__(self, sweep: str, observe: Observer):
        self._sweep, self._observe = sweep, observe

    def __call__(self, event: Kind, **fields: Any) -> None:
        self._observe(Event(event, self._sweep, **fields))

    def trial(self, event: Kind, job: Job, record: TrialRecord | None = None, **fields: Any) -> None:
        if record is not None:
            fields |= {"record": record, "seconds": record.seconds}
            if record.failure is not None:
                fields["failure"] = {"kind": record.failure.kind, "message": record.failure.message}
        self(event, number=job.number, key=job.spec.key, replicate=job.replicate, settings=job.settings, **fields)


class EventLog:
    """Appends each event to a file as one line of JSON; InputError where the file cannot be written."""

    def __init__(self, path: Path):
        self.path = path
        try:
            self._handle = os.open(path, os.O_RDWR | os.O_APPEND | os.O_CREAT, 0o666)
            size = os.fstat(self._handle).st_size
            if size and os.pread(self._handle, 1, size - 1) != b"\n":  # a killed driver left an incomplete line
                os.write(self._handle, b"\n")
        except OSError as error:
            raise InputError(f"--events {path}: {error.strerror}") from None

    def __call__(self, event: Event) -> None:
        line = json.dumps(event.as_dict(), allow_nan=False, ensure_ascii=False) + "\n"
        written = os.write(self._handle, line.encode())  # one write: lines of several drivers do not mix
        if written < len(line.encode()):
            raise OSError(f"{self.path}: no room for an event")

    def close(self) -> None:
        os.close(self._handle)


def event_log(path: str | None) -> list[EventLog]:
    """The log at this path of a user, as an observer; none without a path."""
    return [EventLog(local(path, "--events"))] if path else []


class Observers:
    """Passes every event to several observers, in order. One that raises is reported and not called again."""

    def __init__(self, observers: Iterable[Observer] = ()):
        self._observers = list(observers)
        self._lock = threading.Lock()

    def __call__(self, event: Event) -> None:
        with self._lock:
            for observer in list(self._observers):
                try:
                    observer(event)
                except Exception as error:  # noqa: BLE001  # no observer may end a sweep
                    self._observers.remove(observer)
                    warn(observer, error)
                    _close(observer)

    def close(self) -> None:
        """Closes every observer; each bounds its own time."""
        with self._lock:
            for observer in self._observers:
                _close(observer)
            self._observers.clear()


def _close(observer: Observer) -> None:
    try:
        getattr(observer, "close", lambda: None)()
    except Exception as error:  # noqa: BLE001  # as above
        warn(observer, error)


def warn(observer: object, error: BaseException) -> None:
    """Reports that the observer gets no more events."""
    name = getattr(observer, "name", type(observer).__name__)
    reason = next(iter(str(error).strip().splitlines()), "") or type(error).__name__
    print(f"warning: {name}: {printable(reason[:200])}; it gets no more events of this sweep", file=sys.stderr, flush=True)
