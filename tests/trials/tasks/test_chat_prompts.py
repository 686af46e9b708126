"""Prompts in a base's chat template are those of lm-eval's HFLM, and what cannot be one is a line."""

import datetime as dt

import pytest
from lm_eval.models.huggingface import HFLM
from transformers import AutoTokenizer

from tests.factories.bases import MICRO
from tests.factories.chat_bases import BEGUN, CHAT, DATED, STRICT, THINKING
from trials.data import chat_template
from trials.errors import InputError
from trials.hub.hub import Hub
from trials.spec import Evaluation
from trials.tasks.chat_prompts import WITHOUT_SYSTEM, ChatPrompts, check
from trials.tasks.tasks import Tasks

SYSTEM = {"role": "system", "content": "Be brief."}
USER = {"role": "user", "content": "Question: 1 + 1?\nAnswer:"}
ASSISTANT = {"role": "assistant", "content": "It is "}


@pytest.fixture(scope="module")
def tasks() -> Tasks:
    return Tasks(Hub())


def evaluation(task: str = "micro_gsm", **fields) -> Evaluation:
    scored = {"metric": "acc"} if task != "micro_gsm" else {"metric": "exact_match", "filter": "strict-match"}
    return Evaluation.model_validate({"task": task, "chat_template": True, **scored, **fields})


def tokenizer(template):
    made = AutoTokenizer.from_pretrained(MICRO)
    made.chat_template = template
    chat_template.bound()
    return made


def stock(of, **arguments) -> HFLM:
    """lm-eval's model without weights: rendering reads its tokenizer and arguments alone."""
    made = HFLM.__new__(HFLM)
    made.tokenizer, made.chat_template_args = of, arguments
    return made


@pytest.mark.parametrize("template", [CHAT, BEGUN, STRICT, THINKING])
@pytest.mark.parametrize("messages", [[USER], [SYSTEM, USER], [SYSTEM, USER, ASSISTANT, USER], [USER, ASSISTANT]])
def test_text_is_that_of_hflm(template, messages):
    of = tokenizer(template)
    begun = messages[-1]["role"] == "user"
    render = ChatPrompts("math", evaluation(enable_thinking=False), of)
    assert render(messages, begun) == stock(of, enable_thinking=False).apply_chat_template(messages, begun)
    assert render.without_system == (template == STRICT and SYSTEM in messages)


def test_named_template_and_arguments_reach_the_text():
    of = tokenizer({"default": CHAT, "brief": "{{ messages[-1].content }} {{ style }}"})
    assert ChatPrompts("math", evaluation(), of)([USER]) == stock(of).apply_chat_template([USER])
    brief = evaluation(chat_template="brief", chat_template_args={"style": "now"})
    assert ChatPrompts("math", brief, of)([USER]) == f"{USER['content']} now"


def test_date_of_a_prompt_is_the_pinned_one():
    assert "Today is 02 Jan 2025." in ChatPrompts("math", evaluation(date=dt.date(2025, 1, 2)), tokenizer(DATED))([USER])


@pytest.mark.parametrize(
    ("template", "wanted", "refusal"),
    [
        (None, True, "has no chat template; leave chat_template out, or take the instruct model"),
        (CHAT, "brief", "no template 'brief'; .* has one template, without a name: write true"),
        ({"default": CHAT, "tools": CHAT}, "brief", "no template 'brief'; .* has default, tools"),
        ({"long": CHAT, "tools": CHAT}, True, "true is the template `default`, and .* has long, tools"),
        ("{{ raise_exception('only tools') }}", True, r"does not take the prompt's messages \(user.*\): only tools"),
        ("{% for i in range(10**9) %}{% endfor %}", True, "does not take the prompt's messages"),
    ],
)
def test_template_that_cannot_be_used_is_one_line(template, wanted, refusal, tasks):
    with pytest.raises(InputError, match=rf"^eval.math.chat_template: .*{refusal}") as caught:
        check("math", evaluation(chat_template=wanted), tasks, tokenizer(template))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("task", "fields", "refusal"),
    [
        ("micro_gsm_choice", {}, "eval.math.chat_template: the prompt of the forced-choice task micro_gsm_choice ends within"),
        ("micro_swag", {"enable_thinking": True, "think_end_token": 5}, "eval.math.enable_thinking: task micro_swag scores"),
    ],
)
def test_task_that_the_chat_settings_do_not_fit_is_one_line(task, fields, refusal, tasks):
    with pytest.raises(InputError, match=refusal) as caught:
        check("math", evaluation(task, **fields), tasks, tokenizer(CHAT))
    assert "\n" not in str(caught.value)


def test_left_out_system_message_is_noted(tasks):
    asked = evaluation(system="Be brief.")
    assert check("math", asked, tasks, tokenizer(STRICT)) == [f"eval.math: {WITHOUT_SYSTEM}"]
    assert check("math", asked, tasks, tokenizer(CHAT)) == []
    assert check("math", evaluation(chat_template=False), tasks, tokenizer(None)) == []
