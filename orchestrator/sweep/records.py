"""The records of a sweep's trials in the ledger. A damaged record is set aside and counts as missing."""

import os
from collections.abc import Callable, Sequence

from analysis.metrics.names import Estimate
from analysis.stats.estimate import measure
from analysis.stats.untrained import untrained_values
from trials.errors import InputError
from trials.ledger.outcomes import Split
from trials.ledger.record import Failure, Ledger, TrialRecord
from trials.printable import secrets, without_secrets
from trials.spec import TrialSpec


class Records:
    def __init__(self, ledger: Ledger, split: Split, notice: Callable[[str], None], searched: Sequence[str] = ()):
        """`split` is the part of the documents that the search uses, `searched` are the metrics that it is for."""
        self.ledger = ledger
        self._searched = searched
        self._split, self._notice = split, notice
        self._baselines: dict[str, TrialRecord] = {}

    def read(self, key: str) -> TrialRecord | None:
        try:
            return self.ledger.read(key)
        except InputError as error:
            try:
                aside = self.ledger.set_aside(key)
            except FileNotFoundError:  # another command has set it aside
                return None
            self._notice(f"{str(error).partition(';')[0]}; set aside as {aside.name}, the trial runs again")
            return None

    def complete(self, key: str) -> TrialRecord | None:
        record = self.read(key)
        return record if record is not None and record.state == "complete" else None

    def baseline(self, key: str) -> TrialRecord | None:
        """The complete record of a baseline, cached."""
        if key not in self._baselines and (record := self.complete(key)) is not None:
            self._baselines[key] = record
        return self._baselines.get(key)

    def metrics(self, record: TrialRecord, baseline: TrialRecord) -> dict[str, float | None]:
        """The trial's metrics against its baseline; None where undefined."""
        return {name: found.value if found else None for name, found in self.estimates(record, baseline).items()}

    def estimates(self, record: TrialRecord, baseline: TrialRecord) -> dict[str, Estimate | None]:
        """The trial's metrics with their standard errors."""
        return measure([record], baseline, split=self._split, also=self._searched)

    def untrained(self, baseline: TrialRecord, names: Sequence[str]) -> list[float]:
        """The base's own metrics, such as a gain of 0; NaN where unknown or undefined."""
        values: list[float] = untrained_values([baseline], names, self._split)[0].tolist()
        return values

    def write_death(self, spec: TrialSpec, reason: str) -> TrialRecord:
        """Writes the record of a trial whose worker died without one."""
        words = without_secrets(reason, secrets(os.environ))  # the end of a log may quote a password
        failure = Failure(kind="WorkerDied", message=words or "the worker left no record", traceback="")
        record = TrialRecord(key=spec.key, state="failed", spec=spec, failure=failure)
        self.ledger.write(record)
        return record

    def place(self, key: str) -> str:
        """The path of the record, for messages."""
        return str(self.ledger.folder(key) / "record.json")
