"""The points of an ablation's figure: the rows of the sweep that its `FigureSpec` selects, grouped into lines."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from analysis.ablations.answer import Answer, FigureSpec
from analysis.formatting import labels
from analysis.metrics.names import split_metric
from analysis.results.manifest import Manifest
from analysis.results.sweep import Sweep
from trials.errors import InputError

LINES = 8  # in colour; a reader cannot distinguish more, so the others are grey
NAMES = {
    "data.samples": "training rows",
    "derive.samples": "training rows",
    "derive.rank": "rank that is kept",
    "derive.strength": "strength of the adapter",
    "derive.off": "switched off",
    "base.model": "base",
}
_AS_TRAINED = {"derive.samples": "data.samples", "derive.rank": "lora.rank", "derive.strength": 1.0}
"""x of a point that is not derived: the value at another path, or a number."""
_DERIVED = ("derive.off", "derive.samples", "derive.rank", "derive.strength")


@dataclass(frozen=True)
class Line:
    """Points that are joined: rows of the sweep's trials with x in the column "x"."""

    label: str
    rows: pd.DataFrame


def lines(answer: Answer, spec: FigureSpec) -> list[Line]:
    """One line for each combination of values of `by`, or, above LINES combinations, one for each setting that varies."""
    rows = rows_of(answer, spec)
    if rows.empty:
        return []
    groups: dict[tuple[str, ...], list[Any]] = {}
    for index, row in rows.iterrows():
        groups.setdefault(tuple(key(row[path]) for path in spec.by), []).append(index)
    if len(groups) > LINES and (families := _families(rows, spec.by)):
        return families
    found = {group: rows.loc[places] for group, places in groups.items()}
    lacking = [group for group in found if "" in group]
    if 0 < len(lacking) < len(found) and not is_metric(spec.x) and ordered(rows["x"]):
        # nothing replayed has no source: such a row is the beginning of every source's line
        shared = pd.concat([found.pop(group) for group in lacking])
        found = {group: pd.concat([shared, some]) for group, some in found.items()}
    varied = _varied(rows, spec.by)
    return [Line(_label(varied, some.iloc[-1]), some) for some in found.values()]


def rows_of(answer: Answer, spec: FigureSpec) -> pd.DataFrame:
    """The complete rows that `only` selects, sorted by x if it is ordered. Derived rows only if the figure is about them."""
    sweep = answer.sweep
    if sweep is None:
        return pd.DataFrame()
    rows = sweep.complete
    for path in [spec.x, *spec.by, *spec.only]:
        if path not in rows:  # not searched: it is equal in all points, and in their specs
            rows = rows.assign(**{path: [sweep.records[key].spec.setting(path) for key in rows["key"]]})
    usual = {path: [None, 1.0] if path == "derive.strength" else None for path in _DERIVED}
    usual = {path: value for path, value in usual.items() if path in rows and path not in (spec.x, *spec.by)}
    for path, selected in (usual | spec.only).items():
        keys = {key(one) for one in (selected if isinstance(selected, (list, tuple)) else [selected])}
        rows = rows[rows[path].map(key).isin(keys)]
    x = [_x(sweep, row, spec.x) for row in rows.to_dict("records")]
    rows = rows.assign(x=pd.Series(x, rows.index, dtype=object))
    if is_metric(spec.x):
        rows = rows[~rows["x"].map(null)]
    if len(rows) and ordered(rows["x"]):
        rows = rows.sort_values("x", key=lambda column: column.astype(float), kind="stable")
    return rows


def _x(sweep: Sweep, row: dict[Any, Any], path: str) -> Any:
    if not null(row[path]):
        return row[path]
    trained = _AS_TRAINED.get(path)
    if not isinstance(trained, str):
        return trained
    return sweep.records[row["key"]].spec.setting(trained) if null(row.get(trained)) else row[trained]


def _families(rows: pd.DataFrame, by: Sequence[str]) -> list[Line]:
    """One line for each path of `by`: the rows whose value of it is not the most frequent one.

    Empty if some row differs from the most frequent values in several paths.
    """
    keys = rows[list(by)].map(key)
    other = keys != keys.mode().iloc[0]
    if (other.sum(axis=1) > 1).any():
        return []
    names = other.idxmax(axis=1).map(path_name).where(other.any(axis=1), "none of these")
    return [Line(str(name), group) for name, group in rows.groupby(names, sort=False)]


def similarities(answer: Answer, spec: FigureSpec) -> dict[str, np.ndarray]:
    """By line, the mean similarity to the base's hidden states, (layers,). Empty if the rows differ in their layers."""
    sweep, rows, by = answer.sweep, rows_of(answer, spec), spec.by or (spec.x,)
    if sweep is None or rows.empty:
        return {}
    keys = {trial.number: trial.keys for trial in Manifest.read(sweep.folder).trials}
    varied = _varied(rows, by) or by
    found: dict[str, list[list[float]]] = {}
    for _, row in rows.iterrows():
        records = [sweep.records[one] for one in keys[row["number"]] if one in sweep.records]
        found.setdefault(_label(varied, row), []).extend(layers for one in records for layers in one.similarity.values())
    lengths = {len(layers) for several in found.values() for layers in several}
    return {name: np.mean(several, axis=0) for name, several in found.items() if several} if len(lengths) == 1 else {}


def _varied(rows: pd.DataFrame, paths: Sequence[str]) -> list[str]:
    return [path for path in paths if rows[path].map(key).nunique() > 1]


def _label(paths: Sequence[str], row: pd.Series) -> str:
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


def null(value: Any) -> bool:
    return value is None or value != value


def ordered(values: Any) -> bool:
    return all(isinstance(one, (int, float, np.number)) and not isinstance(one, bool) and not null(one) for one in values)


def key(value: Any) -> str:
    """Equal for equal values: for numbers of any type, for everything else within a type."""
    return "" if null(value) else f"{float(value):.9g}" if ordered([value]) else repr(value)
