"""Seconds of a trial's phases from the records of the same base on the same kind of hardware.

Mixing and training grow with the rows, an evaluation with the documents of the same tasks, shots and batch size. Loading and
drift are per trial.
"""

import statistics
from collections import defaultdict
from collections.abc import Hashable, Iterable, Mapping, Sequence
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
            answered = {role: score.n for role, score in record.scores.items()}
            for phase, (work, units) in _units(record.spec, answered).items():
                if units and phase in record.seconds:
                    self._seen[record.spec.base, work].append((units, record.seconds[phase]))
            for role, evaluation in record.spec.eval.items():
                if evaluation.documents is None and role in record.scores:
                    self._sizes[_task(evaluation)] = record.scores[role].n

    def seconds(self, spec: TrialSpec) -> dict[str, float]:
        """Seconds of each measured phase."""
        documents = {role: self._documents(evaluation) for role, evaluation in spec.eval.items()}
        return {
            phase: _extrapolated(known, units)
            for phase, (work, units) in _units(spec, documents).items()
            if units and (known := self._seen.get((spec.base, work)))
        }

    def left_out(self, bases: Iterable[Base]) -> list[str]:
        """Other hardware on which these bases have records, an entry for each record."""
        return [hardware for base in bases for hardware in self._others.get(base, [])]

    def _documents(self, evaluation: Evaluation) -> int:
        if evaluation.documents is not None:
            return evaluation.documents
        return self._sizes.get(_task(evaluation)) or sum(task.documents for task in lengths(evaluation))


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


def _units(spec: TrialSpec, documents: Mapping[str, int]) -> dict[str, tuple[Hashable, float]]:
    """By phase: the work that it does, and the units in which its seconds grow. `documents` are answered by role."""
    trained = not spec.is_baseline
    rows = spec.data.rows * spec.train.epochs * trained
    units: dict[str, tuple[Hashable, float]] = {"load": ("load", 1), "mix": ("mix", rows), "train": ("train", rows)}
    units["drift"] = ("drift", trained)
    # two roles of one task do the same work
    return units | {
        f"evaluate.{role}": (_task(spec.eval[role]), count) for role, count in documents.items() if role in spec.eval
    }
