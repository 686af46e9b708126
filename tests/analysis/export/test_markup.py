"""Tables as Markdown and LaTeX."""

import pytest
from markdown_it import MarkdownIt

from analysis.export.markup import comment, latex_text, markdown_text
from tests.factories.sweeps import NASTY, WORSE


@pytest.mark.parametrize("text", [NASTY, WORSE, "plain", "", "-1.5e-3", "über"])
def test_markdown_cell_reads_as_its_text(text):
    (inline,) = [
        token for token in MarkdownIt("gfm-like", {"linkify": False}).parse(f"x {markdown_text(text)}") if token.children
    ]
    assert "".join(child.content for child in inline.children) == f"x {' '.join(text.split())}".strip()


def test_latex_escapes_its_commands():
    assert latex_text("50% of_a & {b} $x$ #1") == r"50\% of\_a \& \{b\} \$x\$ \#1"
    assert latex_text("a\\b~^") == r"a\textbackslash{}b\textasciitilde{}\textasciicircum{}"
    assert latex_text("\N{MINUS SIGN}1.5 ± 2\nnext \N{SNOWMAN} über") == r"$-$1.5 $\pm$ 2 next [U+2603] über"


def test_comment_is_one_line_for_any_text():
    assert comment("a\nb\u2028c") == "% a b c\n"
