"""The list of ablations on a terminal."""

import io

from orchestrator.ablations.run import GPUS
from orchestrator.console.ablation_table import table
from orchestrator.console.terminal import Terminal


def test_unknown_and_tiny_costs_are_marked():
    hours = dict(zip(GPUS, [None, 0.01, 12.3], strict=False))
    shown = Terminal(file=io.StringIO(), width=160)
    shown.print(table([{"name": "q1", "question": "Does it?", "trials": 4, "derived": 0, "gpu_hours": hours}]))
    row = next(line for line in shown.file.getvalue().splitlines() if line.strip().startswith("q1"))
    cells = ["?", "< 0.1", "12.3"][: len(GPUS)]
    assert [part.strip() for part in row.split("  ") if part.strip()] == ["q1", "Does it?", "4", "-", *cells]
