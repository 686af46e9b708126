"""A template of a task writes what lm-eval's would, reaches no Python object, and ends."""

import resource
from pathlib import Path

import lm_eval.utils
import pytest
import yaml
from jinja2 import BaseLoader, Environment, StrictUndefined, UndefinedError, meta
from jinja2.exceptions import SecurityError

from trials.data.sandbox import ERRORS
from trials.tasks import templates

DOC = {"question": "How many?", "choices": ["1", "2"], "text": "a\\nb"}


@pytest.fixture(autouse=True)
def installed():
    templates.install()


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
    assert lm_eval.utils.apply_template(template, DOC) == expected


def test_template_that_runs_code_is_refused():
    with pytest.raises(SecurityError):
        lm_eval.utils.apply_template("{{ ''.__class__.__mro__[1].__subclasses__() }}", DOC)


ENDLESS = [
    "{% for a in range(99999) %}{% for b in range(99999) %}{% endfor %}{% endfor %}",
    "{% macro m(n) %}{% if n %}{{ m(n - 1) }}{{ m(n - 1) }}{% endif %}{% endmacro %}{{ m(60) }}",
    "{% set n = namespace(x='x') %}{% for i in range(60) %}{% set n.x = n.x ~ n.x %}{% endfor %}{{ n.x }}",
    "{% set n = namespace(x=[0]) %}{% for i in range(60) %}{% set n.x = n.x + n.x %}{% endfor %}{{ n.x }}",
    "{% set x = 'x' * 100000 %}{% for i in range(90000) %}{{ x }}{% endfor %}",
    "{{ 'x' * 10 ** 10 }}",
    "{{ 10 ** 10 * [0] }}",
    "{{ 10 ** (10 ** 10) }}",
    "{{ 'x'.ljust(10 ** 10) }}",
    "{{ 'x'.zfill(10 ** 10) }}",
    "{{ 'x' | center(10 ** 10) }}",
    "{{ ['x'] | map('center', 10 ** 10) | list }}",
    "{{ 'x\n' * 1000 | indent(1000000) }}",
    "{{ ('x\n' * 1000) | indent(1000000) }}",
    "{{ ('x ' * 100000) | wordwrap(1, wrapstring='y' * 100000) }}",
    "{{ '%10000000000d' % 1 }}",
    "{{ '%*d' % (10 ** 10, 1) }}",
    "{{ '%10000000000d' | format(1) }}",
    "{{ '{:>10000000000}'.format(1) }}",
    "{{ '{:>{}}'.format(1, 10 ** 10) }}",
    "{{ '{:>{a}}'.format(1, a=10 ** 10) }}",
    "{{ '{a:>{b}}'.format_map({'a': 1, 'b': 10 ** 10}) }}",
    "{{ ('x' * 100000).replace('x', 'y' * 100000) }}",
    "{{ ('x' * 100000) | replace('x', 'y' * 100000) }}",
    "{{ ('y' * 100000).join('x' * 100000) }}",
    "{{ ('x' * 100000) | join('y' * 100000) }}",
    "{{ ('x\t' * 100000).expandtabs(1000000) }}",
    "{{ range(10 ** 10) }}",
    "{{ lipsum(10 ** 6) }}",
    "{{ ('a' * 40 ~ 'b') | regex_replace('(a|aa)+$', '') }}",
    "{{ [[0]] | tojson(indent=10 ** 9) }}",
    "{{ [0] | batch(10 ** 10, 0) | list }}",
    "{{ [0] | slice(10 ** 10) | list }}",
]


@pytest.mark.parametrize("template", ENDLESS)
def test_template_that_would_not_end_or_would_fill_the_memory_is_refused(template):
    before = resource.getrusage(resource.RUSAGE_SELF)
    with pytest.raises((SecurityError, UndefinedError, OverflowError, TypeError)):
        lm_eval.utils.apply_template(template, DOC)
    after = resource.getrusage(resource.RUSAGE_SELF)
    assert after.ru_maxrss - before.ru_maxrss < 2**20, "KiB"


@pytest.mark.slow
def test_lm_evals_own_templates_write_what_they_wrote():
    """Over rows of texts, of lists, of numbers and of mappings; a template that raises for one raises here, too."""
    theirs = Environment(loader=BaseLoader(), undefined=StrictUndefined, keep_trailing_newline=True)
    theirs.filters["regex_replace"] = lm_eval.utils.regex_replace
    compared = 0
    for template in own_templates():
        names = sorted(meta.find_undeclared_variables(theirs.parse(template)))
        for value in ("Two words.\nAnd more? x_y", ["A b", "c", "D e"], 1, {"text": ["u", "v"], "label": ["A", "B"], "a": 1}):
            row = dict.fromkeys(names, value)
            expected = rendered(theirs, template, row)
            assert rendered(lm_eval.utils.env, template, row) == expected, template
            compared += expected is not None
    assert compared > 5000


def own_templates() -> set[str]:
    class Loader(yaml.SafeLoader):
        """Reads `!function` as nothing."""

    Loader.add_multi_constructor("!", lambda loader, suffix, node: None)
    found: set[str] = set()
    for path in (Path(lm_eval.__file__).parent / "tasks").rglob("*.y*ml"):
        text = path.read_text(encoding="utf-8")
        if "{{" in text or "{%" in text:
            todo = [yaml.load(text, Loader)]  # a SafeLoader
            while todo:
                one = todo.pop()
                todo += one.values() if isinstance(one, dict) else one if isinstance(one, list) else ()
                found |= {one} if isinstance(one, str) and ("{{" in one or "{%" in one) else set()
    return found


def rendered(environment, template: str, row: dict) -> str | None:
    try:
        return environment.from_string(template).render(**row)
    except ERRORS:  # what a template raises for a row of another kind is its own affair
        return None


def test_template_is_compiled_once():
    assert lm_eval.utils.env.from_string("{{a}}") is lm_eval.utils.env.from_string("{{a}}")


def test_unknown_column_is_named_with_the_columns():
    with pytest.raises(templates.UnknownColumn) as caught:
        lm_eval.utils.apply_template("{{queston}}", DOC)
    assert str(caught.value) == "'queston' is undefined; did you mean 'question'? the columns are question, choices, text"
    assert caught.value.template == "{{queston}}"
