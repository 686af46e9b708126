"""What trials took before: seconds per unit of each phase, from the records of the same base on the same kind of hardware.

Training and mixing grow with the rows trained on, an evaluation with the documents of the very same tasks, shots and batch
size; loading and measuring drift are per trial. Where records differ in size, a robust line separates the fixed part of a phase
from what each row or document adds: a fixed part multiplied with the rows would make a large trial too dear.
"""

import statistics
from collections import defaultdict
from collections.abc import Hashable, Iterable, Iterator, Sequence
from itertools import combinations

from orchestrator import gpu_catalog
from orchestrator.planning.benchmark_lengths import lengths
from trials.ledger.record import TrialRecord
from trials.spec import Base, Evaluation, TrialSpec

_SPREAD = 1.5  # records whose sizes differ by this factor show what grows with the size
_COMPARED = 200  # records compared with one another at most: a ledger holds thousands
# of an evaluation: its seconds per document do not depend on these
_ANY_SAMPLE = {"documents", "seed", "metric", "filter", "content"}


class Measured:
    def __init__(self, records: Iterable[TrialRecord], gpu: str | None):
        """`gpu` as the driver or a person names it; None keeps the records of trials without one."""
        self._seen: dict[Hashable, list[tuple[float, float]]] = defaultdict(list)
        self._sizes: dict[Hashable, int] = {}
        self._others: dict[Base, list[str]] = defaultdict(list)
        for record in records:
            own = record.hardware.get("gpu") and str(record.hardware["gpu"])
            if _kind(own) != _kind(gpu):
                self._others[record.spec.base].append(own or "the CPU")
                continue
            for phase, seconds, units in _phases(record):
                if units:
                    self._seen[record.spec.base, phase].append((units, seconds))
            for role, evaluation in record.spec.eval.items():
                if evaluation.documents is None and role in record.scores:
                    self._sizes[_task(evaluation)] = record.scores[role].n

    def seconds(self, spec: TrialSpec) -> dict[str, float]:
        """By phase as a record has them, for the phases that have been measured."""
        rows = 0 if spec.is_baseline else spec.data.rows * spec.train.epochs
        once = 0 if spec.is_baseline else 1
        units: dict[str, tuple[Hashable, float]] = {
            "load": ("load", 1),
            "mix": ("mix", rows),
            "train": ("train", rows),
            "drift": ("drift", once),
        }
        for role, evaluation in spec.eval.items():
            units[f"evaluate.{role}"] = (_task(evaluation), self._documents(evaluation))
        return {
            phase: _extrapolated(known, count)
            for phase, (what, count) in units.items()
            if count and (known := self._seen.get((spec.base, what)))
        }

    def left_out(self, bases: Iterable[Base]) -> list[str]:
        """The hardware of the records of these bases that are of another kind, one entry each."""
        return [hardware for base in bases for hardware in self._others.get(base, [])]

    def _documents(self, evaluation: Evaluation) -> int:
        if evaluation.documents is not None:
            return evaluation.documents
        return self._sizes.get(_task(evaluation)) or sum(documents for _, documents in lengths(evaluation))


def _extrapolated(seen: Sequence[tuple[float, float]], units: float) -> float:
    """Seconds for so many units, from (units, seconds) of records.

    The line is Theil's (1950): the median of the slopes between records, and the median of what remains. Medians, since a
    machine that slept in mid-trial is no guide. Records of about one size have no slope: there the seconds are proportional.
    """
    ordered = sorted(seen)
    if ordered[-1][0] < _SPREAD * ordered[0][0]:
        return statistics.median(seconds / size for size, seconds in seen) * units
    some = [*ordered[:: len(ordered) // _COMPARED + 1], ordered[-1]]
    slopes = [(b - a) / (y - x) for (x, a), (y, b) in combinations(some, 2) if y >= _SPREAD * x]
    slope = max(statistics.median(slopes), 0.0)
    fixed = max(statistics.median(seconds - slope * size for size, seconds in seen), 0.0)
    return fixed + slope * units


def _kind(gpu: str | None) -> str | None:
    kind = gpu_catalog.lookup(gpu) if gpu else None
    return kind.name if kind else gpu


def _task(evaluation: Evaluation) -> str:
    return evaluation.model_dump_json(exclude=_ANY_SAMPLE)


def _phases(record: TrialRecord) -> Iterator[tuple[Hashable, float, float]]:
    """(what was done, seconds, units of it)"""
    for phase, seconds in record.seconds.items():
        if phase in ("load", "drift"):
            yield phase, seconds, 1
        elif phase in ("mix", "train"):
            yield phase, seconds, record.spec.data.rows * record.spec.train.epochs
        else:
            role = phase.removeprefix("evaluate.")
            if role in record.scores and role in record.spec.eval:
                yield _task(record.spec.eval[role]), seconds, record.scores[role].n
