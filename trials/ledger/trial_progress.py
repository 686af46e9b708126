"""What a running trial does: `LEDGER/KEY/progress.json`, written while it runs and removed when it ends.

The driver of the sweep and `slimsweep status`, maybe on other machines, read it.
"""

from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated

from pydantic import BaseModel, Field, ValidationError

from trials.errors import InputError
from trials.ledger import storage
from trials.ledger.record import Key, Ledger

FILE = "progress.json"
LOSSES = 256
"""Number of the newest losses that the file holds: a reader that looks at every version misses none of a usual training."""

_Count = Annotated[int, Field(ge=0, lt=2**53)]
_Number = Annotated[float, Field(allow_inf_nan=False)]
_Seconds = Annotated[float, Field(ge=0, lt=1e12, allow_inf_nan=False)]


class TrialProgress(BaseModel):
    key: Key
    phase: Annotated[str, Field(max_length=300)]
    """load, mix, train, drift or evaluate.ROLE, as in TrialRecord.seconds; derive while its parent is trained."""
    seconds: _Seconds = 0.0
    """Since the phase began."""
    step: _Count | None = None
    """Optimiser steps done, in phase train."""
    steps: _Count | None = None
    loss: _Number | None = None
    """Of the last step, in nats per counted token, penalties included."""
    tokens_per_second: _Number | None = None
    documents: _Count | None = None
    """Documents of the role answered, those of earlier stages included, in phase evaluate.ROLE. In phase drift, held-out rows
    measured; each counts twice, for the KL divergence and for the hidden states."""
    of_documents: _Count | None = None
    """The role's documents, or twice the held-out rows."""
    together: Annotated[int, Field(ge=2, lt=2**31)] | None = None
    """Trials that are trained in one pass, this one included, in phase train; each has the pass's `seconds` and `left`."""
    evaluated: _Seconds | None = None
    """Seconds that the evaluations before this phase took, where the roles take turns (racing); None where they do not."""
    left: _Seconds | None = None
    """Seconds to the end of the phase at the measured rate; None while no rate is measured."""
    losses: Annotated[list[tuple[_Count, _Number]], Field(max_length=LOSSES)] = []
    """(step, loss) of the newest steps."""
    parent: Key | None = None
    """The trial that runs in the place of this one, which is derived from it."""
    host: Annotated[str, Field(max_length=300)] = ""
    written: str = ""
    """ISO 8601, UTC, by the worker's clock."""

    def stamped(self) -> "TrialProgress":
        """A copy with the current time."""
        return self.model_copy(update={"written": datetime.now(UTC).isoformat(timespec="seconds")})


def write(folder: Path, progress: TrialProgress) -> None:
    """Writes the file into the trial's folder. OSError or InputError where that cannot be written."""
    with storage.anchored(folder, 2) as place:
        storage.write_text(place / FILE, progress.model_dump_json() + "\n")


def remove(folder: Path) -> None:
    with storage.anchored(folder, 2) as place:
        storage.remove(place / FILE)


def read(ledger: Ledger, key: str) -> TrialProgress | None:
    """The progress of the trial, or of its parent while that runs in its place; None where there is none.

    A worker that was killed leaves its last progress behind: only a held lease (Ledger.held) says that the trial runs.
    """
    found = _read(ledger, key)
    if found is None or found.parent is None:
        return found
    of_parent = _read(ledger, found.parent)
    return found if of_parent is None else of_parent.model_copy(update={"key": key, "parent": found.parent})


def _read(ledger: Ledger, key: str) -> TrialProgress | None:
    folder = ledger.folder(key)
    if storage.is_link(folder):  # others may be able to write to the storage
        return None
    try:
        found = TrialProgress.model_validate_json(storage.read_bytes(folder / FILE))
    except (OSError, InputError, ValidationError):  # not written yet, removed just now, or written by somebody else
        return None
    return found if found.key == key else None
