"""Status counts the trials by state and shows failures and front."""

import io

from orchestrator.console.status import show, summary
from orchestrator.console.terminal import Terminal
from tests.factories.sweeps import Builder


def test_states_are_counted_and_shown(tmp_path):
    sweep = Builder(tmp_path).baseline().add((26, 37)).add((24, 40)).load()
    found = summary(sweep)
    assert (found["complete"], found["failed"], found["given_up"], found["pending"]) == (2, 0, 0, 0)
    terminal = Terminal(width=200, file=io.StringIO())
    show(sweep, terminal)
    assert "quickstart: 2" in terminal.file.getvalue() and "front of quickstart" in terminal.file.getvalue()
