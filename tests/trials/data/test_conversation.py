"""A conversation has the messages of its row, whatever names the file gives roles and contents."""

import json

import pytest

from trials.data.conversation import Conversation, Malformed, conversation, holds_messages

TURNS = [
    {"role": "system", "content": "Be brief."},
    {"role": "user", "content": "Hi"},
    {"role": "assistant", "content": "Hello"},
]
TOOL = {"type": "function", "function": {"name": "weather", "parameters": {"type": "object"}}}


def user(text: object = "Hi") -> dict:
    return {"role": "user", "content": text}


def answer(text: object = "Hello", **more: object) -> dict:
    return {"role": "assistant", "content": text, **more}


@pytest.mark.parametrize(
    "spelled",
    [
        TURNS,
        [{"from": one, "value": turn["content"]} for one, turn in zip(("system", "human", "gpt"), TURNS, strict=True)],
        [{"role": one, "content": turn["content"]} for one, turn in zip(("System", "USER", " Assistant "), TURNS, strict=True)],
        [{"from": one, "content": turn["content"]} for one, turn in zip(("system", "prompter", "chatgpt"), TURNS, strict=True)],
        {"role": [one["role"] for one in TURNS], "content": [one["content"] for one in TURNS]},
        json.dumps(TURNS),
    ],
)
def test_names_of_keys_and_roles_do_not_matter(spelled):
    assert conversation(spelled) == conversation(TURNS)
    assert conversation(spelled).messages == TURNS


def test_prompt_is_context_and_may_be_a_plain_text():
    made = conversation([answer()], context=TURNS[:2])
    assert made.messages == TURNS
    assert made.context == 2
    assert conversation("Hello", context="Hi").messages == TURNS[1:]
    assert conversation("Hello", context=TURNS[:2]) == made != conversation(TURNS)


@pytest.mark.parametrize(
    "text",
    [
        '{"role": "chef"}',
        '{"name": "Ada", "age": 36}',
        '[{"role": "chef", "content": "x"}]',
        '[{"role": "user", "since": 2020}]',
        '[{"city": "Rome"}, {"role": "user", "content": "x"}]',
        "[1, 2]",
        "[]",
        "[{'role': 'user'}]",
        "{not JSON",
    ],
)
def test_answer_in_json_is_a_text_and_no_messages(text):
    assert not holds_messages(text)
    assert conversation(text, context="As JSON?").messages == [user("As JSON?"), answer(text)]


@pytest.mark.parametrize(
    "broken", [str([user("Hi")]), str([{"content": "Hi", "from": "human"}]), json.dumps([user("Hi")])[:-1]]
)
def test_messages_that_are_no_json_are_refused_and_no_answer(broken):
    assert holds_messages(broken)
    with pytest.raises(Malformed, match="and no JSON"):
        conversation("Hello", context=broken)


def test_tools_and_calls_stay_as_the_file_has_them():
    call = {"id": "a1", "type": "function", "function": {"name": "weather", "arguments": {"city": "Rome", "unit": None}}}
    turns = [user(), answer(None, tool_calls=[call]), {"role": "tool", "tool_call_id": "a1", "content": "20"}, answer()]
    made = conversation(turns, tools=json.dumps([TOOL]))
    assert made.messages == turns
    assert made.tools == [TOOL]
    assert "Rome" in made.words()
    # a table's objects have null for what only other rows have
    assert conversation(turns, filled=True).messages[1]["tool_calls"][0]["function"]["arguments"] == {"city": "Rome"}


@pytest.mark.parametrize("filled", [False, True])
@pytest.mark.parametrize("none", [[], {}, "[]", "{}", "null", "", None])
def test_no_tools_are_none_in_any_form(none, filled):
    assert conversation(TURNS, tools=none, filled=filled).tools is None


def test_nulls_inside_json_text_are_kept():
    tool = TOOL | {"strict": None}
    call = answer("x", tool_calls=[{"function": {"name": "weather", "arguments": {"unit": None}}}])
    made = conversation(json.dumps([user(), call]), tools=json.dumps([tool]), filled=True)
    assert made.messages[1] == call
    assert made.tools == [tool]


def test_sharegpt_call_becomes_a_tool_call():
    call = {"name": "weather", "arguments": {"city": "Rome"}}
    turns = [
        {"from": "human", "value": "Weather?"},
        {"from": "function_call", "value": json.dumps(call)},
        {"from": "observation", "value": "20"},
        {"from": "gpt", "value": "20 degrees"},
    ]
    made = conversation(turns)
    assert [message["role"] for message in made.messages] == ["user", "assistant", "tool", "assistant"]
    assert made.messages[1]["tool_calls"] == [{"type": "function", "function": call}]


@pytest.mark.parametrize(
    ("messages", "reason"),
    [
        ([], "no messages"),
        (None, "no messages"),
        (float("nan"), "no messages"),
        ([user()], "no turn of the assistant"),
        (TURNS[:1], "no turn of the assistant"),
        ([user(), answer("  ")], "no response"),
        ([user(None), answer()], "a turn without content"),
        ([user(), answer(None)], "a turn without content"),
        ([user(), answer(None, tool_calls=[TOOL])], None),
        ([user(""), answer(""), user(), answer()], None),
        ([user([{"type": "text", "text": "a"}, {"type": "text", "text": "b"}]), answer()], None),
    ],
)
def test_row_without_anything_to_learn_says_why(messages, reason):
    assert conversation(messages).unusable() == reason


@pytest.mark.parametrize(
    ("messages", "refusal"),
    [
        ([answer(), user()], "begins with the assistant"),
        ([TURNS[0], answer(), user(), answer()], "begins with the assistant"),
        ([user(), {"role": "narrator", "content": "x"}], "messages[1] has the unknown role 'narrator'; known: system,"),
        ([user(), {"content": "x"}], "messages[1] has no role (role or from); its keys are content"),
        ([user(), "Hello"], "messages[1] is a text, not an object with role and content"),
        ("Hello", "messages is the text 'Hello', and no JSON"),
        ("[{'role': 'user'}]", "and no JSON: Expecting property name"),
        (
            '[{"role": "user", "content": "x", "more": ' + "[" * 400 + "]" * 400 + "}]",
            "messages: lists and objects are nested more",
        ),
        ('[{"role": "user", "content": "\\ud83d"}]', "half of a character"),
        (3, "messages is a number, not a list of messages"),
        (
            {"role": ["user", "assistant", "user", "assistant"], "content": ["a", "b", "c"]},
            "messages: its lists differ in length: role has 4, content has 3",
        ),
        ([user({"a": 1}), answer()], "messages[0]: its content is an object, not text"),
        ([user([{"type": "image", "url": "x"}]), answer()], "messages[0]: its content has a part of type 'image'"),
        (
            [user(["a", "b"]), answer()],
            "messages[0]: its content is a list with a text in it; write one text, or parts {type: text, text: ...}",
        ),
        ([user(True), answer()], "its content is true or false, not text"),
        ([user(), answer(7)], "messages[1]: its content is a number, not text; write it as text"),
        (
            [user(), {"from": "function_call", "value": "weather(Rome)"}],
            "messages[1]: its tool call is the text 'weather(Rome)'",
        ),
    ],
)
def test_malformed_row_is_one_line(messages, refusal):
    with pytest.raises(Malformed) as caught:
        conversation(messages)
    assert refusal in str(caught.value)
    assert "\n" not in str(caught.value)


def test_foreign_tools_are_refused():
    with pytest.raises(Malformed, match="tools is the text 'weather'"):
        conversation(TURNS, tools="weather")
    with pytest.raises(Malformed, match="not a list of objects"):
        conversation(TURNS, tools=["weather"])


def test_words_hold_every_turn():
    assert conversation([*TURNS, user("Bye"), answer("So long")]).words() == "Be brief.\nHi\nHello\nBye\nSo long"


def test_equal_conversations_are_one_in_a_set():
    made: set[Conversation] = {conversation(TURNS), conversation(json.dumps(TURNS)), conversation(TURNS, tools=[TOOL])}
    assert len(made) == 2


SYSTEM = {"role": "system", "content": "Be brief."}


@pytest.mark.parametrize(
    ("messages", "oddities"),
    [
        ([SYSTEM, {"role": "developer", "content": "x"}, user(), answer(), user(), answer()], []),
        ([user(), answer(None, tool_calls=[TOOL]), *[{"role": "tool", "content": "1"}] * 2, answer()], []),
        ([user(), user(), answer()], ["two turns of one role in a row"]),
        ([user(), answer(), answer()], ["two turns of one role in a row"]),
        ([user(), SYSTEM, answer()], ["a system turn that is not first"]),
        ([user(), answer(), user(), answer(" "), SYSTEM], ["a system turn that is not first", "an empty answer"]),
    ],
)
def test_unusual_conversation_is_named(messages, oddities):
    assert conversation(messages).oddities() == oddities
