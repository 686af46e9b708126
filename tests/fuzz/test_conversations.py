"""Odd rows become conversations, or one line says why not; nothing else."""

import json
import random

import pytest

from trials.data.conversation import Conversation, Malformed, conversation

VALUES = [
    None,
    "",
    " ",
    "x",
    "{",
    "[{",
    '[{"role": 1}]',
    "🚀",
    "\ud83d",
    0,
    -1.5,
    float("nan"),
    True,
    [],
    {},
    [None],
    {"a": [1]},
    b"x",
]
KEYS = ["role", "from", "content", "value", "tool_calls", "name", "", "🚀"]
ROLES = ["user", "assistant", "system", "tool", "human", "gpt", "function_call", "observation", "narrator"]


def odd(draw: random.Random, depth: int = 0) -> object:
    kind = draw.randrange(6 if depth < 4 else 1)
    if kind in (0, 1):
        return draw.choice(VALUES)
    if kind == 2:
        return [odd(draw, depth + 1) for _ in range(draw.randrange(4))]
    if kind == 3:
        return {draw.choice(KEYS): odd(draw, depth + 1) for _ in range(draw.randrange(4))}
    message = {draw.choice(["role", "from"]): draw.choice(ROLES), draw.choice(["content", "value"]): odd(draw, depth + 1)}
    return message if kind == 4 else [dict(message) for _ in range(draw.randrange(4))]


@pytest.mark.fuzz
@pytest.mark.parametrize("seed", range(200))
def test_odd_row_is_a_conversation_or_one_line(seed):
    draw = random.Random(seed)
    for _ in range(100):
        messages, context, tools = odd(draw), odd(draw), odd(draw)
        for given in (messages, json.dumps(messages, default=str)):
            try:
                made = conversation(given, context, tools, filled=draw.random() < 0.5)
            except Malformed as error:
                assert "\n" not in str(error)
                continue
            assert isinstance(made, Conversation)
            assert made.unusable() is None or made.unusable()
            assert all(message["role"] in ("system", "developer", "user", "assistant", "tool") for message in made.messages)
            assert isinstance(made.words(), str)
