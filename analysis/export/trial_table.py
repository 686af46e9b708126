"""Tables of trials as the report shows them: what was set, what came of it with its interval, how far that can be believed."""

from collections.abc import Collection, Iterator
from typing import Any

import numpy as np
import pandas as pd
from markupsafe import Markup

from analysis.formatting import labels, numbers
from analysis.metrics.names import split_metric
from analysis.results.sweep import Sweep

Cell = tuple[Any, Any, str]
"""Text, what it sorts by (None where the text will do), class."""


def listing(sweep: Sweep, rows: pd.DataFrame, flags: pd.Series, pages: Collection[int], brief: bool) -> dict[str, Any]:
    """`rows` of `sweep.trials` for the templates' `show`: heads (text, meaning, is a number) and rows of cells.

    `flags` holds the words of each row's failure signatures, by the frame's index; `pages` the trials that have a page. A
    `brief` table is of one state: it says neither state, time and key nor the score of a role that decides nothing, but every
    interval.
    """
    metrics = [name for name in shown_metrics(sweep) if not brief or not name.endswith(".value") or name in sweep.judged]
    flagged = bool(len(rows)) and any(flags[index] for index in rows.index)
    heads = list(_heads(sweep, rows, metrics, brief, flagged))
    cells = []
    for index, row in zip(rows.index, rows.to_dict("records"), strict=True):
        kind = standing(row)
        line = list(_cells(sweep, row, kind, metrics, pages, brief, flags[index] if flagged else None))
        cells.append({"kind": kind, "id": "" if brief else f"row-{row['number']}", "cells": line})
    return {"heads": heads, "rows": cells}


def standing(row: dict[Any, Any]) -> str:
    if row["state"] != "complete":
        return str(row["state"])
    if row["on_front"]:
        return "front"
    return "dominated" if row["feasible"] else "outside"


def shown_metrics(sweep: Sweep) -> list[str]:
    """What decides, then each role's score; a forgetting rate comes after its drop, which is steady where the rate is not."""
    found = []
    for name in sweep.judged:
        role, kind = split_metric(name)
        found += [f"{role}.drop", name] if kind == "forgetting" and f"{role}.drop" in sweep.metrics else [name]
    return list(dict.fromkeys([*found, *(name for name in sweep.metrics if name.endswith(".value"))]))


def _heads(sweep: Sweep, rows: pd.DataFrame, metrics: list[str], brief: bool, flagged: bool) -> Iterator[tuple[str, str, bool]]:
    names = labels.setting_names(sweep.space)
    yield "trial", "its number in the sweep", True
    if not brief:
        yield "state", "front, dominated, outside the constraints, failed, given up or pending", False
    if flagged:
        yield "failure", "signatures of failure; a question mark: the interval spans the bound", False
    for path in sweep.space:
        yield names[path], path, not _is_text(rows[path])
    for name in metrics:
        yield f"{labels.metric_name(name)} ({labels.unit(name).strip()})", f"{name}, with its 95 % interval", True
    for objective in sweep.objectives:
        yield f"{labels.metric_name(objective.metric)}, corrected", "for having picked the best of many", True
    yield "P(front)", "probability that it is on the front", True
    if sweep.constraints:
        yield "P(feasible)", "probability that it keeps every constraint", True
    if not brief:
        yield "time", "all phases", True
        yield "key", "the record's folder in the ledger", False


def _cells(
    sweep: Sweep, row: dict[Any, Any], kind: str, metrics: list[str], pages: Collection[int], brief: bool, flags: str | None
) -> Iterator[Cell]:
    number = row["number"]
    yield Markup('<a href="#trial-{0}">#{0}</a>').format(number) if number in pages else f"#{number}", number, "number"
    if not brief:
        yield kind, None, "standing"
    if flags is not None:
        yield flags, None, "flag"
    for path in sweep.space:
        yield labels.setting(row[path]), _order(row[path]), ""
    for name in metrics:
        several = row[f"{name}_sd"]
        text = numbers.both(row, name) if name in sweep.judged or brief else Markup("{}").format(numbers.value(row, name))
        if not np.isnan(several):
            text += Markup(" <i>sd {}</i>").format(numbers.spread(name, several))
        yield text, _order(row[name]), ""
    for objective in sweep.objectives:
        corrected = f"{objective.metric}_corrected"
        told_as = numbers.corrected(row, objective.metric)
        yield told_as if brief else numbers.corrected_value(row, objective.metric), _order(row[corrected]), ""
    yield numbers.probability(row["p_front"]), _order(row["p_front"]), ""
    if sweep.constraints:
        yield numbers.probability(row["p_feasible"]), _order(row["p_feasible"]), ""
    if not brief:
        yield labels.duration(row["seconds"]), _order(row["seconds"]), ""
        yield row["key"] or labels.MISSING, None, "key"


def _is_text(column: pd.Series) -> bool:
    return any(not isinstance(value, (int, float, np.number)) for value in column if value is not None)


def _order(value: Any) -> Any:
    if isinstance(value, np.generic):
        value = value.item()
    if value is None or (isinstance(value, float) and not np.isfinite(value)):
        return ""
    if isinstance(value, float):
        return f"{value:.6g}"
    return value if isinstance(value, (int, str)) else labels.setting(value)
