"""What a sweep comes to: its front as files, as a table and in a report."""

from pathlib import Path
from typing import Any

from rich.console import Console

from orchestrator.console.front_table import front_table
from trials.ledger.storage import root


def finish(storage: str | Path, name: str, console: Console | None) -> dict[str, Any]:
    """Exports the front, writes the report and prints both where there is a console; returns `front`, its rows, `files`, and
    how many trials are `complete` and how many `failed`."""
    from analysis.export.files import export, front_rows
    from analysis.report.build import headline, quoted, write_report
    from analysis.results.load import load

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
    counts = {"complete": sweep.states["complete"], "failed": sweep.states["failed"]}
    return {"front": front_rows(sweep), "files": [str(path) for path in written], **counts}
