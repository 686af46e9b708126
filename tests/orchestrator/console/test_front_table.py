"""The terminal shows the front that the exports hold."""

import io

from analysis.export.markup import markdown
from analysis.export.trial_table import front_table as exported
from orchestrator.console.front_table import front_table
from orchestrator.console.terminal import Terminal
from tests.factories.sweeps import Builder


def test_terminal_and_markdown_have_the_same_cells(tmp_path):
    sweep = Builder(tmp_path).baseline().add((26, 37)).add((24, 40)).add((40, 10)).load()
    terminal = Terminal(width=200, file=io.StringIO())
    terminal.print(front_table(sweep))
    seen = terminal.file.getvalue()
    assert "front of quickstart: 2 of 3 trials" in seen
    for row in exported(sweep, brief=True).rows:
        assert " ".join(map(str, row)) in " ".join(seen.split())
    assert all(cell in markdown(exported(sweep)) for cell in ("+12.0 ± 4.6", "+7.5 ± 4.2"))


def test_empty_front_says_why_in_place_of_a_table(tmp_path):
    sweep = Builder(tmp_path).baseline().add((40, 10)).load()
    terminal = Terminal(width=200, file=io.StringIO())
    terminal.print(front_table(sweep))
    assert terminal.file.getvalue() == (
        "front of quickstart: empty. The only finished trial does not keep math forgetting within 10 %.\n"
    )
