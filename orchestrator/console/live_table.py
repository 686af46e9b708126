"""A table that is redrawn in place: on a terminal by rich, in a notebook as one output of its cell."""

import io
import os
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager

from rich.console import Console, RenderableType
from rich.live import Live

from orchestrator.console.terminal import Terminal

_NOTEBOOK_SECONDS = 2.0  # between two drawings in a notebook
_PAGE = "<pre style='font-family:monospace;line-height:1.3;white-space:pre;overflow-x:auto'>{code}</pre>"


@contextmanager
def live_table(table: Callable[[], RenderableType], console: Console) -> Iterator[bool]:
    """Shows the table within the context, again and again; False where nothing can be redrawn, and nothing is shown."""
    if console.quiet:
        yield False
    elif console.is_jupyter:
        with _notebook(table):
            yield True
    elif redraws(console):
        with Live(get_renderable=table, console=console, refresh_per_second=2):
            yield True
    else:
        yield False


def redraws(console: Console, environment: Mapping[str, str] = os.environ) -> bool:
    """Whether the console is a terminal whose cursor can move.

    A command that a notebook starts, with `!` even on a pseudo-terminal, writes into the cell, which only grows. The kernel
    sets FORCE_COLOR, by which rich takes every pipe for a terminal.
    """
    in_a_cell = "JPY_PARENT_PID" in environment or "inline" in environment.get("MPLBACKEND", "")
    return console.is_terminal and console.file.isatty() and not in_a_cell


@contextmanager
def _notebook(table: Callable[[], RenderableType]) -> Iterator[None]:
    from IPython.display import HTML, display

    shown = display(HTML(html(table())), display_id=True)
    over = threading.Event()

    def draw() -> None:
        while not over.wait(_NOTEBOOK_SECONDS):
            shown.update(HTML(html(table())))

    thread = threading.Thread(target=draw, name="table in the notebook", daemon=True)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()
        shown.update(HTML(html(table())))


def html(*shown: RenderableType) -> str:
    """What a terminal would show, as HTML with its markup escaped."""
    terminal = Terminal(record=True, file=io.StringIO(), width=160, force_jupyter=False, force_terminal=False)
    for one in shown:
        terminal.print(one)
    return terminal.export_html(inline_styles=True, code_format=_PAGE)
