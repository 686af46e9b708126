"""What trials took before: seconds per unit of each phase, from the records of the same base on the same kind of hardware.

Training and mixing are reckoned per row trained on, an evaluation per document of the very same tasks, shots and batch size,
loading per trial: so records of one sample count tell what another one takes. Medians, since a machine that slept in mid-trial
is no guide.
"""

import statistics
from collections import defaultdict
from collections.abc import Hashable, Iterable, Iterator

from orchestrator import gpus
from orchestrator.cost import lengths
from trials.record import TrialRecord
from trials.spec import Base, Evaluation, TrialSpec

_ANY_SAMPLE = {
    "documents",
    "seed",
    "metric",
    "filter",
    "content",
}  # of an evaluation: what its seconds per document do not depend on


class Measured:
    def __init__(self, records: Iterable[TrialRecord], gpu: str | None):
        """`gpu` as the driver or a person names it; None keeps the records of trials without one."""
        self._units: dict[Hashable, list[float]] = defaultdict(list)
        self._sizes: dict[Hashable, int] = {}
        self._others: dict[Base, list[str]] = defaultdict(list)
        for record in records:
            if _kind(record.hardware.get("gpu")) != _kind(gpu):
                self._others[record.spec.base].append(record.hardware.get("gpu") or "the CPU")
                continue
            for phase, seconds, units in _phases(record):
                if units:
                    self._units[record.spec.base, phase].append(seconds / units)
            for role, evaluation in record.spec.eval.items():
                if evaluation.documents is None and role in record.scores:
                    self._sizes[_task(evaluation)] = record.scores[role].n

    def seconds(self, spec: TrialSpec) -> dict[str, float]:
        """By phase as a record has them, for the phases that have been measured."""
        rows = 0 if spec.is_baseline else spec.data.rows * spec.train.epochs
        units: dict[str, tuple[Hashable, float]] = {"load": ("load", 1), "mix": ("mix", rows), "train": ("train", rows)}
        for role, evaluation in spec.eval.items():
            units[f"evaluate.{role}"] = (_task(evaluation), self._documents(evaluation))
        return {
            phase: statistics.median(known) * count
            for phase, (what, count) in units.items()
            if count and (known := self._units.get((spec.base, what)))
        }

    def left_out(self, bases: Iterable[Base]) -> list[str]:
        """The hardware of the records of these bases that are of another kind, one entry each."""
        return [hardware for base in bases for hardware in self._others.get(base, [])]

    def _documents(self, evaluation: Evaluation) -> int:
        if evaluation.documents is not None:
            return evaluation.documents
        return self._sizes.get(_task(evaluation)) or sum(documents for _, documents in lengths(evaluation))


def _kind(gpu: str | None) -> str | None:
    kind = gpus.lookup(gpu) if gpu else None
    return kind.name if kind else gpu


def _task(evaluation: Evaluation) -> str:
    return evaluation.model_dump_json(exclude=_ANY_SAMPLE)


def _phases(record: TrialRecord) -> Iterator[tuple[Hashable, float, float]]:
    """(what was done, seconds, units of it)"""
    for phase, seconds in record.seconds.items():
        if phase == "load":
            yield phase, seconds, 1
        elif phase in ("mix", "train"):
            yield phase, seconds, record.spec.data.rows * record.spec.train.epochs
        else:
            role = phase.removeprefix("evaluate.")
            if role in record.scores and role in record.spec.eval:
                yield _task(record.spec.eval[role]), seconds, record.scores[role].n
