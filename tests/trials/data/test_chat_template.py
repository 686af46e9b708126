"""Untrusted chat templates render as in transformers, within bounds of time and output."""

import pytest
import transformers
from transformers.utils import chat_template_utils

from trials.data import chat_template
from trials.data.sandbox import ERRORS

MESSAGES = [{"role": "user", "content": " hi a "}, {"role": "assistant", "content": "yo\na b", "tool_calls": [{"f": 1.5}]}]
VALUES = {"messages": MESSAGES, "tools": None, "documents": None, "add_generation_prompt": True, "bos_token": "<s>"}


@pytest.mark.parametrize(
    "template",
    [
        "{% for m in messages %}<|{{ m['role'] }}|>\n{{ m.content | trim }}</s>\n{% endfor %}{% if foo %}x{% endif %}",
        "{%- set ns = namespace(a=1) -%}{%- for m in messages -%}{%- set ns.a = ns.a + 1 -%}{{ ns.a }}{{ loop.last }}"
        "{%- if loop.first %}{% continue %}{% endif %}{{ m | tojson(indent=2) }}{%- endfor -%}",
        "{% macro f(x, y=2) %}[{{ x }}{{ y }}{{ caller() if caller }}]{% endmacro %}{{ f('a') }}"
        "{% call f('b') %}Z{% endcall %}",
        "{% generation %}G{{ messages[-1]['content'].split('a')[-1].lstrip('\n') }}{% endgeneration %}",
        "{% set x %}{% for i in range(3) %}{{ i }}{% endfor %}{% endset %}{{ x | length }}{{ x ~ none ~ foo ~ 1.5 }}{{ none }}",
        "{{ 'a%s' % 'b' }}{{ '{}x'.format(3) }}{{ tools is none }}{{ foo is defined }}"
        "{{ {'a': 1}.items() | list }}{{ [1] + [2] }}",
        "{{ bos_token + messages[0].content }}{% filter upper %}abc{% endfilter %}"
        "{{ strftime_now('%Y') | length }}{{ 'ab'[::-1] }}",
        "{{ messages | map(attribute='role') | join(', ') }}"
        "{{ messages | selectattr('tool_calls', 'defined') | list | length }}",
    ],
)
def test_bounded_template_renders_as_in_transformers(template):
    wanted = chat_template_utils._cached_compile_jinja_template(template).render(**VALUES)
    assert chat_template.compiled(template).render(**VALUES) == wanted


@pytest.mark.parametrize(
    "template",
    [
        "{% for i in range(99999) %}{% for j in range(99999) %}{% endfor %}{% endfor %}",
        "{{ 'a' * 10**9 }}",
        "{{ 9 ** (9 ** 9) }}",
        "{{ [1] * 10**9 }}",
        "{{ 'a' | center(10**9) }}",
        "{{ '%1000000000d' % 1 }}",
        "{{ '%*d' % (10**9, 1) }}",
        "{{ '{:1000000000}'.format(1) }}",
        "{{ '{:{}}'.format(1, 10**9) }}",
        "{{ lipsum(n=10**9) }}",
        "{{ ('\t' * 1000).expandtabs(10**6) }}",
        "{{ ('a' * 10**6) | indent(10**6) }}",
        "{{ 'x'.replace('', 'y' * 10**6) * 1000 }}",
        "{{ '{0}{0}{0}{0}'.format('a' * 10**7) }}",
        "{{ range(9999) | join(d='a' * 10**6) }}",
        "{% macro f() %}{{ f() }}{{ f() }}{% endmacro %}{{ f() }}",
        "{% macro f(n) %}{% if n %}{{ f(n - 1) }}{{ f(n - 1) }}{% endif %}{% endmacro %}{{ f(60) }}",
        "{% for a in [1] recursive %}{{ loop([1]) }}{% endfor %}",
        "{% set ns = namespace(x='ab') %}{% for i in range(60) %}{% set ns.x = ns.x ~ ns.x %}{% endfor %}{{ ns.x }}",
        "{% set ns = namespace(x=[]) %}{% for i in range(60) %}{% set ns.x = [ns.x, ns.x] %}{% endfor %}{{ ns.x }}",
        "{% set x %}{% for i in range(99999) %}" + "A" * 50_000 + "{% endfor %}{% endset %}{{ x }}",
        "{% set x = 'a' * 10**6 %}{% for i in range(9999) %}{{ x.find('a' * 500000 + 'b') }}{% endfor %}",
        "{{ ''.__class__.__mro__[1].__subclasses__() }}",
        "{{ cycler.__init__.__globals__.os.popen('touch /nowhere') }}",
        "{% include '/etc/passwd' %}",
        "{{ messages.append(1) }}",
        "a" * 1_000_000,
    ],
)
def test_attacks_by_chat_templates_raise_at_once(template):
    with pytest.raises(ERRORS):
        chat_template.compiled(template).render(**VALUES)


def test_tokenizer_of_a_base_renders_within_the_bounds(spec):
    from trials.hub.hub import Hub
    from trials.models.base import tokenizer

    loaded: transformers.PreTrainedTokenizerBase = tokenizer(spec.base, Hub())
    endless = "{% for i in range(99999) %}{% for j in range(99999) %}{% endfor %}{% endfor %}"
    with pytest.raises(ERRORS, match="too many steps"):
        loaded.apply_chat_template(MESSAGES, chat_template=endless)
    loaded.chat_template = "{{ messages[0].content }}"
    assert loaded.apply_chat_template(MESSAGES, tokenize=False) == " hi a "
