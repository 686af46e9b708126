"""Scores of a published adapter on a terminal."""

import io

from orchestrator.console.publish_table import table
from orchestrator.console.terminal import Terminal


def test_role_without_baseline_has_a_dash():
    merged = {"value": 0.5, "low": 0.4, "high": 0.6}
    math = {
        "n": 24,
        "baseline": None,
        "adapter": merged,
        "merged": merged,
        "difference": {"value": 0.0, "low": -0.01, "high": 0.01},
    }
    shown = Terminal(file=io.StringIO(), width=160)
    shown.print(table({"key": "0123456789abcdef", "roles": {"math": math}}))
    row = next(line for line in shown.file.getvalue().splitlines() if line.strip().startswith("math"))
    assert row.split(maxsplit=3)[:3] == ["math", "24", "-"]
    assert "50.0 [40.0, 60.0]" in row and "+0.0 [-1.0, +1.0]" in row
