"""Tables for readers, column by column, for HTML, Markdown, LaTeX and terminals."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

from markupsafe import Markup


@dataclass(frozen=True)
class Beside:
    """A value with small print beside it, which is in brackets in a form without small print."""

    value: Any
    small: str

    def __str__(self) -> str:
        return f"{self.value} ({self.small})" if self.small else str(self.value)

    def __html__(self) -> Markup:
        return Markup("{} <i>{}</i>").format(self.value, self.small) if self.small else Markup("{}").format(self.value)


@dataclass(frozen=True)
class Column:
    name: str
    title: str = ""
    """Its meaning, if the name is short."""
    number: bool = False
    kind: str = ""
    """CSS class of its cells."""
    cells: Sequence[Any] = ()
    order: Sequence[Any] = ()
    """Sort keys of the cells, if their text does not sort."""


@dataclass(frozen=True)
class Table:
    columns: Sequence[Column]
    kinds: Sequence[str] = ()
    """CSS class of each row, if rows differ."""
    ids: Sequence[str] = ()

    @classmethod
    def of(cls, columns: Sequence[Column], rows: Sequence[Sequence[Any]]) -> "Table":
        """From rows of cells, in the order of `columns`."""
        return cls([replace(one, cells=[row[n] for row in rows]) for n, one in enumerate(columns)])

    @property
    def rows(self) -> list[tuple[Any, ...]]:
        return list(zip(*(one.cells for one in self.columns), strict=True))

    def cells(self, row: int) -> Iterator[tuple[Column, Any, Any]]:
        """(column, text, sort key or None) of a row."""
        for one in self.columns:
            yield one, one.cells[row], one.order[row] if one.order else None
