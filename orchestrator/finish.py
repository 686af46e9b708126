"""What a sweep comes to: its front as files, as a table and in a report."""

from pathlib import Path
from typing import Any

from rich import box
from rich.console import Console
from rich.table import Table

from analysis.formatting import labels
from trials.ledger.storage import root


def finish(storage: str | Path, name: str, console: Console | None) -> dict[str, Any]:
    """Exports the front, writes the report and prints both where there is a console; returns `front`, its rows, `files`, and
    how many trials are `complete` and how many `failed`."""
    from analysis.export.files import export, front_rows
    from analysis.report.build import headline, quoted, write_report
    from analysis.results.sweep import load

    sweep = load(root(storage) / name)
    written = [*export(sweep), write_report(sweep)]
    if console is not None:
        console.print(headline(sweep))
        console.print(front_table(sweep))
        if sweep.half is not None:
            console.print(quoted(sweep))
        for path in written:
            if path.suffix == ".png" or path.name == "report.html":
                console.print(str(path), soft_wrap=True)
    states = list(sweep.trials["state"])
    counts = {state: states.count(state) for state in ("complete", "failed")}
    return {"front": front_rows(sweep), "files": [str(path) for path in written], **counts}


def front_table(sweep: Any) -> Table:
    title = f"front of {sweep.name}: {len(sweep.front)} of {len(sweep.trials)} trials"
    table = Table(title=title, title_justify="left", box=box.SIMPLE, padding=(0, 1, 0, 0), pad_edge=False)
    table.add_column("trial", justify="right")
    for metric in sweep.judged:  # in the unit of the headline above it
        head = f"{labels.metric_name(metric)} ({labels.unit(metric).strip()})"
        table.add_column(head.replace(" ", "\n"), justify="right", no_wrap=True)
    for path in sweep.space:
        table.add_column(path.rpartition(".")[2].replace("_", "\n"), justify="right", no_wrap=True)
    table.add_column("key", no_wrap=True)
    for row in sweep.front.to_dict("records"):
        metrics = [labels.percent(name, row[name], row[f"{name}_se"]) for name in sweep.judged]
        params = [labels.setting(row[path]) for path in sweep.space]
        table.add_row(str(row["number"]), *metrics, *params, row["key"])
    return table
