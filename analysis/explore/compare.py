"""Two sweeps with the same objectives: which front is the better one, and whether that can be told.

Compared are the trials on each sweep's front, as that sweep's search chose them, by the metrics as they are told (where there
are halves, on the one that no search has seen). Both volumes are measured from one reference point. Their ratio's interval
comes from draws of the trials' true values (`Sweep.draws`): in one draw every document weighs the same in both sweeps, so that
what both have answered pairs.
"""

import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from analysis.formatting import labels
from analysis.metrics.names import Objective
from analysis.results import schema as col
from analysis.results.sweep import Sweep
from analysis.stats import pareto
from trials.errors import InputError
from trials.ledger.record import TrialRecord

LEVEL = 0.95


@dataclass(frozen=True)
class Comparison:
    """Of sweep B with sweep A. Volumes are in the product of the objectives' own units."""

    a: Sweep
    b: Sweep
    objectives: tuple[Objective, ...]
    """In A's order."""
    reference: tuple[float, ...]
    volumes: tuple[float, float]
    ratio: float | None
    """Volume of B over that of A, as measured; None where A's is 0."""
    corrected: float | None
    """The median over the draws, which know that the best of many was picked; None without draws or volumes, and where it is
    infinite."""
    interval: tuple[float, float] | None
    """95 %, of the ratio; the upper end is inf where A may be worth nothing. None without draws or volumes."""
    probability: float | None
    """That B's true volume is the larger one; equal ones count half. None without draws or volumes."""
    dominated: tuple[np.ndarray, np.ndarray]
    """Masks over `a.front` and `b.front`: what a point of the other front dominates, being no worse and better in one."""
    warnings: tuple[str, ...]

    @property
    def coverage(self) -> tuple[float | None, float | None]:
        """Share of A's front that B's dominates, and the reverse; None for a front without a point."""
        shares = [float(mask.mean()) if len(mask) else None for mask in self.dominated]
        return shares[0], shares[1]


def compare(a: Sweep, b: Sweep) -> Comparison:
    """Raises InputError where the objectives differ; what else differs is in `warnings`."""
    if set(a.objectives) != set(b.objectives):
        told = [", ".join(f"{one.metric} {one.direction}" for one in sweep.objectives) for sweep in (a, b)]
        raise InputError(f"the sweeps have other objectives: {a.name} has {told[0]}, {b.name} has {told[1]}")
    objectives = a.objectives
    untuned = [sweep.complete_baselines.min(numeric_only=True) for sweep in (a, b)]
    names = {name for one in untuned for name in one.index if name.endswith(".value")}
    least = {name: min(one[name] for one in untuned if name in one) for name in names}
    reference = pareto.reference_point(objectives, [*a.constraints, *b.constraints], least)
    oriented = pareto.orient(reference, objectives)
    points = [_points(sweep, objectives) for sweep in (a, b)]
    volumes = [pareto.hypervolume(one, oriented) for one in points]
    drawn = [_drawn(sweep, objectives, oriented) for sweep in (a, b)]
    # two fronts without a volume have no ratio: 0 / 0 is not 1
    corrected, interval, probability = _certainty(drawn) if any(volumes) else (None, None, None)
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


def _points(sweep: Sweep, objectives: Sequence[Objective]) -> np.ndarray:
    """Oriented (n, m), in the order of `sweep.front`."""
    return pareto.orient(sweep.front[[one.metric for one in objectives]].to_numpy(dtype=float), objectives)


def _drawn(sweep: Sweep, objectives: Sequence[Objective], reference: np.ndarray) -> np.ndarray | None:
    """Volume (draws,) of the front's trials under each draw of their true values; None without a front, or without draws."""
    on_front = sweep.trials["on_front"].to_numpy(dtype=bool)
    draws = sweep.draws
    if not len(draws) or not on_front.any():
        return None
    columns = [sweep.judged.index(one.metric) for one in objectives]
    points = pareto.orient(draws[:, on_front][:, :, columns], objectives)
    if not np.isfinite(points).all():
        return None
    return np.array([pareto.hypervolume(one, reference) for one in points])


def _certainty(drawn: Sequence[np.ndarray | None]) -> tuple[float | None, tuple[float, float] | None, float | None]:
    """The median of the ratio B / A, its interval, and the probability that B is larger."""
    one, other = drawn
    if one is None or other is None:
        return None, None, None
    count = min(len(one), len(other))
    ratios = _ratio(other[:count], one[:count])
    # an order statistic, not a mean of two: one of them may be infinite
    low, middle, high = np.quantile(ratios, [(1 - LEVEL) / 2, 0.5, (1 + LEVEL) / 2], method="inverted_cdf")
    larger = (other[:count] > one[:count]) + 0.5 * (other[:count] == one[:count])
    return _finite(middle), (float(low), float(high)), float(larger.mean())


def _ratio(top: np.ndarray, bottom: np.ndarray) -> np.ndarray:
    """1 where both are equal, 0 included (a draw without either volume is a tie); inf where the bottom alone is 0."""
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.where(top == bottom, 1.0, top / bottom)


def _finite(value: np.ndarray) -> float | None:
    return float(value) if np.isfinite(value) else None


def _dominated(points: np.ndarray, others: np.ndarray) -> np.ndarray:
    """Mask (n,) of the oriented `points` (n, m) that one of `others` dominates."""
    return np.any(pareto.dominates(others[None], points[:, None]), axis=1)


# ---------------------------------------------------------------------- in words


def verdict(comparison: Comparison) -> str:
    """What can be said, in one or two sentences."""
    a, b = _named(comparison)
    sizes = [len(sweep.front) for sweep in (comparison.a, comparison.b)]
    if not all(sizes):
        bare = a if not sizes[0] else b
        none = f"Neither {a} nor {b} has" if not any(sizes) else f"{bare} has no"
        return f"{none} {'a ' if not any(sizes) else ''}trial on its front: there is nothing to compare."
    if comparison.volumes == (0.0, 0.0):
        return f"No point of either front is better than the reference point in every objective: cannot tell {a} and {b} apart."
    if comparison.interval is None:
        return (
            f"The front of {b} dominates {_times(comparison.ratio)} the volume of {a}'s; how sure that is cannot be told, for "
            "the outcomes of single documents are missing."
        )
    low, high = comparison.interval
    span = f"{_times(comparison.corrected)} the volume of {a}'s (95 %: {low:.2f} to {_end(high)})"
    if low == high == 1:
        return f"{a} and {b} have fronts of the same volume in every draw: there is no difference."
    if low <= 1 <= high:
        return f"Cannot tell which front is better: that of {b} dominates {span}, and 1 is within the interval."
    return f"The front of {b if low > 1 else a} is the better one: that of {b} dominates {span}."


def _named(comparison: Comparison) -> tuple[str, str]:
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
    """What makes the sweeps' numbers hard to compare, a sentence each."""
    found = []
    if a.half != b.half:
        told = [f"the {sweep.half} half" if sweep.half else "all" for sweep in (a, b)]
        found.append(f"{a.name} is told on {told[0]} of its documents, {b.name} on {told[1]}.")
    if set(map(str, a.constraints)) != set(map(str, b.constraints)):
        told = [", ".join(map(str, sweep.constraints)) or "none" for sweep in (a, b)]
        found.append(
            f"The constraints differ ({told[0]}; {told[1]}): each front keeps its own, the volumes count where both hold."
        )
    for what, of in _ASPECTS.items():
        sides = [{fact for record in sweep.complete_records for fact in of(record)} for sweep in (a, b)]
        if all(sides) and sides[0] != sides[1]:
            shown = ["; ".join(sorted(side - other)) or "nothing else" for side, other in (sides, sides[::-1])]
            found.append(f"{what}: {a.name} alone has {_short(shown[0])}, {b.name} alone {_short(shown[1])}.")
    replicates = [sweep.replicates for sweep in (a, b)]
    if replicates[0] != replicates[1]:
        found.append(f"A point of {a.name} is the mean of up to {replicates[0]} trainings, one of {b.name} of {replicates[1]}.")
    return found


def _short(text: str) -> str:
    return text if len(text) <= 200 else text[:199] + "…"


def _evaluated(record: TrialRecord) -> Iterator[str]:
    """What the roles' scores depend on, a fact each, so that only those that differ are told."""
    for role, evaluation in record.spec.eval.items():
        for name, value in evaluation.model_dump(mode="json").items():
            if value is not None:
                yield f"{role} {name} {labels.setting(value)}"
        if role in record.scores:
            yield f"{role} on {record.scores[role].n} documents"


def _base(record: TrialRecord) -> Iterator[str]:
    base = record.spec.base
    parts = (base.model, base.revision, base.gguf, base.quantization, base.dtype)
    yield " ".join(part for part in parts if part is not None)


def _machine(record: TrialRecord) -> Iterator[str]:
    yield str(record.hardware.get("gpu") or record.hardware.get("cpu") or "unknown hardware")


def _stack(record: TrialRecord) -> Iterator[str]:
    for name in ("torch", "transformers", "peft", "bitsandbytes", "lm-eval"):
        if name in record.versions:
            yield f"{name} {record.versions[name]}"


_ASPECTS: dict[str, Callable[[TrialRecord], Iterable[str]]] = {
    "They are evaluated on other documents or tasks": _evaluated,
    "They have other bases": _base,
    "They ran on other hardware": _machine,
    "They ran with other versions": _stack,
}


# ---------------------------------------------------------------------- as data


def as_dict(comparison: Comparison) -> dict[str, Any]:
    """Everything as JSON values; `front` of a sweep has a row per point, metrics in their own units.

    A ratio's end that is infinite is None.
    """
    sides = {}
    for name, sweep, mask, volume, share in zip(
        "ab",
        (comparison.a, comparison.b),
        comparison.dominated,
        comparison.volumes,
        comparison.coverage,
        strict=True,
    ):
        metrics = [one.metric for one in comparison.objectives]
        rows = [
            {
                "number": int(row["number"]),
                "key": row["key"],
                "metrics": {
                    metric: {"value": _known(row[metric]), "stderr": _known(row[col.se(metric)])} for metric in metrics
                },
                "dominated": bool(beaten),
            }
            for row, beaten in zip(sweep.front.to_dict("records"), mask, strict=True)
        ]
        sides[name] = {
            "name": sweep.name,
            "folder": str(sweep.folder),
            "hypervolume": volume,
            "dominated": share,
            "front": rows,
        }
    return {
        "verdict": verdict(comparison),
        "objectives": [{"metric": one.metric, "direction": one.direction} for one in comparison.objectives],
        "reference": list(comparison.reference),
        "ratio": comparison.ratio,
        "corrected": comparison.corrected,
        "interval": None if comparison.interval is None else [_known(end) for end in comparison.interval],
        "probability": comparison.probability,
        "warnings": list(comparison.warnings),
        **sides,
    }


def _known(value: float) -> float | None:
    return float(value) if math.isfinite(value) else None


def rows(comparison: Comparison) -> list[list[str]]:
    """Of the table of both fronts: sweep, trial, each objective ± its standard error, whether the other front dominates it."""
    found = []
    named = zip(_named(comparison), (comparison.a, comparison.b), comparison.dominated, strict=True)
    for name, sweep, mask in named:
        for row, beaten in zip(sweep.front.to_dict("records"), mask, strict=True):
            values = [labels.percent(one.metric, row[one.metric], row[col.se(one.metric)]) for one in comparison.objectives]
            found.append([name, f"#{row['number']}", *values, "yes" if beaten else "no", row["key"]])
    return found


def heads(comparison: Comparison) -> list[str]:
    shown = [labels.column(one.metric) for one in comparison.objectives]
    return ["sweep", "trial", *shown, "dominated by the other", "key"]
