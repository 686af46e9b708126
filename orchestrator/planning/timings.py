"""Seconds of a trial's phases from the records of the same base on the same kind of hardware.

Mixing and training grow with the rows, an evaluation with the documents of the same tasks, shots and batch size. Loading and
drift are per trial.
"""

import statistics
from collections import defaultdict
from collections.abc import Hashable, Iterable, Iterator, Sequence
from itertools import combinations

from orchestrator import gpu_catalog
from orchestrator.planning.benchmark_lengths import lengths
from trials.ledger.record import TrialRecord
from trials.spec import Base, Evaluation, TrialSpec

_SPREAD = 1.5  # sizes must differ by this factor to give a slope
_COMPARED = 200  # records in pairwise slopes, at most: a ledger holds thousands
# fields of an evaluation on which its seconds per document do not depend
_ANY_SAMPLE = {"documents", "seed", "metric", "filter", "content"}


class Measured:
    def __init__(self, records: Iterable[TrialRecord], gpu: str | None):
        """`gpu`: any name of its kind; None keeps the records of trials without a GPU."""
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
        """Seconds of each measured phase."""
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
        """Other hardware on which these bases have records, an entry for each record."""
        return [hardware for base in bases for hardware in self._others.get(base, [])]

    def _documents(self, evaluation: Evaluation) -> int:
        if evaluation.documents is not None:
            return evaluation.documents
        return self._sizes.get(_task(evaluation)) or sum(documents for _, documents in lengths(evaluation))


def _extrapolated(seen: Sequence[tuple[float, float]], units: float) -> float:
    """Seconds for `units`, from (units, seconds) of records, by Theil's line (1950): medians of slopes and of residuals."""
    # the fixed part of a phase must not be multiplied with the rows; medians ignore a machine that slept during a trial
    ordered = sorted(seen)
    if ordered[-1][0] < _SPREAD * ordered[0][0]:  # no slope without a spread: the seconds are proportional
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
    """(phase or task, seconds, units)"""
    for phase, seconds in record.seconds.items():
        if phase in ("load", "drift"):
            yield phase, seconds, 1
        elif phase in ("mix", "train"):
            yield phase, seconds, record.spec.data.rows * record.spec.train.epochs
        else:
            role = phase.removeprefix("evaluate.")
            if role in record.scores and role in record.spec.eval:
                yield _task(record.spec.eval[role]), seconds, record.scores[role].n
