"""Outcomes of the keys and the trials of a manifest."""

import math
from collections.abc import Iterable
from dataclasses import dataclass

from analysis.results.manifest import ManifestTrial
from analysis.results.schema import State
from trials.errors import InputError
from trials.ledger.record import Failure, Ledger, TrialRecord


@dataclass(frozen=True)
class KeyOutcome:
    """The ledger's content for a key: a record, a failure (its own, or the reason why it cannot be read), or neither yet."""

    key: str
    record: TrialRecord | None = None
    failure: Failure | None = None

    @classmethod
    def read(cls, ledger: Ledger, key: str) -> "KeyOutcome":
        try:
            record = ledger.read(key)
        except InputError as error:  # one damaged record must not hide the others
            return cls(key, None, Failure(kind="UnreadableRecord", message=str(error), traceback=""))
        if record is None or record.state != "failed":
            return cls(key, record)
        return cls(key, record, record.failure or Failure(kind="Failure", message="it left no reason", traceback=""))

    @property
    def state(self) -> State:
        if self.failure is not None:
            return "failed"
        return "pending" if self.record is None else "complete"

    @property
    def complete(self) -> TrialRecord | None:
        """The record of a complete run."""
        return self.record if self.state == "complete" else None


@dataclass(frozen=True)
class TrialOutcome:
    """A trial of the manifest and the outcomes of its replicates; none where the point is no valid trial."""

    trial: ManifestTrial
    replicates: tuple[KeyOutcome, ...]

    @property
    def state(self) -> State:
        """Complete when all replicates are, failed as soon as one is."""
        states = {outcome.state for outcome in self.replicates} or {"failed"}
        if self.trial.given_up is not None and "complete" not in states:  # whatever an earlier attempt failed with
            return "given up"
        if "failed" in states:
            return "failed"
        return "pending" if "pending" in states else "complete"

    @property
    def records(self) -> list[TrialRecord]:
        """One a replicate; none where the trial is not complete."""
        complete = [outcome.complete for outcome in self.replicates]
        return [record for record in complete if record is not None] if self.state == "complete" else []

    @property
    def seconds(self) -> float:
        """Seconds of all phases and replicates; NaN while nothing has ended."""
        given_up = self.trial.given_up
        return given_up.seconds if given_up is not None and self.state == "given up" else seconds(self.replicates)

    @property
    def failures(self) -> list[tuple[str, str, Failure]]:
        """(what, key, failure) of each failed replicate; the key is empty for a point that is no valid trial."""
        what = f"trial {self.trial.number}"
        if self.state == "given up":
            return []
        if not self.replicates:
            return [(what, "", Failure(kind="InvalidPoint", message=self.trial.failure or "", traceback=""))]
        several = len(self.replicates) > 1
        named = ((f"{what}, replicate {place}" if several else what, one) for place, one in enumerate(self.replicates, 1))
        return [(name, one.key, one.failure) for name, one in named if one.failure is not None]


def seconds(outcomes: Iterable[KeyOutcome]) -> float:
    """Seconds of all outcomes with a record; NaN without any."""
    found = [sum(outcome.record.seconds.values()) for outcome in outcomes if outcome.record is not None]
    return float(sum(found)) if found else math.nan


def failure_text(failure: Failure | None) -> str:
    return f"{failure.kind}: {failure.message}" if failure is not None else ""
