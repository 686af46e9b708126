"""The terminal: a rich console on which nothing that others wrote is markup, an emoji code or a control sequence."""

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
