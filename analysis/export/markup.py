"""Tables for a paper (LaTeX) and for a README or an issue (Markdown). Every text stays text."""

import unicodedata
from collections.abc import Iterable, Sequence
from typing import Any

from markupsafe import Markup

from analysis.formatting.table import Table

_LATEX = {
    "\\": r"\textbackslash{}", "{": r"\{", "}": r"\}", "$": r"\$", "&": r"\&", "%": r"\%", "#": r"\#", "_": r"\_",
    "~": r"\textasciitilde{}", "^": r"\textasciicircum{}", "<": r"\textless{}", ">": r"\textgreater{}", "|": r"\textbar{}",
    '"': r"\textquotedbl{}", "'": r"\textquotesingle{}", "`": r"\textasciigrave{}",
    "\N{MINUS SIGN}": "$-$", "\N{PLUS-MINUS SIGN}": r"$\pm$", "\N{EN DASH}": "--", "\N{HORIZONTAL ELLIPSIS}": r"\ldots{}",
    "\N{LESS-THAN OR EQUAL TO}": r"$\leq$", "\N{GREATER-THAN OR EQUAL TO}": r"$\geq$",
}  # fmt: skip
_MARKDOWN = "\\`*_[]|~$<>&:@"  # characters with a meaning within a cell: the last two make links of addresses
_LAST_PLAIN = "\u017f"  # the last letter that every LaTeX sets without a further package
BOOKTABS = (r"\toprule", r"\midrule", r"\bottomrule")
PLAIN = (r"\hline", r"\hline", r"\hline")


def tabular(table: Table, columns: Sequence[str] = (), rules: Sequence[str] = BOOKTABS) -> str:
    """A LaTeX tabular. Without `columns`, numbers are aligned to the right."""
    top, middle, bottom = rules
    columns = columns or ["r" if one.number else "l" for one in table.columns]
    # an empty group first: a leading "[" would be an argument of the row end before it
    head, *rows = ["{}" + " & ".join(map(latex_text, row)) + r" \\" for row in _lines(table)]
    return "\n".join([rf"\begin{{tabular}}{{{''.join(columns)}}}", top, head, middle, *rows, bottom, r"\end{tabular}", ""])


def comment(text: str) -> str:
    """A comment of one line, for any text."""
    return f"% {_one_line(text)}\n"


def latex_text(text: Any) -> str:
    """Any text as LaTeX that prints it; a character without a letter in plain LaTeX as its code point, [U+2603]."""
    return "".join(_LATEX.get(one, one if one <= _LAST_PLAIN else f"[U+{ord(one):04X}]") for one in _one_line(text))


def markdown(table: Table) -> Markup:
    """A table of GitHub-flavoured Markdown."""
    head, *rows = [[markdown_text(cell) for cell in row] for row in _lines(table)]
    ways = ["---:" if one.number else "---" for one in table.columns]
    return Markup("".join(f"| {' | '.join(row)} |\n" for row in (head, ways, *rows)))


def _lines(table: Table) -> Iterable[Sequence[Any]]:
    return [[one.name for one in table.columns], *table.rows]


def markdown_text(text: Any) -> str:
    """Any text as Markdown that shows it, without a link, emphasis, markup or further column."""
    escaped = "".join(f"\\{one}" if one in _MARKDOWN else one for one in _one_line(text))
    return escaped.replace("www.", "www\\.")


def _one_line(text: Any) -> str:
    """The text without control characters and any of Unicode's line ends."""
    return " ".join("".join(" " if unicodedata.category(one) in ("Cc", "Zl", "Zp", "Cs") else one for one in str(text)).split())
