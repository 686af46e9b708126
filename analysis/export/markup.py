"""The front as a table for a paper (LaTeX, booktabs) and for a README or an issue (Markdown). Whatever a text holds stays text.

Both show what the HTML table shows: trial, settings, the metrics that decide and each role's score, ± one standard error.
"""

import unicodedata
from collections.abc import Sequence
from typing import Any

Table = dict[str, Any]
"""As `export.table_of` makes it: heads [(text, meaning, is a number)], rows of cells (text, what it sorts by, class)."""

_LATEX = {
    "\\": r"\textbackslash{}", "{": r"\{", "}": r"\}", "$": r"\$", "&": r"\&", "%": r"\%", "#": r"\#", "_": r"\_",
    "~": r"\textasciitilde{}", "^": r"\textasciicircum{}", "<": r"\textless{}", ">": r"\textgreater{}", "|": r"\textbar{}",
    '"': r"\textquotedbl{}", "'": r"\textquotesingle{}", "`": r"\textasciigrave{}",
    "\N{MINUS SIGN}": "$-$", "\N{PLUS-MINUS SIGN}": r"$\pm$", "\N{EN DASH}": "--", "\N{HORIZONTAL ELLIPSIS}": r"\ldots{}",
    "\N{LESS-THAN OR EQUAL TO}": r"$\leq$", "\N{GREATER-THAN OR EQUAL TO}": r"$\geq$",
}  # fmt: skip
_MARKDOWN = "\\`*_[]|~$<>&:@"  # what means anything within a cell: the last two make links of addresses
_LAST_PLAIN = "\u017f"  # of the letters that every LaTeX sets without a further package


def latex(table: Table, name: str, command: str) -> str:
    """A tabular; in its head what it needs and, as comments, what it is of and what made it."""
    heads, rows = table["heads"], table["rows"]
    columns = "".join("r" if is_number else "l" for _, _, is_number in heads)
    lines = [
        f"% The Pareto front of {_one_line(name)}, made by: {_one_line(command)}",
        r"% Needs \usepackage{booktabs,textcomp} and \usepackage[T1]{fontenc}. The ± is one standard error.",
        rf"\begin{{tabular}}{{{columns}}}",
        r"\toprule",
        _latex_line([text for text, _, _ in heads]),
        r"\midrule",
        *(_latex_line([text for text, _, _ in row["cells"]]) for row in rows),
        r"\bottomrule",
        r"\end{tabular}",
    ]
    return "\n".join(lines) + "\n"


def _latex_line(cells: Sequence[Any]) -> str:
    # an empty group first: a row that began with "[" would be an argument of the row end before it
    return "{}" + " & ".join(latex_text(cell) for cell in cells) + r" \\"


def latex_text(text: Any) -> str:
    """Any text as LaTeX that prints it; a character that plain LaTeX has no letter for as its code point, [U+2603]."""
    return "".join(_LATEX.get(one, one if one <= _LAST_PLAIN else f"[U+{ord(one):04X}]") for one in _one_line(text))


def markdown(table: Table) -> str:
    """A table of GitHub-flavoured Markdown."""
    heads = table["heads"]
    ways = ["---:" if is_number else "---" for _, _, is_number in heads]
    lines = [_markdown_line([text for text, _, _ in heads]), f"| {' | '.join(ways)} |"]
    lines += [_markdown_line([text for text, _, _ in row["cells"]]) for row in table["rows"]]
    return "\n".join(lines) + "\n"


def _markdown_line(cells: Sequence[Any]) -> str:
    return f"| {' | '.join(markdown_text(cell) for cell in cells)} |"


def markdown_text(text: Any) -> str:
    """Any text as Markdown that shows it: no link, no emphasis, no markup, no further column."""
    told = "".join(f"\\{one}" if one in _MARKDOWN else one for one in _one_line(text))
    return told.replace("www.", "www\\.")


def _one_line(text: Any) -> str:
    """Without control characters and line ends, of which Unicode has more than one."""
    return " ".join("".join(" " if unicodedata.category(one) in ("Cc", "Zl", "Zp", "Cs") else one for one in str(text)).split())
