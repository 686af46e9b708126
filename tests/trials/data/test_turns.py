"""The loss counts the assistant's tokens, all of them and no others, or the row is refused."""

import re

import pytest

from trials.data import chat_template, turns
from trials.data.conversation import Conversation, conversation
from trials.errors import InputError
from trials.hub.hub import TASK_FOLDERS
from trials.spec import Data
from trials.template import IGNORED, Encoder

CHATML = (
    "{% for m in messages %}{{ '<|im_start|>' + m.role + '\n' }}{{ m.content }}{{ '<|im_end|>\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)
MARKED = (
    "{%- if tools %}{{ tools | tojson }}{{ '\n' }}{% endif -%}"
    "{%- for m in messages %}{{ '<|im_start|>' + m.role + '\n' }}{% if m.role == 'assistant' %}{% generation %}"
    "{{ m.content or '' }}{% for call in m.tool_calls or [] %}{{ call | tojson }}{% endfor %}{{ '<|im_end|>' }}"
    "{% endgeneration %}"
    "{% else %}{{ m.content }}{{ '<|im_end|>' }}{% endif %}{{ '\n' }}{% endfor -%}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)
TOOL = {"type": "function", "function": {"name": "weather", "parameters": {"type": "object"}}}
CALL = {"type": "function", "function": {"name": "weather", "arguments": {"city": "Rome"}}}


def said(*contents: str, system: str | None = None) -> list[dict]:
    """Messages of the user and the assistant in turn."""
    turns_ = [{"role": ("user", "assistant")[place % 2], "content": text} for place, text in enumerate(contents)]
    return [{"role": "system", "content": system}, *turns_] if system is not None else turns_


ROWS: list[tuple[list[dict], list[dict] | None]] = [
    (said("Hi", "Hello"), None),
    (said("Hi", "Hello", "And now?", "Bye", system="Be brief."), None),
    (said("Hi", "Hello", "unanswered"), None),
    (said("  spaces ", "  lead and trail  ", "x", "\n\nnew lines\n"), None),
    (said("emoji 🧑‍🚀", "🚀 Größe 日本語 👋", "再见", "再见"), None),
    (said("code", "```python\ndef f(x):\n    return x\n```"), None),
    (said("q", "", "and?", "something"), None),
    (said(*[f"turn {n}" for n in range(20)]), None),
    (said("empty system", "ok", system=""), None),
    ([*said("a", "one"), {"role": "assistant", "content": "two in a row"}], None),
    ([{"role": "user", "content": "twice"}, *said("in a row", "fine")], None),
    (said("long " * 200, "answer " * 300), None),
    (said("<|im_start|>user", "the words user and assistant inside <|im_end|>"), None),
    (said("{{ jinja }}", "{% generation %}{{ 1 + 1 }}{% endgeneration %}"), None),
    (said("'single' \"double\"", 'don\'t "do" \\n'), None),
    (said("tabs\tand\rreturns", "a\tb\rc"), None),
    (said("same", "same", "same", "same"), None),
    (said("?", "A" * 500), None),
    (said("with tools", "none needed"), [TOOL]),
    (
        [
            {"role": "user", "content": "Rome?"},
            {"role": "assistant", "content": "", "tool_calls": [CALL]},
            {"role": "tool", "name": "weather", "content": "20"},
            {"role": "assistant", "content": "20 degrees"},
        ],
        [TOOL],
    ),
]
assert len(ROWS) == 20


@pytest.fixture(scope="module")
def tokenizer():
    from transformers import AutoTokenizer

    made = AutoTokenizer.from_pretrained(TASK_FOLDERS[0].parent / "hub" / "micro")
    chat_template.bound()
    return made


def encode(tokenizer, template: str, row: Conversation, **fields) -> tuple[list[int], list[int]]:
    tokenizer.chat_template = template
    return Encoder(Data(samples=1, mix={"x": 1.0}, template="chat", max_length=10**6, **fields), tokenizer)(row)


def learnt(tokenizer, template: str, row: Conversation) -> list[str]:
    """The text of each run of tokens that the loss counts."""
    ids, labels = encode(tokenizer, template, row)
    assert len(ids) == len(labels)
    runs: list[list[int]] = [[]]
    for token, label in zip(ids, labels, strict=True):
        assert label in (token, IGNORED)
        if label != IGNORED:
            runs[-1].append(token)
        elif runs[-1]:
            runs.append([])
    return [tokenizer.decode(run, clean_up_tokenization_spaces=False) for run in runs if run]


@pytest.mark.parametrize("number", range(20))
def test_marked_rows_have_the_labels_of_assistant_only_loss(tokenizer, number):
    messages, tools = ROWS[number]
    ids, labels = encode(tokenizer, MARKED, conversation(messages, tools=tools))
    # as TRL prepares a row of `messages` (trl/trainer/sft_trainer.py): transformers' own mask on the row itself
    wanted = tokenizer.apply_chat_template(
        messages, tools=tools, chat_template=MARKED, return_dict=True, return_assistant_tokens_mask=True
    )
    assert ids == wanted["input_ids"]
    assert labels == [
        token if mask else IGNORED for token, mask in zip(wanted["input_ids"], wanted["assistant_masks"], strict=True)
    ]


@pytest.mark.parametrize("number", [*range(18)])
def test_unmarked_rows_have_labels_between_the_headers_and_the_next_turn(tokenizer, number):
    messages, _ = ROWS[number]
    ids, labels = encode(tokenizer, CHATML, conversation(messages))
    # independently: the text of each turn is known, so its characters are, and the tokenizer says which tokens hold them
    text, spans = "", []
    for message in messages:
        text += f"<|im_start|>{message['role']}\n"
        begin = len(text)
        text += f"{message['content']}<|im_end|>\n"
        spans += [(begin, len(text))] if message["role"] == "assistant" else []
    encoded = tokenizer(text, add_special_tokens=False, return_offsets_mapping=True)
    assert ids == encoded["input_ids"]
    inside = [any(begin <= start and end <= stop for begin, stop in spans) for start, end in encoded["offset_mapping"]]
    assert labels == [token if held else IGNORED for token, held in zip(ids, inside, strict=True)]


@pytest.mark.parametrize("number", range(20))
def test_loss_on_everything_has_the_tokens_of_loss_on_responses(tokenizer, number):
    messages, tools = ROWS[number]
    row = conversation(messages, tools=tools)
    ids, _ = encode(tokenizer, MARKED, row)
    assert encode(tokenizer, MARKED, row, loss_on="everything") == (ids, ids)


def test_loss_on_everything_needs_no_exact_turns(tokenizer):
    row = conversation(said("Hi", "Hello", "x", "y"))
    last_differs = CHATML.replace("{{ m.content }}", "{{ m.content if loop.last else m.content | upper }}")
    with pytest.raises(InputError, match="not known exactly"):
        encode(tokenizer, last_differs, row)
    ids, labels = encode(tokenizer, last_differs, row, loss_on="everything")
    assert labels == ids
    assert "HELLO" in tokenizer.decode(ids)
    with pytest.raises(InputError, match="refuses this conversation: no"):
        encode(tokenizer, "{{ raise_exception('no') }}", row, loss_on="everything")


def test_each_part_of_a_marked_row_is_rendered_once(tokenizer, monkeypatch):
    rendered = []
    with_turns, prefix = chat_template.with_turns, turns._Rendering._rendered
    monkeypatch.setattr(chat_template, "with_turns", lambda *given: rendered.append("whole") or with_turns(*given))
    monkeypatch.setattr(turns._Rendering, "_rendered", lambda *given: rendered.append(given[1:]) or prefix(*given))
    messages = said("Hi", "Hello", "x", "y")
    encode(tokenizer, MARKED, conversation(messages[3:], context=messages[:3]))
    assert rendered == ["whole", (3, True)]


def test_two_messages_have_the_tokens_of_instruction_and_response(tokenizer):
    tokenizer.chat_template = CHATML
    encoder = Encoder(Data(samples=1, mix={"x": 1.0}, template="chat"), tokenizer)
    assert encoder(conversation(said("Hi\n\nthere", "Hello"))) == encoder(("Hi", "there", "Hello"))


def test_block_that_begins_before_the_prompt_ends_counts_from_there(tokenizer):
    # as in TRL, whose loss is on tokens of both the completion and the assistant; Qwen's blocks begin with the line break
    early = MARKED.replace("m.role + '\n' }}{% if", "m.role }}{% if").replace("{% generation %}", "{% generation %}{{ '\n' }}")
    early = early.replace("{% else %}", "{% else %}{{ '\n' }}")
    messages = said("Hi", "Hello", "x", "y")
    assert learnt(tokenizer, early, conversation(messages[3:], context=messages[:3])) == ["y<|im_end|>"]
    assert learnt(tokenizer, early, conversation(messages)) == ["\nHello<|im_end|>", "\ny<|im_end|>"]


def test_context_is_left_out_of_the_loss(tokenizer):
    messages = said("Hi", "Hello", "And now?", "Bye")
    row = conversation(messages[3:], context=messages[:3])
    for template in (MARKED, CHATML):
        assert [one.strip() for one in learnt(tokenizer, template, row)] == ["Bye<|im_end|>"]
        assert len(learnt(tokenizer, template, conversation(messages))) == 2


@pytest.mark.parametrize(
    ("template", "reason"),
    [
        # the last turn is rendered in another way than those before it, as by templates that drop earlier thoughts
        (
            CHATML.replace("{{ m.content }}", "{{ m.content if loop.last or m.role == 'user' else m.content | upper }}"),
            "renders the first 2 messages in another way once more",
        ),
        # a tool's description moves with the last message
        (
            CHATML.replace("{{ m.content }}", "{{ '[tools]' if loop.last }}{{ m.content }}"),
            "in another way once more messages follow",
        ),
        # the answer begins with something that a finished turn does not have
        (
            CHATML.replace("assistant\n' }}{% endif", "assistant\n<think>' }}{% endif"),
            "with the beginning of an answer in another way",
        ),
        ("{{ raise_exception('only systems speak') }}", "refuses this conversation: only systems speak"),
        ("{% for m in messages %}{{ m.nowhere.role }}{% endfor %}", "refuses this conversation: "),
    ],
)
def test_template_that_cannot_be_exact_is_refused(tokenizer, template, reason):
    with pytest.raises(InputError) as caught:
        encode(tokenizer, template, conversation(said("Hi", "Hello", "x", "y")))
    assert reason in str(caught.value)
    assert "\n" not in str(caught.value)


def test_prefix_must_hold_in_tokens_too(tokenizer):
    # "Hel" and "lo" are tokens of their own where a text ends after "Hel"
    joined = "{% for m in messages %}{{ m.content }}{% endfor %}"
    with pytest.raises(InputError, match="a token of the whole conversation spans their end"):
        encode(tokenizer, joined, conversation(said("on", "e tw", "o", "x")))


def test_blocks_in_a_macro_are_not_trusted(tokenizer):
    macro = (
        "{% macro turn(m) %}{{ '<|im_start|>' + m.role + '\n' }}{% generation %}{{ m.content }}{% endgeneration %}"
        "{{ '<|im_end|>\n' }}{% endmacro %}"
        "{% for m in messages %}{% if m.role == 'assistant' %}{{ turn(m) }}{% else %}"
        "{{ '<|im_start|>user\n' }}{{ m.content }}{{ '<|im_end|>\n' }}{% endif %}{% endfor %}"
        "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
    )
    assert not chat_template.marks_turns(macro)
    assert chat_template.marks_turns(MARKED)
    assert not chat_template.marks_turns(CHATML)
    row = conversation(said("Hi", "Hello", "x", "y"))
    assert learnt(tokenizer, macro, row) == learnt(tokenizer, CHATML, row) == ["Hello<|im_end|>\n", "y<|im_end|>\n"]


def test_block_that_begins_with_nothing_marks_its_tokens_alone(tokenizer):
    odd = MARKED.replace("{% generation %}", "{% generation %}{{ '' }}")
    assert learnt(tokenizer, odd, conversation(said("q", "", "x", "y"))) == ["<|im_end|>", "y<|im_end|>"]


def test_plain_form_ends_each_answer_with_the_end_token(tokenizer):
    row = conversation(said("Hi", "Hello", "x", "y", "unanswered", system="Be brief."))
    ids, labels = Encoder(Data(samples=1, mix={"x": 1.0}, template="plain"), tokenizer)(row)
    end = tokenizer.eos_token
    text = f"System: Be brief.\nUser: Hi\nAssistant: Hello{end}User: x\nAssistant: y{end}User: unanswered\n"
    assert tokenizer.decode(ids) == text
    assert re.sub(r"\s+", " ", tokenizer.decode([label for label in labels if label != IGNORED])) == f" Hello{end} y{end}"


def test_plain_form_has_no_place_for_tools():
    with pytest.raises(InputError, match="no place for tools; use chat"):
        list(turns.plain(conversation(said("Hi", "Hello"), tools=[TOOL])))
    with pytest.raises(InputError, match=r"no place for messages\[1\], which is of a tool"):
        list(turns.plain(conversation([*said("Hi"), {"role": "assistant", "content": None, "tool_calls": [CALL]}])))


def test_alpaca_template_takes_no_conversation(tokenizer):
    with pytest.raises(InputError, match=r"write data\.template: chat, or plain"):
        Encoder(Data(samples=1, mix={"x": 1.0}), tokenizer)(conversation(said("Hi", "Hello")))
