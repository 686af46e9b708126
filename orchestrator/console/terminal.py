"""The terminal: a rich console on which nothing that others wrote is markup, an emoji code or a control sequence."""

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stdout
from typing import Any

from rich.console import Console
from rich.text import Text

from trials.printable import printable


class Terminal(Console):
    """Every string that is printed, cells and titles of tables included, passes `printable`; a Text is its maker's."""

    def __init__(self, **settings: Any):
        super().__init__(highlight=False, markup=False, emoji=False, **settings)

    def render_str(self, text: str, **settings: Any) -> Text:
        return super().render_str(printable(text), **settings)


@contextmanager
def only_json(wanted: bool) -> Iterator[None]:
    """Where JSON is wanted on standard output, all that is printed meanwhile goes to standard error.

    Ray's C++ code prints some forty lines to standard output when it loses its head node, past every Python stream.
    """
    if not wanted:
        yield
        return
    sys.stdout.flush()
    kept = os.dup(1)
    os.dup2(2, 1)
    try:
        with redirect_stdout(sys.stderr):
            yield
    finally:
        os.dup2(kept, 1)
        os.close(kept)
