"""A replayed sweep as a table: a row for each set of levers."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from rich import box
from rich.table import Table

from analysis.explore.replay import SHARE, Stored


def table(rows: Sequence[Mapping[str, Any]]) -> Table:
    made = Table(box=box.SIMPLE, padding=(0, 1, 0, 0), pad_edge=False)
    made.add_column("levers")
    for column in (f"time to {SHARE:.0%} of the hypervolume", "time of everything", "front found"):
        made.add_column(column, justify="right", no_wrap=True)
    for row in rows:
        made.add_row(" + ".join(row["levers"]), *(_spread(row[name]) for name in ("time", "whole", "recall")))
    return made


def _spread(values: Sequence[float]) -> str:
    """ "0.41 (0.22 to 0.80)": median and range over the orders."""
    return f"{np.median(values):.2f} ({min(values):.2f} to {max(values):.2f})"


def words(sweep: Stored, orders: int) -> str:
    return (
        f"{len(sweep.points)} points, {len(sweep.front)} of them on the front; median and range over {orders} random orders, "
        "times over those of the same order without levers"
    )
