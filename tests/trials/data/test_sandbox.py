"""Untrusted row templates render what rows need; no attack runs code, grows without end or takes long."""

import inspect

import pytest
import transformers.utils.chat_template_utils as chat

from trials.data.sandbox import ERRORS, MISSING, Sandbox, present
from trials.errors import InputError
from trials.spec import Source
from trials.template import Reader

ROW = {
    "a": "x",
    "n": 5,
    "none": MISSING,
    "big": "y" * 1_000_000,
    "messages": [{"role": "user", "content": "hi"}, {"role": "assistant", "content": MISSING}],
}


def doubled(first: str, step: str, times: int = 60) -> str:
    return "{% set x = " + first + " %}" + ("{% set x = " + step + " %}") * times


@pytest.mark.parametrize(
    ("template", "expected"),
    [
        ("{{ a ~ none ~ n }}", "x5"),
        ("{% for m in messages if m.role == 'user' %}{{ m.content | trim }}{% endfor %}", "hi"),
        ("{{ messages | map(attribute='content') | join(';') }}", "hi;"),
        ("{% if none is none %}N{% endif %}{% if none == none %}E{% endif %}{{ none or 'd' }}", "NEd"),
        ("{{ foo | default('dflt') }}{% if foo is defined %}!{% endif %}", "dflt"),
        ("{{ '-'.join(['a', 'b']) }}{{ a.replace('x', 'yy') }}{{ 'ab' * 2 }}{{ 2 ** 10 }}", "a-byyabab1024"),
        ("{{ messages | tojson }}", '[{"role": "user", "content": "hi"}, {"role": "assistant", "content": null}]'),
        ("{% for i in range(3) %}{{ loop.index }}{% endfor %}{{ messages[0].content }}{{ 'abc'[::-1] }}", "123hicba"),
    ],
)
def test_row_templates_render(template, expected):
    assert Sandbox().compiled(template)(ROW) == expected


@pytest.mark.parametrize(
    "template",
    [
        "{{ cycler.__init__.__globals__.os.popen('touch /nowhere').read() }}",
        "{{ ''.__class__.__mro__[1].__subclasses__() }}",
        "{{ a | attr('__class__') }}",
        "{{ self._TemplateReference__context }}",
        "{{ messages.append(1) }}",
        "{% for i in range(10**9) %}{% endfor %}",
        "{% for i in range(99999) %}{% for j in range(99999) %}{% endfor %}{% endfor %}",
        "{{ 'a' * 10**9 }}",
        "{{ 'a' | center(10**9) }}",
        "{{ 'a'.ljust(10**9) }}",
        "{{ '%1000000000d' % 1 }}",
        "{{ '{:1000000000}'.format(1) }}",
        "{{ 9 ** (9 ** 9) }}",
        "{{ 5 | round(10**9, 'floor') }}",
        "{{ [1] * 10**9 }}",
        "{{ 'x' | batch(10**9, 'y') | list }}",
        "{{ big.replace('', big) }}",
        "{{ big | replace('y', big) }}",
        "{{ big.join(big.split('y')) }}",
        "{{ range(9999) | join(d=big) }}",
        "{% for i in range(99999) %}{{ big == a }}{% endfor %}",
        "{% for i in range(99999) %}" + "z" * 1000 + "{% endfor %}",
        doubled("'abcdefgh'", "x ~ x") + "{{ x | length }}",
        doubled("[1]", "[x, x]") + "{{ x | string }}",
        doubled("[1]", "[x, x]") + doubled("[1]", "[x, x]").replace("x", "y") + "{{ x == y }}",
        doubled("[1]", "x + x") + "{{ x | length }}",
        "{% macro f() %}{{ f() }}{{ f() }}{% endmacro %}{{ f() }}",
        "{% block b %}{{ self.b() }}{{ self.b() }}{% endblock %}",
        "{% for i in [1] recursive %}{{ loop([1]) }}{% endfor %}",
        "{% include '/etc/passwd' %}",
        "{{ lipsum(n=10**9) }}",
        "{{ namespace(x=1) }}",
        "{% for i in [1] %}" * 30 + "{% endfor %}" * 30,
        "{{ " + "(" * 300 + "1" + ")" * 300 + " }}",
        "{{ " + "9" * 5000 + " }}",
        "a" * 100_000,
    ],
)
def test_attacks_raise_at_once(template):
    with pytest.raises(ERRORS):
        Sandbox().compiled(template)(ROW)


@pytest.mark.parametrize(
    "text", ["{{messages}}", "{{messages[0]}}", "{{messages | map(attribute='content')}}", "x{{messages ~ 1}}"]
)
def test_values_without_a_text_form_are_refused(text):
    reader = Reader("mine", Source(dataset="rows.jsonl", text=text))
    with pytest.raises(InputError, match="as Python prints it") as caught:
        reader(ROW, lambda: "rows.jsonl: row 1")
    assert "rows.jsonl: row 1" in str(caught.value) and "the columns are a, n" in str(caught.value)


def test_expression_has_the_value_itself():
    assert Sandbox().expression("{{messages}}")({"messages": [{"role": "user"}]}) == [{"role": "user"}]
    assert Sandbox().expression(" {{ a[1:] + b }} ")({"a": [1, 2], "b": [None]}) == [2, None]
    assert Sandbox().expression("{{ x }}")(present({"x": {"y": None}})) == {"y": None}


def test_lazy_results_can_be_read_more_than_once():
    kept = "messages | selectattr('role', 'eq', 'user')"
    twice = "{% set x = " + kept + " %}{{ x | length }}{% for m in x %}{{ m.content }}{% endfor %}{{ x | length }}"
    assert Sandbox().compiled(twice)(ROW) == "1hi1"
    assert (
        Sandbox().compiled("{{ 'some' if messages | map(attribute='nowhere') | select('defined') else 'none' }}")(ROW) == "none"
    )
    assert Sandbox().expression("{{ " + kept + " }}")(ROW) == ROW["messages"][:1]
    assert Sandbox().expression("{{ x.values() }}")({"x": {"y": 1}}) == [1]


@pytest.mark.parametrize("text", ["messages", "{{a}}{{a}}", "x {{a}}", "{% if a %}{{a}}{% endif %}", ""])
def test_expression_is_one_and_nothing_else(text):
    with pytest.raises(ERRORS, match=r"one \{\{ expression \}\}"):
        Sandbox().expression(text)


@pytest.mark.parametrize(
    "text", ["{{ ''.__class__ }}", "{{ nowhere }}", "{{ range(10**9) }}", "{{ [0] * 10**9 }}", "{{ a.append(1) }}"]
)
def test_expression_is_bounded_as_a_template(text):
    with pytest.raises(ERRORS):
        Sandbox().expression(text)({"a": []})


def test_source_that_runs_code_is_refused_by_name():
    reader = Reader("mine", Source(dataset="rows.jsonl", text="{{ ''.__class__ }}"))
    with pytest.raises(InputError, match=r"source 'mine': .*unsafe"):
        reader(ROW)


def test_null_and_nan_are_missing_at_any_depth():
    found = present({"a": None, "b": [float("nan"), {"c": float("nan")}], "d": 0, "e": ""})
    assert found == {"a": MISSING, "b": [MISSING, {"c": MISSING}], "d": 0, "e": ""}


def test_transformers_still_renders_chat_templates_in_a_sandbox():
    assert "ImmutableSandboxedEnvironment(" in inspect.getsource(chat._cached_compile_jinja_template)
