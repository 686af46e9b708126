"""The front as files that others read: front.csv, .json, .parquet, .html and .png, each written whole or not at all."""

import io
import json
import math
from collections.abc import Callable, Iterable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from jinja2 import Environment, PackageLoader, StrictUndefined

from analysis import labels
from analysis.load import Sweep
from analysis.metrics import split_metric
from analysis.plots import front_figure, png
from trials.errors import InputError
from trials.storage import replace_file

TEMPLATES = Environment(
    loader=PackageLoader("analysis", ""),
    autoescape=True,
    undefined=StrictUndefined,
    trim_blocks=True,
    lstrip_blocks=True,
)


def export(
    sweep: Sweep, formats: Iterable[str] = ("csv", "json", "parquet", "html", "png"), folder: Path | None = None
) -> list[Path]:
    """Writes front.FORMAT for each of `formats` to `folder` (the sweep's own when left out) and returns the paths."""
    formats = list(dict.fromkeys(formats))
    if unknown := [name for name in formats if name not in FORMATS]:
        raise InputError(f"a format of the front is one of {', '.join(FORMATS)}, but got {', '.join(unknown)}")
    written = []
    for name in formats:
        path = (folder or sweep.folder) / f"front.{name}"
        replace_file(path, partial(Path.write_bytes, data=FORMATS[name](sweep)))
        written.append(path)
    return written


def front_rows(sweep: Sweep) -> list[dict[str, Any]]:
    """The front as plain JSON values, the best in the first objective first.

    A row is {"key", "number", "params": {dotted path: value}, "metrics": {name: {"value", "stderr"}}}; where the search saw one
    half of the documents, value and stderr are of the other half and "search" is the value that the search saw. A metric of a
    trial with replicates also has "sd", the standard deviation between them, and "n", how many they are. Metrics are shares
    (0..1) but for bits per byte and nats, None where undefined.
    """
    rows = []
    for row in sweep.front.to_dict("records"):
        metrics = {name: _metric(row, name, sweep.half is not None) for name in sweep.metrics}
        params = {path: _plain(row[path]) for path in sweep.space}
        rows.append({"key": row["key"], "number": int(row["number"]), "params": params, "metrics": metrics})
    return rows


def _metric(row: Mapping[Any, Any], name: str, halves: bool) -> dict[str, Any]:
    found = {"value": _plain(row[name]), "stderr": _plain(row[f"{name}_se"])}
    found |= {"search": _plain(row[f"{name}_search"])} if halves else {}
    return found | ({"sd": _plain(row[f"{name}_sd"]), "n": row["replicates"]} if row["replicates"] > 1 else {})


def front_table(sweep: Sweep) -> pd.DataFrame:
    """The front with a column each for number, key, the searched paths, every metric and its standard error ("NAME_se").

    Where the search saw one half of the documents, what it saw is under "NAME_search". A sweep with replicates also has their
    number ("replicates") and the standard deviation between them ("NAME_sd").
    """
    several = sweep.replicates > 1
    parts = ["", "_se", *(["_search"] if sweep.half else []), *(["_sd"] if several else [])]
    columns = ["number", "key", *(["replicates"] if several else []), *sweep.space]
    columns += [f"{name}{part}" for name in sweep.metrics for part in parts]
    table = sweep.front[columns].reset_index(drop=True)
    for path in sweep.space:
        kinds = {type(value) for value in table[path] if value is not None}
        if kinds & {list, tuple, dict} or (len(kinds) > 1 and not kinds <= {int, float}):
            # a column of a table has one type: what mixes them is written as JSON
            table[path] = [None if value is None else json.dumps(value) for value in table[path]]
    return table


def _plain(value: Any) -> Any:
    """A cell as a JSON value: no numpy types, and None for what is not a finite number."""
    if isinstance(value, np.generic):
        value = value.item()
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _csv(sweep: Sweep) -> bytes:
    text: str = front_table(sweep).to_csv(index=False, lineterminator="\n")
    return text.encode()


def _json(sweep: Sweep) -> bytes:
    return (json.dumps(front_rows(sweep), indent=1, allow_nan=False) + "\n").encode()


def _parquet(sweep: Sweep) -> bytes:
    buffer = io.BytesIO()
    front_table(sweep).to_parquet(buffer, index=False)
    return buffer.getvalue()


def _html(sweep: Sweep) -> bytes:
    return TEMPLATES.get_template("front.html.j2").render(sweep=sweep, table=table_of(sweep, sweep.front)).encode()


def _png(sweep: Sweep) -> bytes:
    return png(front_figure(sweep))


FORMATS: dict[str, Callable[[Sweep], bytes]] = {"csv": _csv, "json": _json, "parquet": _parquet, "html": _html, "png": _png}


def table_of(sweep: Sweep, rows: pd.DataFrame, state: bool = False) -> dict[str, Any]:
    """Trials as the templates' `table` shows them: heads [(text, what it means, is a number)] and rows of cells.

    A cell is (text, what it sorts by, class). The metrics are those of `_shown_metrics`.
    """
    metrics = _shown_metrics(sweep)
    names = labels.setting_names(sweep.space)
    spread = ", sd: standard deviation between replicates" if sweep.replicates > 1 else ""
    heads = [("trial", "its number in the sweep", True)]
    heads += [("state", "", False)] if state else []
    heads += [(names[path], path, not _is_text(rows[path])) for path in sweep.space]
    heads += [
        (f"{labels.metric_name(name)} ({labels.unit(name).strip()})", f"{name}, ± 1 standard error{spread}", True)
        for name in metrics
    ]
    heads += [("time", "all phases", True), ("key", "the record's folder in the ledger", False)]
    cells = []
    for row in rows.to_dict("records"):
        kind = _standing(row)
        line = [(f"#{row['number']}", row["number"], "number")]
        line += [(kind, kind, "standing")] if state else []
        line += [(labels.setting(row[path]), _order(row[path]), "") for path in sweep.space]
        line += [(_with_spread(row, name), _order(row[name]), "") for name in metrics]
        key = row["key"] or labels.MISSING
        line += [(labels.duration(row["seconds"]), _order(row["seconds"]), ""), (key, key, "key")]
        cells.append({"kind": kind.split()[0], "cells": line})
    return {"heads": heads, "rows": cells}


def _with_spread(row: Mapping[Any, Any], name: str) -> str:
    text, sd = labels.percent(name, row[name], row[f"{name}_se"]), row[f"{name}_sd"]
    return text if math.isnan(sd) else f"{text}, sd {labels.scale(name) * sd:.{1 if labels.scale(name) == 100 else 3}f}"


def _shown_metrics(sweep: Sweep) -> list[str]:
    """What decides, then each role's score; a forgetting rate comes after its drop, which is steady where the rate is not."""
    found = []
    for name in sweep.judged:
        role, kind = split_metric(name)
        found += [f"{role}.drop", name] if kind == "forgetting" and f"{role}.drop" in sweep.metrics else [name]
    return list(dict.fromkeys([*found, *(name for name in sweep.metrics if name.endswith(".value"))]))


def _standing(row: Mapping[Any, Any]) -> str:
    if row["state"] != "complete":
        return str(row["state"])
    if row["on_front"]:
        return "front"
    return "dominated" if row["feasible"] else "outside"


def _is_text(column: pd.Series) -> bool:
    return any(not isinstance(value, (int, float, np.number)) for value in column if value is not None)


def _order(value: Any) -> Any:
    value = _plain(value)
    return "" if value is None else value if isinstance(value, (int, float, str)) else labels.setting(value)
