"""The ablations as a table of a terminal: a row for each with its question and its cost."""

from collections.abc import Mapping, Sequence
from typing import Any

from rich import box
from rich.table import Table

from orchestrator.ablations.run import GPUS


def table(rows: Sequence[Mapping[str, Any]]) -> Table:
    """`rows` are those of orchestrator.ablations.run."""
    shown = Table(box=box.SIMPLE, padding=(0, 1, 0, 0), pad_edge=False)
    shown.add_column("name", no_wrap=True)
    shown.add_column("question", overflow="fold")
    for column in ("trials", "derived", *(f"h on {gpu}" for gpu in GPUS)):
        shown.add_column(column, justify="right", no_wrap=True)
    for row in rows:
        hours = ["?" if one is None else "< 0.1" if one < 0.1 else f"{one:.1f}" for one in row["gpu_hours"].values()]
        shown.add_row(row["name"], row["question"], str(row["trials"]), str(row["derived"] or "-"), *hours)
    return shown
