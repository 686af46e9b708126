"""Compares the fronts of two sweeps with the same objectives: the ratio of their hypervolumes, and its interval."""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from analysis.export.plain import plain
from analysis.formatting import labels
from analysis.metrics.names import Objective
from analysis.results import schema as col
from analysis.results.sweep import Sweep
from analysis.stats import pareto
from analysis.stats.intervals import LEVEL
from analysis.stats.untrained import worst_scores
from trials.errors import InputError
from trials.ledger.outcomes import ALL
from trials.ledger.record import TrialRecord


@dataclass(frozen=True)
class Comparison:
    """Sweep B against sweep A. Volumes are in the product of the objectives' own units."""

    a: Sweep
    b: Sweep
    objectives: tuple[Objective, ...]
    """In A's order."""
    reference: tuple[float, ...]
    volumes: tuple[float, float]
    ratio: float | None
    """Volume of B over volume of A, as measured. None where A has none."""
    corrected: float | None
    """Median of the ratio over the draws, which correct for the choice of the best. None where `interval` is, or infinite."""
    interval: tuple[float, float] | None
    """95 % interval of the ratio. The upper end is inf where A may have no volume. None without draws or volumes."""
    probability: float | None
    """Probability that B's true volume is the larger one; a tie counts half. None where `interval` is."""
    dominated: tuple[np.ndarray, np.ndarray]
    """Masks over `a.front` and `b.front`: points that a point of the other front dominates."""
    warnings: tuple[str, ...]

    @property
    def coverage(self) -> tuple[float | None, float | None]:
        """Share of A's front that B's front dominates, and the reverse. None for an empty front."""
        shares = [float(mask.mean()) if len(mask) else None for mask in self.dominated]
        return shares[0], shares[1]


def compare(a: Sweep, b: Sweep) -> Comparison:
    """Raises InputError where the objectives differ. `warnings` names the other differences."""
    if set(a.objectives) != set(b.objectives):
        named = [", ".join(f"{one.metric} {one.direction}" for one in sweep.objectives) for sweep in (a, b)]
        raise InputError(f"the sweeps have other objectives: {a.name} has {named[0]}, {b.name} has {named[1]}")
    objectives = a.objectives
    # one reference point for both: volumes from different ones do not compare
    bases = [(sweep.records[key], sweep.half or ALL) for sweep in (a, b) for key in sweep.complete_baselines["key"]]
    reference = pareto.reference_point(objectives, [*a.constraints, *b.constraints], worst_scores(bases))
    oriented = pareto.orient(reference, objectives)
    points = [_points(sweep.front, objectives) for sweep in (a, b)]
    volumes = [
        pareto.hypervolume(np.concatenate([one, _points(sweep.baselines[sweep.baselines["feasible"]], objectives)]), oriented)
        for one, sweep in zip(points, (a, b), strict=True)
    ]
    drawn = [_drawn(sweep, objectives, reference) for sweep in (a, b)]
    # two fronts without a volume have no ratio: 0 / 0 is not 1
    corrected, interval, probability = _certainty(*drawn) if any(volumes) else (None, None, None)
    return Comparison(
        a=a,
        b=b,
        objectives=objectives,
        reference=tuple(reference.tolist()),
        volumes=(volumes[0], volumes[1]),
        ratio=_finite(_ratio(np.array(volumes[1]), np.array(volumes[0]))) if any(volumes) else None,
        corrected=corrected,
        interval=interval,
        probability=probability,
        dominated=(_dominated(points[0], points[1]), _dominated(points[1], points[0])),
        warnings=tuple(_warnings(a, b)),
    )


def _points(rows: pd.DataFrame, objectives: Sequence[Objective]) -> np.ndarray:
    """Oriented (n, m), in the order of the rows."""
    return pareto.orient(rows[[one.metric for one in objectives]].to_numpy(dtype=float), objectives)


def _drawn(sweep: Sweep, objectives: Sequence[Objective], reference: np.ndarray) -> np.ndarray | None:
    """Hypervolume (draws,) of the front's trials and the bases under each draw of their true values. None without a front or
    draws."""
    front = np.flatnonzero(sweep.trials["on_front"])
    drawn = sweep.volumes(front, objectives, reference.tolist())
    return drawn if len(front) and len(drawn) > 1 else None


def _certainty(a: np.ndarray | None, b: np.ndarray | None) -> tuple[float | None, tuple[float, float] | None, float | None]:
    """The median of the ratio B / A, its interval, and the probability that B is larger."""
    if a is None or b is None:
        return None, None, None
    # Draw i weighs each document identically in both sweeps, so the sweeps pair by draw.
    count = min(len(a), len(b))
    a, b = a[:count], b[:count]
    # An order statistic, not a mean of two draws: one of them may be infinite.
    low, middle, high = np.quantile(_ratio(b, a), [(1 - LEVEL) / 2, 0.5, (1 + LEVEL) / 2], method="inverted_cdf")
    return _finite(middle), (float(low), float(high)), float(((b > a) + 0.5 * (b == a)).mean())


def _ratio(top: np.ndarray, bottom: np.ndarray) -> np.ndarray:
    """1 where both are equal, 0 included: a draw in which neither has a volume is a tie."""
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.where(top == bottom, 1.0, top / bottom)


def _finite(value: np.ndarray) -> float | None:
    return float(value) if np.isfinite(value) else None


def _dominated(points: np.ndarray, others: np.ndarray) -> np.ndarray:
    """Mask (n,) of the oriented `points` (n, m) that one of `others` dominates."""
    return np.any(pareto.dominates(others[None], points[:, None]), axis=1)


# ---------------------------------------------------------------------- in words


def verdict(comparison: Comparison) -> str:
    """The conclusion in a sentence."""
    a, b = names(comparison)
    sizes = [len(sweep.front) for sweep in (comparison.a, comparison.b)]
    if not all(sizes):
        none = f"{b if sizes[0] else a} has no" if any(sizes) else f"Neither {a} nor {b} has a"
        return f"{none} trial on its front: there is nothing to compare."
    if comparison.volumes == (0.0, 0.0):
        return f"No point of either front is better than the reference point in every objective: cannot tell {a} and {b} apart."
    if comparison.interval is None:
        return (
            f"The front of {b} dominates {_times(comparison.ratio)} the volume of {a}'s; how sure that is cannot be told "
            "without the outcomes of single documents."
        )
    low, high = comparison.interval
    span = f"{_times(comparison.corrected)} the volume of {a}'s (95 %: {low:.2f} to {_end(high)})"
    if low == high == 1:
        return f"{a} and {b} have fronts of the same volume in every draw: there is no difference."
    if low <= 1 <= high:
        return f"Cannot tell which front is better: that of {b} dominates {span}, and 1 is within the interval."
    return f"The front of {b if low > 1 else a} is the better one: that of {b} dominates {span}."


def names(comparison: Comparison) -> tuple[str, str]:
    """The sweeps' names, or where they are the same the folders that hold them."""
    a, b = comparison.a, comparison.b
    if a.name != b.name:
        return a.name, b.name
    return f"{a.folder.parent.name}/{a.folder.name} (A)", f"{b.folder.parent.name}/{b.folder.name} (B)"


def _times(ratio: float | None) -> str:
    return "a volume, not nothing beside" if ratio is None else f"{ratio:.2f} times"


def _end(high: float) -> str:
    return "any" if math.isinf(high) else f"{high:.2f}"


def _warnings(a: Sweep, b: Sweep) -> list[str]:
    """A sentence for each difference that makes the sweeps' numbers hard to compare."""
    found = []
    if a.half != b.half:
        documents = [f"the {sweep.half} half" if sweep.half else "all" for sweep in (a, b)]
        found.append(f"{a.name} is quoted on {documents[0]} of its documents, {b.name} on {documents[1]}.")
    if set(map(str, a.constraints)) != set(map(str, b.constraints)):
        named = [", ".join(map(str, sweep.constraints)) or "none" for sweep in (a, b)]
        found.append(
            f"The constraints differ ({named[0]}; {named[1]}): each front keeps its own, the volumes count where both hold."
        )
    known = [[_facts(record) for record in sweep.complete_records] for sweep in (a, b)]
    for what in known[0][0] if all(known) else ():
        sides = [set().union(*(facts[what] for facts in records)) for records in known]
        if all(sides) and sides[0] != sides[1]:
            shown = ["; ".join(sorted(side - other)) or "nothing else" for side, other in (sides, sides[::-1])]
            found.append(f"{what}: {a.name} alone has {_short(shown[0])}, {b.name} alone {_short(shown[1])}.")
    replicates = [sweep.replicates for sweep in (a, b)]
    if replicates[0] != replicates[1]:
        found.append(f"A point of {a.name} is the mean of up to {replicates[0]} trainings, one of {b.name} of {replicates[1]}.")
    return found


def _short(text: str) -> str:
    return text if len(text) <= 200 else text[:199] + "…"


def _facts(record: TrialRecord) -> dict[str, set[str]]:
    """What makes numbers comparable, by the warning about it. Only facts that differ are reported."""
    spec, base = record.spec, record.spec.base
    evaluated = {
        f"{role} {name} {labels.setting(value)}"
        for role, evaluation in spec.eval.items()
        for name, value in evaluation.model_dump(mode="json").items()
        if value is not None
    }
    stack = ("torch", "transformers", "peft", "bitsandbytes", "lm-eval")
    return {
        "They are evaluated on other documents or tasks": evaluated
        | {f"{role} on {score.n} documents" for role, score in record.scores.items() if role in spec.eval},
        "They have other bases": {
            " ".join(filter(None, (base.model, base.revision, base.gguf, base.quantization, base.dtype)))
        },
        "They ran on other hardware": {str(record.hardware.get("gpu") or record.hardware.get("cpu") or "unknown hardware")},
        "They ran with other versions": {f"{name} {record.versions[name]}" for name in stack if name in record.versions},
    }


# ---------------------------------------------------------------------- as data


def as_dict(comparison: Comparison) -> dict[str, Any]:
    """Everything as JSON values; metrics are in their own units, an infinite end of the ratio is None."""
    metrics = [one.metric for one in comparison.objectives]
    sides: dict[str, Any] = {}
    for place, (name, sweep) in enumerate({"a": comparison.a, "b": comparison.b}.items()):
        front = [
            {
                "number": int(row["number"]),
                "key": row["key"],
                "metrics": {one: {"value": plain(row[one]), "stderr": plain(row[col.se(one)])} for one in metrics},
                "dominated": beaten,
            }
            for row, beaten in front_rows(comparison, place)
        ]
        sides[name] = {"name": sweep.name, "folder": str(sweep.folder), "hypervolume": comparison.volumes[place]}
        sides[name] |= {"dominated": comparison.coverage[place], "front": front}
    found = {"verdict": verdict(comparison), "objectives": [one.model_dump() for one in comparison.objectives]}
    names = ("reference", "ratio", "corrected", "interval", "probability", "warnings")
    return found | {name: plain(getattr(comparison, name)) for name in names} | sides


def front_rows(comparison: Comparison, place: int) -> Iterator[tuple[dict[Any, Any], bool]]:
    """The rows of A's front (place 0) or B's (1), each with whether the other front dominates it."""
    front = (comparison.a, comparison.b)[place].front
    return zip(front.to_dict("records"), comparison.dominated[place].tolist(), strict=True)
