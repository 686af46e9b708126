"""Scores of a published adapter on a terminal."""

import io
import re

from analysis.formatting import labels
from orchestrator.console.publish_table import table
from orchestrator.console.terminal import Terminal


def row(role: str, baseline: dict | None, scale: float = 1.0) -> list[str]:
    """The cells of a role whose score is 0.5 (0.4 to 0.6) times `scale`."""
    merged = {"value": 0.5 * scale, "low": 0.4 * scale, "high": 0.6 * scale}
    difference = {"value": 0.0, "low": -0.01, "high": 0.01}
    one = {"n": 24, "baseline": baseline, "adapter": merged, "merged": merged, "difference": difference}
    shown = Terminal(file=io.StringIO(), width=160)
    shown.print(table({"key": "0123456789abcdef", "roles": {role: one}}))
    lines = shown.file.getvalue().splitlines()
    assert "%" not in lines[0]
    return re.split(r"\s{2,}", next(line for line in lines if line.strip().startswith(role)).strip())


def test_role_without_baseline_has_a_dash():
    assert row("math", None) == [
        "math",
        "24",
        "-",
        "50.0 [40.0, 60.0]",
        "50.0 [40.0, 60.0]",
        "0.0 [\N{MINUS SIGN}1.0, +1.0]",
        "%",
    ]


def test_role_that_is_no_share_has_its_own_unit(monkeypatch):
    monkeypatch.setattr(labels, "_NO_SHARES", {"notes"})
    wide = "61.000 [48.800, 73.200]"
    assert row("notes", {"value": 55.0, "low": None, "high": None}, scale=122) == [
        *("notes", "24", "55.000", wide, wide, "0.000 [\N{MINUS SIGN}0.010, +0.010]")
    ]
