"""The points of an ablation's figure: the rows of the sweep that its `FigureSpec` selects, in lines, and their values."""

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

LINES = 8  # in colour; more cannot be told apart, and stand behind in grey
NAMES = {
    "data.samples": "training rows",
    "derive.samples": "training rows",
    "derive.rank": "rank that is kept",
    "derive.strength": "strength of the adapter",
    "derive.off": "switched off",
    "base.model": "base",
}
_AS_TRAINED = {"derive.samples": "data.samples", "derive.rank": "lora.rank", "derive.strength": 1.0}
"""x of a point that nothing was derived from: another path's value, or a number."""
_DERIVED = ("derive.off", "derive.samples", "derive.rank", "derive.strength")


@dataclass(frozen=True)
class Line:
    """Points that are joined: rows of the sweep's trials with x in the column "x"."""

    label: str
    rows: pd.DataFrame


def lines(answer: Answer, spec: FigureSpec) -> list[Line]:
    """A line for each combination of what `by` may be; with more of them than can be told apart, for each setting that varies.

    Rows that lack a path of `by` (nothing replayed has no source) begin every line, where x is a setting with an order.
    """
    rows = rows_of(answer, spec)
    if rows.empty:
        return []
    groups: dict[tuple[str, ...], list[Any]] = {}
    for index, row in rows.iterrows():
        groups.setdefault(tuple(key(row[path]) for path in spec.by), []).append(index)
    if len(groups) > LINES and (families := _families(rows, spec.by)):
        return families
    found = {key: rows.loc[places] for key, places in groups.items()}
    lacking = [key for key in found if "" in key]
    if 0 < len(lacking) < len(found) and not is_metric(spec.x) and ordered(rows["x"]):
        shared = pd.concat([found.pop(key) for key in lacking])
        found = {key: pd.concat([shared, group]) for key, group in found.items()}
    several = _varied(rows, spec.by)
    return [Line(", ".join(_value(path, group[path].iloc[-1]) for path in several), group) for group in found.values()]


def rows_of(answer: Answer, spec: FigureSpec) -> pd.DataFrame:
    """The complete rows that `only` leaves, in order of x where that has one; derived ones where the figure is about these."""
    sweep = answer.sweep
    if sweep is None:
        return pd.DataFrame()
    rows = sweep.complete
    for path in [spec.x, *spec.by, *spec.only]:
        if path not in rows:  # the same in all points: the trials' specs have it
            rows = rows.assign(**{path: [_setting(sweep, key, path) for key in rows["key"]]})
    usual = {path: [None, 1.0] if path == "derive.strength" else None for path in _DERIVED}
    usual = {path: value for path, value in usual.items() if path in rows and path not in (spec.x, *spec.by)}
    for path, wanted in (usual | spec.only).items():
        keys = {key(one) for one in (wanted if isinstance(wanted, (list, tuple)) else [wanted])}
        rows = rows[[key(value) in keys for value in rows[path]]]
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
    return _setting(sweep, row["key"], trained) if null(row.get(trained)) else row[trained]


def _setting(sweep: Sweep, key: str, path: str) -> Any:
    """The value of a trial's spec at `path`; None where it has none."""
    found: Any = sweep.records[key].spec
    for name in path.split("."):
        found = getattr(found, name, None)
    return found


def _families(rows: pd.DataFrame, by: Sequence[str]) -> list[Line]:
    """A line for each path of `by`: the rows that differ from what is usual in it. Empty where some differ in several."""
    keys = rows[list(by)].map(key)
    other = keys != keys.mode().iloc[0]
    if (other.sum(axis=1) > 1).any():
        return []
    names = other.idxmax(axis=1).map(path_name).where(other.any(axis=1), "none of these")
    return [Line(str(name), group) for name, group in rows.groupby(names, sort=False)]


def similarities(answer: Answer, spec: FigureSpec) -> dict[str, np.ndarray]:
    """The similarities, (layers,), of each line by its name."""
    sweep, rows, by = answer.sweep, rows_of(answer, spec), spec.by or (spec.x,)
    if sweep is None or rows.empty:
        return {}
    keys = {trial.number: trial.keys for trial in Manifest.read(sweep.folder).trials}
    several = _varied(rows, by) or by
    found: dict[str, list[list[float]]] = {}
    for row in rows.to_dict("records"):
        records = [sweep.records[key] for key in keys[row["number"]] if key in sweep.records]
        alike = [layers for record in records for layers in record.similarity.values()]
        found.setdefault(", ".join(_value(path, row[path]) for path in several), []).extend(alike)
    lengths = {len(one) for ones in found.values() for one in ones}
    return {name: np.mean(ones, axis=0) for name, ones in found.items() if ones} if len(lengths) == 1 else {}


def _varied(rows: pd.DataFrame, paths: Sequence[str]) -> list[str]:
    return [path for path in paths if rows[path].map(key).nunique() > 1]


def path_name(path: str) -> str:
    """A setting as people call it: "replay share" for data.replay.share."""
    return NAMES.get(path, " ".join(path.split(".")[1:] or [path]).replace("_", " "))


def is_metric(name: str) -> bool:
    try:
        split_metric(name)
    except InputError:
        return False
    return True


def _value(path: str, value: Any) -> str:
    """A setting of a line: numbers with their name, texts alone."""
    if null(value):
        return f"no {path_name(path).split()[-1]}"
    return text(value) if isinstance(value, str) else f"{path_name(path)} {text(value)}"


def text(value: Any) -> str:
    value = value.item() if isinstance(value, np.generic) else value
    return "none" if null(value) else labels.setting(value).rsplit("/", 1)[-1]


def null(value: Any) -> bool:
    return value is None or value != value


def ordered(values: Any) -> bool:
    return all(isinstance(one, (int, float, np.number)) and not isinstance(one, bool) and not null(one) for one in values)


def key(value: Any) -> str:
    """Equal of equal values: of numbers whatever their type, of all else of one type."""
    return "" if null(value) else f"{float(value):.9g}" if ordered([value]) else repr(value)
