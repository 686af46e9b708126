"""A sweep as files for other programs, each written whole or not at all; docs/exports.md documents their content.

front.FORMAT holds the front, trials.FORMAT all trials, figures/ the figures and their data, optuna.db an Optuna study.
"""

import io
import json
import re
from collections.abc import Callable, Iterable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import pandas as pd

from analysis.explore.selection import groups, knee
from analysis.export.markup import comment, markdown, tabular
from analysis.export.plain import plain
from analysis.export.templates import HTML
from analysis.export.trial_table import front_table
from analysis.figures.front import front_figure, front_svg
from analysis.figures.theme import png, svg
from analysis.report.findings import headline, quoted
from analysis.results import schema as col
from analysis.results.sweep import Sweep
from trials.errors import InputError
from trials.ledger.storage import refuse_link, replace_file

_FORMULA = re.compile(r"'*[=+\-@\t\n]")


def export(
    sweep: Sweep, formats: Iterable[str] = ("csv", "json", "parquet", "html", "png"), folder: Path | None = None
) -> list[Path]:
    """Writes front.FORMAT for each of `formats` to `folder` (default: the sweep's own) and returns the paths.

    The format "study" is optuna.db, all trials as an Optuna study.
    """
    formats = list(dict.fromkeys(formats))
    if unknown := [name for name in formats if name not in (*FORMATS, STUDY)]:
        raise InputError(f"a format of the front is one of {', '.join((*FORMATS, STUDY))}, but got {', '.join(unknown)}")
    folder = folder or sweep.folder
    return [
        _study(sweep, folder) if name == STUDY else _write(folder / f"front.{name}", FORMATS[name](sweep)) for name in formats
    ]


def export_trials(sweep: Sweep, formats: Iterable[str] = ("csv", "json", "parquet"), folder: Path | None = None) -> list[Path]:
    """Writes trials.FORMAT, all trials with every column, for those of `formats` that hold data."""
    written = {"csv": trials_table, "parquet": trials_table, "json": trial_rows}
    return [
        _write((folder or sweep.folder) / f"trials.{name}", ENCODED[name](written[name](sweep)))
        for name in dict.fromkeys(formats)
        if name in written
    ]


def export_figures(sweep: Sweep, folder: Path | None = None) -> list[Path]:
    """Writes figures/NAME.png, .svg and their data as .csv, for each figure that the sweep has data for."""
    from analysis.figures.sweep import FIGURES

    written = []
    for name, figured in FIGURES.items():
        figure = figured.draw(sweep)
        if figure is not None:
            place = refuse_link((folder or sweep.folder) / "figures")
            made = {"png": png(figure), "svg": svg(figure), "csv": _encoded_csv(figured.data(sweep))}
            written += [_write(place / f"{name}.{kind}", data) for kind, data in made.items()]
    return written


def _write(path: Path, data: bytes) -> Path:
    replace_file(path, partial(Path.write_bytes, data=data))
    return path


def _study(sweep: Sweep, folder: Path) -> Path:
    from analysis.explore.optuna_study import write

    path = folder / "optuna.db"
    replace_file(path, partial(write, sweep))
    return path


def front_rows(sweep: Sweep) -> list[dict[str, Any]]:
    """The front as plain JSON values, the best in the first objective first; docs/exports.md names the fields.

    Metrics are shares (0..1), bits per byte or nats per token; None if undefined.
    """
    rows = []
    group, best = groups(sweep), knee(sweep)
    for row in sweep.front.to_dict("records"):
        number = int(row["number"])
        metrics = {name: _metric(row, name, sweep.half is not None) for name in sweep.metrics}
        params = {path: plain(row[path]) for path in sweep.space}
        written = {"key": row["key"], "number": number, "params": params, "metrics": metrics}
        written |= {"p_front": plain(row["p_front"]), "p_feasible": plain(row["p_feasible"])}
        rows.append(written | {"group": int(group[number]), "knee": number == best})
    return rows


def trial_rows(sweep: Sweep) -> list[dict[str, Any]]:
    """All trials by number as plain JSON values: "params" and "metrics" as in `front_rows`, every other column by its name.

    A metric has all its columns: "value", "stderr", and the others by the ending of their name ("sd", "search", "low").
    """
    endings: dict[str, dict[str, str]] = {}
    for column in sweep.trials.columns:
        # the longest match: "math.forgetting" is also a prefix of "math.forgetting_rate"
        name = max((one for one in sweep.metrics if column == one or column.startswith(f"{one}_")), key=len, default=None)
        if name is not None:
            ending = column.removeprefix(name).removeprefix("_")
            endings.setdefault(name, {})[{"": "value", "se": "stderr"}.get(ending, ending)] = column
    taken = {column for of_metric in endings.values() for column in of_metric.values()} | set(sweep.space)
    rows = []
    for row in sweep.trials.to_dict("records"):
        written: dict[str, Any] = {str(name): plain(value) for name, value in row.items() if name not in taken}
        written["params"] = {path: plain(row[path]) for path in sweep.space}
        written["metrics"] = {
            name: {ending: plain(row[column]) for ending, column in endings[name].items()} for name in sweep.metrics
        }
        rows.append(written)
    return rows


def trials_table(sweep: Sweep) -> pd.DataFrame:
    """All trials with every column of `Sweep.trials`; a setting of several types is written as JSON."""
    return _of_one_type(sweep.trials, sweep.space)


def _metric(row: Mapping[Any, Any], name: str, halves: bool) -> dict[str, Any]:
    best = col.corrected(name)
    columns = {"value": name, "stderr": col.se(name), "low": col.low(name), "high": col.high(name)}
    columns |= {"corrected": best, "corrected_low": col.low(best), "corrected_high": col.high(best)}
    found = {key: plain(row[column]) for key, column in columns.items() if column in row}
    found |= {"search": plain(row[col.searched(name)])} if halves else {}
    return found | ({"sd": plain(row[col.sd(name)]), "n": row["replicates"]} if row["replicates"] > 1 else {})


def front_frame(sweep: Sweep) -> pd.DataFrame:
    """The front as front.csv and front.parquet: a column for each setting by dotted path, and for each part of a metric."""
    several = sweep.replicates > 1
    parts: list[Callable[[str], str]] = [str, col.se, col.low, col.high, col.corrected]
    parts += [col.searched] if sweep.half else []
    parts += [col.sd] if several else []
    columns = ["number", "key", "p_front", "p_feasible", *(["replicates"] if several else []), *sweep.space]
    columns += [part(name) for name in sweep.metrics for part in parts if part(name) in sweep.trials]
    return _of_one_type(sweep.front[columns].reset_index(drop=True), sweep.space)


def _of_one_type(rows: pd.DataFrame, paths: Iterable[str]) -> pd.DataFrame:
    table = rows.copy()
    for path in paths:
        kinds = {type(value) for value in table[path] if value is not None}
        if kinds & {list, tuple, dict} or (len(kinds) > 1 and not kinds <= {int, float}):
            # a column of a table has one type: mixed types are written as JSON
            table[path] = [None if value is None else json.dumps(value) for value in table[path]]
    return table


def _encoded_csv(table: pd.DataFrame) -> bytes:
    text: str = table.rename(columns=_defused).map(_defused).to_csv(index=False, lineterminator="\n")
    return text.encode()


def _defused(cell: Any) -> Any:
    """The cell, after an apostrophe if a spreadsheet would run it as a formula; removing one apostrophe restores it."""
    if not isinstance(cell, str):
        return cell
    cell = cell.replace("\r\n", "\n").replace("\r", "\n")  # the CSV writer does not quote a lone \r, which would end the row
    if not _FORMULA.match(cell):
        return cell
    try:
        float(cell)
    except ValueError:
        return f"'{cell}"
    return cell


def _encoded_json(rows: list[dict[str, Any]]) -> bytes:
    return (json.dumps(rows, indent=1, allow_nan=False) + "\n").encode()


def _encoded_parquet(table: pd.DataFrame) -> bytes:
    buffer = io.BytesIO()
    table.to_parquet(buffer, index=False)
    return buffer.getvalue()


def _html(sweep: Sweep) -> bytes:
    said = {"headline": headline(sweep), "quoted": quoted(sweep) if sweep.half is not None else None}
    page = HTML.get_template("front.html.j2")
    return page.render(sweep=sweep, picture=front_svg(sweep, ()), table=front_table(sweep), **said).encode()


def _tex(sweep: Sweep) -> bytes:
    made_by = f"slimsweep front {sweep.folder} --format tex"
    needs = "% Needs \\usepackage{booktabs,textcomp} and \\usepackage[T1]{fontenc}. The ± is one standard error,\n"
    needs += "% brackets are 95 % intervals.\n"
    head = comment(f"The Pareto front of {sweep.name}, made by: {made_by}")
    return (head + needs + tabular(front_table(sweep))).encode()


ENCODED: dict[str, Callable[[Any], bytes]] = {"csv": _encoded_csv, "json": _encoded_json, "parquet": _encoded_parquet}
FORMATS: dict[str, Callable[[Sweep], bytes]] = {
    "csv": lambda sweep: _encoded_csv(front_frame(sweep)),
    "json": lambda sweep: _encoded_json(front_rows(sweep)),
    "parquet": lambda sweep: _encoded_parquet(front_frame(sweep)),
    "html": _html,
    "png": lambda sweep: png(front_figure(sweep)),
    "svg": lambda sweep: svg(front_figure(sweep)),
    "tex": _tex,
    "md": lambda sweep: markdown(front_table(sweep)).encode(),
}
STUDY = "study"
