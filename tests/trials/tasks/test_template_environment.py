"""A template of a task writes what lm-eval's would, and reaches no Python object."""

import numpy as np
import pytest
from jinja2.exceptions import SecurityError

from trials.tasks.template_environment import UnknownColumn, environment

DOC = {"question": "How many?", "choices": ["1", "2"], "text": "a\\nb"}


def render(template, doc):
    return environment().from_string(template).render(**doc)


@pytest.mark.parametrize(
    ("template", "expected"),
    [
        ("Q: {{question}}\n", "Q: How many?\n"),
        ("{{choices[1]}} of {{choices|length}}", "2 of 2"),
        ("{% for one in choices %}{{loop.index}}.{{one}} {% endfor %}", "1.1 2.2 "),
        ("{{question.strip('?').upper()}}", "HOW MANY"),
        ("{{question|regex_replace('m.n', 'M')}}", "How My?"),
    ],
)
def test_templates_write_what_they_wrote(template, expected):
    assert render(template, DOC) == expected


def test_template_that_runs_code_is_refused():
    with pytest.raises(SecurityError):
        render("{{ ''.__class__.__mro__[1].__subclasses__() }}", DOC)


class Foreign:
    def sum(self):
        raise AssertionError

    max = round = sum


def test_template_writes_no_file_by_a_method_of_a_rows_value(tmp_path):
    row = {"audio": np.arange(3), "path": str(tmp_path / "written")}
    with pytest.raises(SecurityError, match="tofile of ndarray"):
        render("{{ audio.tofile(path) }}", row)
    assert not (tmp_path / "written").exists()
    for method in ("sum", "max", "round"):  # of numpy alone: another type's method of that name may do anything
        with pytest.raises(SecurityError, match="sum of Foreign"):
            render(f"{{{{ a.{method}() }}}}", {"a": Foreign()})
    assert render("{{ audio.sum() }}", row) == "3"
    with pytest.raises(SecurityError, match="sub of Pattern"):
        render("{% macro m(x) %}{{ x.re.sub('a', 'b') }}{% endmacro %}{{ 'a' | regex_replace('a', m) }}", DOC)
    assert render("{{ audio.tolist() }} {{ 'a-b'.split('-') }} {{ '{}'.format(1) }}", row) == ("[0, 1, 2] ['a', 'b'] 1")


def test_template_is_compiled_once():
    templates = environment()
    assert templates.from_string("{{a}}") is templates.from_string("{{a}}")


def test_unknown_column_is_named_with_the_columns():
    with pytest.raises(UnknownColumn) as caught:
        render("{{queston}}", DOC)
    assert str(caught.value) == "'queston' is undefined; did you mean 'question'? the columns are question, choices, text"
