"""The command `slimsweep replay`."""

import json
import os
from typing import Annotated

import typer

from orchestrator.console.terminal import Terminal
from trials.ledger.storage import root


def replay(
    folder: Annotated[str, typer.Argument(help="A sweep's folder: runs/quickstart.", show_default=False)],
    orders: Annotated[int, typer.Option(min=1, help="Number of random orders of the points.")] = 10,
    as_json: Annotated[bool, typer.Option("--json", help="Prints JSON.")] = False,
) -> None:
    """Replays a finished sweep under levers that spend less on losers, and compares time and front.

    Example: slimsweep replay runs/quickstart
    """
    from analysis.explore.replay import saving, stored
    from analysis.results.load import load
    from orchestrator.console import replay_table

    found = stored(load(root(folder)))
    rows = list(saving(found, orders))
    if as_json:
        numbers = {"points": len(found.points), "front": len(found.front), "orders": orders, "levers": rows}
        print(json.dumps(numbers, indent=1, allow_nan=False))
    else:
        out = Terminal(width=None if os.isatty(1) else 160)
        out.print(replay_table.table(rows))
        out.print(replay_table.words(found, orders))
