"""The scores of a published adapter as a table of a terminal."""

from collections.abc import Mapping
from typing import Any

from rich import box
from rich.table import Table


def table(published: Mapping[str, Any]) -> Table:
    """The result of `publish`: a row for each role, in percent."""
    shown = Table(
        title=f"{published['key']} and the model that it was merged into, %",
        title_justify="left",
        box=box.SIMPLE,
        pad_edge=False,
    )
    for head in ("role", "documents", "baseline", "adapter (95 %)", "merged (95 %)", "merged - adapter (95 %)"):
        shown.add_column(head, justify="left" if head == "role" else "right", no_wrap=True)
    for role, one in published["roles"].items():
        cells = [_percent(one[name], span) for name, span in (("baseline", False), ("adapter", True), ("merged", True))]
        shown.add_row(role, str(one["n"]), *cells, _percent(one["difference"], True, "+"))
    return shown


def _percent(one: Mapping[str, float | None] | None, span: bool, sign: str = "") -> str:
    if one is None:
        return "-"
    value, low, high = (None if part is None else f"{100 * part:{sign}.1f}" for part in (one["value"], one["low"], one["high"]))
    return f"{value} [{low}, {high}]" if span and low is not None else str(value)
