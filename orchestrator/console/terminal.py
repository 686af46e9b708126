"""A rich console that shows foreign text as text: no markup, no emoji codes, no control sequences."""

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stdout
from typing import Any

from rich.console import Console
from rich.text import Text

from trials.printable import printable


class Terminal(Console):
    """Every printed string passes `printable`, in cells and titles of tables too; a rich Text does not."""

    def __init__(self, **settings: Any):
        super().__init__(highlight=False, markup=False, emoji=False, **settings)

    def render_str(self, text: str, **settings: Any) -> Text:
        return super().render_str(printable(text), **settings)


@contextmanager
def only_json(wanted: bool) -> Iterator[None]:
    """Sends everything that is printed to standard error, so that standard output holds JSON alone."""
    if not wanted:
        yield
        return
    # on the file descriptor: Ray's C++ code prints past every Python stream when it loses its head node
    sys.stdout.flush()
    kept = os.dup(1)
    os.dup2(2, 1)
    try:
        with redirect_stdout(sys.stderr):
            yield
    finally:
        os.dup2(kept, 1)
        os.close(kept)
