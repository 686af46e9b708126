"""The scores of a published adapter as a table of a terminal."""

from collections.abc import Mapping
from typing import Any

from rich import box
from rich.table import Table

from analysis.formatting import labels


def table(published: Mapping[str, Any]) -> Table:
    """The result of `publish`: a row for each role, in its unit."""
    shown = Table(
        title=f"{published['key']} and the model that it was merged into",
        title_justify="left",
        box=box.SIMPLE,
        pad_edge=False,
    )
    for head in ("role", "documents", "baseline", "adapter (95 %)", "merged (95 %)", "merged - adapter (95 %)", "unit"):
        shown.add_column(head, justify="left" if head in ("role", "unit") else "right", no_wrap=True)
    for role, one in published["roles"].items():
        score = f"{role}.value"
        cells = [_cell(score, one[name], span) for name, span in (("baseline", False), ("adapter", True), ("merged", True))]
        cells += [_cell(f"{role}.gain", one["difference"], True), labels.unit(score).strip()]
        shown.add_row(role, str(one["n"]), *cells)
    return shown


def _cell(metric: str, one: Mapping[str, float | None] | None, span: bool) -> str:
    if one is None:
        return "-"
    value, low, high = (labels.percent(metric, one[name]) for name in ("value", "low", "high"))
    return f"{value} [{low}, {high}]" if span and one["low"] is not None else value
