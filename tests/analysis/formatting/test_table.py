"""Tables have the same cells in every form."""

from markupsafe import Markup, escape

from analysis.export.markup import PLAIN, markdown, tabular
from analysis.export.templates import HTML
from analysis.formatting.table import Beside, Column, Table

SHOWN = Table.of([Column("name"), Column("gain", number=True)], [("a|b", Beside("+1.0", "0 to 2")), ("<c>", Beside("–", ""))])


def test_small_print_is_in_brackets_in_plain_text():
    assert str(Beside("+1.0", "0 to 2")) == "+1.0 (0 to 2)"
    assert escape(Beside("<", "0 to 2")) == Markup("&lt; <i>0 to 2</i>")
    assert str(Beside("+1.0", "")) == escape(Beside("+1.0", "")) == "+1.0"


def test_rows_become_columns_and_back():
    assert [column.name for column in SHOWN.columns] == ["name", "gain"]
    assert [str(cell) for row in SHOWN.rows for cell in row] == ["a|b", "+1.0 (0 to 2)", "<c>", "–"]
    assert Table.of([Column("name")], []).rows == []


def test_every_form_escapes_every_cell():
    page = HTML.from_string('{% from "page.html.j2" import show %}{{ show(table) }}').render(table=SHOWN)
    assert '<td data-name="name">&lt;c&gt;</td>' in page and 'class="num">+1.0 <i>0 to 2</i></td>' in page
    assert markdown(SHOWN).splitlines()[1:] == ["| --- | ---: |", "| a\\|b | +1.0 (0 to 2) |", "| \\<c\\> | – |"]
    tex = tabular(SHOWN, rules=PLAIN).splitlines()
    assert tex[0] == r"\begin{tabular}{lr}" and tex[1] == r"\hline"
    assert tex[5] == r"{}\textless{}c\textgreater{} & -- \\"
