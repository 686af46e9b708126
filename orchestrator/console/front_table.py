"""The front as a table of a terminal."""

from typing import Any

from rich import box
from rich.table import Table


def front_table(sweep: Any) -> Table | str:
    """The front; where it is empty, a sentence that says why."""
    from analysis.export import trial_table  # imports pandas, for which most commands need not wait
    from analysis.report.findings import headline

    if not len(sweep.front):
        return f"front of {sweep.name}: empty. {headline(sweep)}"
    half = f", {sweep.half} half" if sweep.half else ""
    title = f"front of {sweep.name}: {len(sweep.front)} of {len(sweep.trials)} trials{half}"
    return as_terminal(trial_table.front_table(sweep, brief=True), title)


def as_terminal(shown: Any, title: str) -> Table:
    """A table of analysis.formatting as one of a terminal."""
    made = Table(title=title, title_justify="left", box=box.SIMPLE, padding=(0, 1, 0, 0), pad_edge=False)
    for one in shown.columns:
        made.add_column(one.name.replace(" ", "\n"), justify="right" if one.number else "left", no_wrap=True)
    for row in shown.rows:
        made.add_row(*(str(cell) for cell in row))
    return made
