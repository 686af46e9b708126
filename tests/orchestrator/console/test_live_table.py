"""A table is redrawn only where that is possible: on a terminal, or as one output of a notebook's cell."""

import io

import pytest
from rich.console import Console

from orchestrator.console.live_table import html, live_table, redraws


class Tty(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.mark.parametrize(
    ("file", "environment", "expected"),
    [
        (Tty(), {}, True),
        (io.StringIO(), {}, False),
        (io.StringIO(), {"FORCE_COLOR": "1"}, False),  # a pipe from a notebook, or CI with colours
        (Tty(), {"JPY_PARENT_PID": "7"}, False),  # `!slimsweep run` in a notebook
        (Tty(), {"MPLBACKEND": "module://matplotlib_inline.backend_inline"}, False),
    ],
)
def test_only_a_terminal_of_its_own_is_redrawn(file, environment, expected):
    console = Console(file=file, _environ={"TERM": "xterm", **environment})
    assert redraws(console, environment) is expected


def test_pipe_gets_no_table():
    console = Console(file=io.StringIO(), _environ={"FORCE_COLOR": "1"})
    with live_table(lambda: "a table", console) as shown:
        assert shown is False
    assert console.file.getvalue() == ""


def test_markup_and_control_characters_of_names_stay_text_in_a_notebook():
    page = html("<script>alert(1)</script> [red]x[/] \x1b[2J")
    assert "<script>" not in page
    assert "&lt;script&gt;" in page and "[red]x" in page and "\\x1b" in page
