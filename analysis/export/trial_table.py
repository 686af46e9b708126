"""Tables of trials: the front for terminal, files and pictures, and the report's longer tables."""

from collections.abc import Collection, Iterator, Sequence
from typing import Any

import numpy as np
import pandas as pd
from markupsafe import Markup

from analysis.export.plain import plain
from analysis.formatting import labels, numbers
from analysis.formatting.table import Column, Table
from analysis.metrics.names import split_metric
from analysis.results import schema as col
from analysis.results.sweep import Sweep


def front_table(sweep: Sweep, brief: bool = False) -> Table:
    """The front: trial, settings, metrics ± one standard error (with their 95 % interval where that is 0), time, key.

    A `brief` table has the metrics of objectives and constraints only, and no time.
    """
    rows = sweep.front
    meaning = "± 1 standard error, or with its 95 % interval where no document changed" + (
        ", sd: standard deviation between replicates" if sweep.replicates > 1 else ""
    )
    metrics = [
        _metric(rows, name, meaning, [numbers.with_error(row, name) for row in rows.to_dict("records")])
        for name in (sweep.judged if brief else shown_metrics(sweep))
    ]
    work = _work(rows)[1 if brief else 0 :]
    columns = [_trials(rows, ()), *_settings(sweep, rows), *metrics, *work]
    return Table(columns, kinds=["front"] * len(rows), ids=[f"row-{number}" for number in rows["number"]])


def trial_table(sweep: Sweep, rows: pd.DataFrame, flags: pd.Series, pages: Collection[int], brief: bool) -> Table:
    """`rows` of `sweep.trials` for the report: settings, metrics with their intervals, probabilities.

    `flags` holds the failure signatures of each row by the frame's index, `pages` the trials that have a page. A `brief` table
    has every interval, but neither state, time and key nor the score of a role that decides nothing.
    """
    records = rows.to_dict("records")
    states = [standing(row) for row in records]
    parts = [_trials(rows, pages)]
    if not brief:
        meaning = "front, dominated, outside the constraints, failed, given up or pending"
        parts.append(Column("state", meaning, kind="standing", cells=states))
    if any(flags[index] for index in rows.index):
        meaning = "signatures of failure; a question mark: the interval spans the bound"
        parts.append(Column("failure", meaning, kind="flag", cells=[flags[index] for index in rows.index]))
    parts += _settings(sweep, rows)
    for name in shown_metrics(sweep):
        if brief and name.endswith(".value") and name not in sweep.judged:
            continue
        show = numbers.both if brief or name in sweep.judged else numbers.value
        cells = [_spread(row, name, show(row, name)) for row in records]
        parts.append(_metric(rows, name, "with its 95 % interval", cells))
    parts += _judgement(sweep, rows, brief)
    ids = [] if brief else [f"row-{row['number']}" for row in records]
    return Table([*parts, *([] if brief else _work(rows))], states, ids)


def standing(row: dict[Any, Any]) -> str:
    if row["state"] != "complete":
        return str(row["state"])
    if row["on_front"]:
        return "front"
    return "dominated" if row["feasible"] else "outside"


def shown_metrics(sweep: Sweep) -> list[str]:
    """The judged metrics, then each role's score. A forgetting rate follows its drop, which is steady for a low base."""
    found = []
    for name in sweep.judged:
        role, kind = split_metric(name)
        found += [f"{role}.drop", name] if kind == "forgetting" and f"{role}.drop" in sweep.metrics else [name]
    return list(dict.fromkeys([*found, *(name for name in sweep.metrics if name.endswith(".value"))]))


def _trials(rows: pd.DataFrame, pages: Collection[int]) -> Column:
    link = Markup('<a href="#trial-{0}">#{0}</a>')
    cells = [link.format(number) if number in pages else f"#{number}" for number in rows["number"]]
    return Column("trial", "its number in the sweep", number=True, kind="number", cells=cells, order=list(rows["number"]))


def _settings(sweep: Sweep, rows: pd.DataFrame) -> Iterator[Column]:
    for path, name in labels.setting_names(sweep.space).items():
        numeric = all(value is None or isinstance(value, (int, float, np.number)) for value in rows[path])
        yield Column(name, path, numeric, cells=list(map(labels.setting, rows[path])), order=_order(rows[path]))


def _metric(rows: pd.DataFrame, name: str, meaning: str, cells: Sequence[Any]) -> Column:
    return Column(labels.column(name), f"{name}, {meaning}", number=True, cells=cells, order=_order(rows[name]))


def _spread(row: dict[Any, Any], name: str, text: Any) -> Any:
    """The text with the standard deviation between replicates, if there are any."""
    sd = row[col.sd(name)]
    return text if np.isnan(sd) else Markup("{} <i>sd {}</i>").format(text, numbers.spread(name, sd))


def _judgement(sweep: Sweep, rows: pd.DataFrame, brief: bool) -> Iterator[Column]:
    for metric in (objective.metric for objective in sweep.objectives):
        if sweep.trials[col.corrected(metric)].isna().all():  # too few trials
            continue
        name, meaning = f"{labels.metric_name(metric)}, corrected", "for having picked the best of many"
        show = numbers.both if brief else numbers.value
        cells = [show(numbers.corrected(row, metric), metric) for row in rows.to_dict("records")]
        yield Column(name, meaning, number=True, cells=cells, order=_order(rows[col.corrected(metric)]))
    shares = [("p_front", "P(front)", "probability that it is on the front")]
    shares += [("p_feasible", "P(feasible)", "probability that it keeps every constraint")] if sweep.constraints else []
    for column, name, meaning in shares:
        cells = list(map(numbers.probability, rows[column]))
        yield Column(name, meaning, number=True, cells=cells, order=_order(rows[column]))


def _work(rows: pd.DataFrame) -> tuple[Column, Column]:
    times = list(map(numbers.duration, rows["seconds"]))
    return (
        Column("time", "all phases", number=True, cells=times, order=_order(rows["seconds"])),
        Column("key", "the record's folder in the ledger", kind="key", cells=[key or labels.MISSING for key in rows["key"]]),
    )


def _order(values: pd.Series) -> list[Any]:
    """Sort keys: numbers to six digits, other values as shown, an empty text for a missing one."""
    known = [plain(value) for value in values]
    texts = [f"{one:.6g}" if isinstance(one, float) else labels.setting(one) for one in known]
    return ["" if one is None else one if isinstance(one, (int, str)) else text for one, text in zip(known, texts, strict=True)]
