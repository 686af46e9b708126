"""The results of a sweep: its front as files, as a table and in a report."""

from pathlib import Path
from typing import Any

from orchestrator.console.front_table import front_table
from orchestrator.console.terminal import Terminal
from trials.ledger.storage import root


def finish(storage: str | Path, name: str, console: Terminal | None) -> dict[str, Any]:
    """Exports the front, writes the report and prints both to the console.

    Returns the `front`'s rows, the written `files`, and how many trials are `complete` and `failed`.
    """
    from analysis.export.files import export, front_rows
    from analysis.report.build import write_report
    from analysis.report.findings import headline, quoted
    from analysis.results.load import load

    sweep = load(root(storage) / name)
    written = [*export(sweep), write_report(sweep)]
    if console is not None:
        if len(sweep.front):  # the table of an empty one is the headline
            console.print(headline(sweep))
        console.print(front_table(sweep))
        if sweep.half is not None:
            console.print(quoted(sweep))
        for path in written:
            if path.suffix == ".png" or path.name == "report.html":
                console.print(str(path), soft_wrap=True)
    counts = {"complete": sweep.states["complete"], "failed": sweep.states["failed"]}
    return {"front": front_rows(sweep), "files": [str(path) for path in written], **counts}
