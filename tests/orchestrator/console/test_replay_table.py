"""A replay is shown as medians with their ranges."""

from orchestrator.console.replay_table import table


def test_row_shows_median_and_range():
    row = {"levers": ["racing", "nested"], "time": [0.2, 0.4, 0.8], "whole": [0.5], "recall": [1.0]}
    cells = [next(iter(column.cells)) for column in table([row]).columns]
    assert cells == ["racing + nested", "0.40 (0.20 to 0.80)", "0.50 (0.50 to 0.50)", "1.00 (1.00 to 1.00)"]
