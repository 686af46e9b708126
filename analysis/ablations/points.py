"""The points of an ablation's figure: the rows of the sweep that its `FigureSpec` selects, grouped into lines."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from analysis.ablations.answer import Answer
from analysis.ablations.cells import matches, null
from analysis.ablations.questions import FigureSpec
from analysis.formatting import labels
from analysis.metrics.names import split_metric
from analysis.results.manifest import Manifest
from trials.errors import InputError
from trials.ledger.record import TrialRecord

LINES = 8  # in colour; a reader cannot distinguish more, so the others are grey
NAMES = {
    "data.samples": "training rows",
    "derive.samples": "training rows",
    "derive.rank": "rank that is kept",
    "derive.strength": "strength of the adapter",
    "derive.shallow": "strength of the first block",
    "derive.off": "switched off",
    "base.model": "base",
}
_AS_TRAINED = {"derive.samples": "data.samples", "derive.rank": "lora.rank", "derive.strength": 1.0}
"""x of a point that is not derived: the value at another path, or a number."""
Row = Mapping[str, Any]
"""A row of the sweep's trials, with x under "x"."""


@dataclass(frozen=True)
class Line:
    """Points that are joined."""

    label: str
    rows: Sequence[Row]

    def points(self, metric: str) -> list[Row]:
        """The rows that have the metric."""
        return [row for row in self.rows if not null(row.get(metric))]


def lines(answer: Answer, spec: FigureSpec) -> list[Line]:
    """One line for each combination of values of `by`, or, above LINES combinations, one for each setting that varies."""
    rows = rows_of(answer, spec)
    groups: dict[tuple[str, ...], list[Row]] = {}
    for row in rows:
        groups.setdefault(tuple(key(row[path]) for path in spec.by), []).append(row)
    if len(groups) > LINES and (families := _families(rows, spec.by)):
        return families
    lacking = [group for group in groups if "" in group]
    if 0 < len(lacking) < len(groups) and not is_metric(spec.x) and ordered(row["x"] for row in rows):
        # nothing replayed has no source: such a row is the beginning of every source's line
        shared = [row for group in lacking for row in groups.pop(group)]
        groups = {group: shared + some for group, some in groups.items()}
    varied = _varied(rows, spec.by)
    return [Line(_label(varied, some[-1]), some) for some in groups.values()]


def rows_of(answer: Answer, spec: FigureSpec) -> list[Row]:
    """The complete rows that `only` selects, sorted by x if it is ordered. Derived rows only if the figure is about them."""
    sweep = answer.sweep
    if sweep is None:
        return []
    rows: list[Row] = []
    for trial in sweep.complete.to_dict("records"):
        own = sweep.records[trial["key"]]
        # a setting that is not searched is equal in all points, and in their specs
        unsearched = {path: own.spec.setting(path) for path in (spec.x, *spec.by, *spec.only)}
        row = unsearched | {str(column): value for column, value in trial.items()}
        row["x"] = _x(own, row, spec.x)
        if matches(row, spec.only, free=(spec.x, *spec.by)) and not (is_metric(spec.x) and null(row["x"])):
            rows.append(row)
    if ordered(row["x"] for row in rows):
        rows.sort(key=lambda row: float(row["x"]))
    return rows


def _x(record: TrialRecord, row: Row, path: str) -> Any:
    if not null(row[path]):
        return row[path]
    trained = _AS_TRAINED.get(path)
    if not isinstance(trained, str):
        return trained
    return record.spec.setting(trained) if null(row.get(trained)) else row[trained]


def _families(rows: Sequence[Row], by: Sequence[str]) -> list[Line]:
    """One line for each path of `by`: the rows whose value of it is not the most frequent one.

    Empty if some row differs from the most frequent values in several paths.
    """
    usual = {}
    for path in by:
        counts = Counter(key(row[path]) for row in rows)
        usual[path] = max(sorted(counts), key=counts.__getitem__)
    families: dict[str, list[Row]] = {}
    for row in rows:
        other = [path for path in by if key(row[path]) != usual[path]]
        if len(other) > 1:
            return []
        families.setdefault(path_name(other[0]) if other else "none of these", []).append(row)
    return [Line(name, group) for name, group in families.items()]


def similarities(answer: Answer, spec: FigureSpec) -> dict[str, np.ndarray]:
    """By line, the mean similarity to the base's hidden states, (layers,). Empty if the rows differ in their layers."""
    sweep, rows, by = answer.sweep, rows_of(answer, spec), spec.by or (spec.x,)
    if sweep is None or not rows:
        return {}
    keys = {trial.number: trial.keys for trial in Manifest.read(sweep.folder).trials}
    varied = _varied(rows, by) or by
    found: dict[str, list[list[float]]] = {}  # of every source and seed
    for row in rows:
        records = [sweep.records[one] for one in keys[row["number"]] if one in sweep.records]
        found.setdefault(_label(varied, row), []).extend(layers for one in records for layers in one.similarity.values())
    lengths = {len(layers) for several in found.values() for layers in several}
    return {name: np.mean(several, axis=0) for name, several in found.items() if several} if len(lengths) == 1 else {}


def _varied(rows: Sequence[Row], paths: Sequence[str]) -> list[str]:
    return [path for path in paths if len({key(row[path]) for row in rows}) > 1]


def _label(paths: Sequence[str], row: Row) -> str:
    """ "gsm8k, rank 8": texts alone, numbers with the name of their setting."""
    parts = []
    for path in paths:
        value, name = row[path], path_name(path)
        named = text(value) if isinstance(value, str) else f"{name} {text(value)}"
        parts.append(f"no {name.split()[-1]}" if null(value) else named)
    return ", ".join(parts)


def path_name(path: str) -> str:
    """A setting's name in prose: "replay share" for data.replay.share."""
    return NAMES.get(path, " ".join(path.split(".")[1:] or [path]).replace("_", " "))


def is_metric(name: str) -> bool:
    try:
        split_metric(name)
    except InputError:
        return False
    return True


def text(value: Any) -> str:
    value = value.item() if isinstance(value, np.generic) else value
    return "none" if null(value) else labels.setting(value).rsplit("/", 1)[-1]


def ordered(values: Any) -> bool:
    return all(isinstance(one, (int, float, np.number)) and not isinstance(one, bool) and not null(one) for one in values)


def key(value: Any) -> str:
    """Equal for equal values: for numbers of any type, for everything else within a type."""
    return "" if null(value) else f"{float(value):.9g}" if ordered([value]) else repr(value)
