"""A row that is a conversation: its messages in the form that chat templates take, whatever names the file gives them.

A message is an object with a role and a content. Files name the two differently (role and content, ShareGPT's from and value),
and so they name the roles. Everything else in a message, such as its tool calls, stays as the file has it.
"""

import json
import math
import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any

from trials.data.row_files import NESTED, nested_too_deeply

_ROLES = {
    "system": ("system",),
    "developer": ("developer",),
    "user": ("user", "human", "prompter"),
    "assistant": ("assistant", "gpt", "chatgpt", "chatbot", "bot", "bing", "bard", "ai", "model"),
    "tool": ("tool", "function", "ipython", "observation", "environment", "function_response", "tool_response"),
}
"""Names of the roles in files, by the name that a chat template gets."""
_CALLS = ("function_call", "tool_call")
"""Names in ShareGPT files for an assistant's turn that calls a tool: its value is the call as JSON."""
_KNOWN = {name: role for role, names in _ROLES.items() for name in names} | dict.fromkeys(_CALLS, "assistant")
_ROLE, _CONTENT = ("role", "from"), ("content", "value")
"""Keys of a message, in the order in which they are looked up."""
_TEXTS = ("content", "reasoning_content", "reasoning", "thinking")
"""Keys of a message whose text a template may write."""
_LEADING = ("system", "developer")
_KEY = r"""['"](?:{})['"]\s*:"""
_BEGINS_AS_MESSAGES = re.compile(
    rf"""\s*\[\s*\{{(?=.*{_KEY.format("|".join(_CONTENT))}).*?{_KEY.format("|".join(_ROLE))}\s*['"](?:{"|".join(_KNOWN)})['"]""",
    re.DOTALL | re.IGNORECASE,
)
"""The beginning of a list of messages in any notation: JSON that is cut off, or as Python prints it."""


class Malformed(ValueError):
    """A conversation that no template could render as its file means it. The text is one line, without the row's place."""


@dataclass(frozen=True)
class Conversation:
    """Messages, of which the loss counts the assistant's. Equal conversations have equal `text`."""

    text: str
    """Everything in it as canonical JSON."""
    messages: list[dict[str, Any]] = field(compare=False)
    context: int = field(compare=False)
    """The number of messages at the beginning that the loss leaves out, whatever their role."""
    tools: list[dict[str, Any]] | None = field(compare=False)

    def words(self) -> str:
        """The texts of all turns and the arguments of tool calls, a line each: what decontamination compares."""
        parts = [str(message[key]) for message in self.messages for key in _TEXTS if message.get(key)]
        calls = [
            json.dumps(message["tool_calls"], ensure_ascii=False) for message in self.messages if message.get("tool_calls")
        ]
        return "\n".join([*parts, *calls])

    def unusable(self) -> str | None:
        """Why nothing can be learnt from it; None if something can."""
        if not self.messages:
            return "no messages"
        if any(message.get("content") is None and not message.get("tool_calls") for message in self.messages):
            return "a turn without content"
        answers = [message for message in self.messages[self.context :] if message["role"] == "assistant"]
        if not answers:
            return "no turn of the assistant"
        written = any(message.get("tool_calls") or str(message.get("content")).strip() for message in answers)
        return None if written else "no response"

    def oddities(self) -> list[str]:
        """What is rare in a usable conversation, and often a mistake of its file."""
        roles, found = [message["role"] for message in self.messages], []
        # several results of tools in a row are usual, as are several system turns at the beginning
        if any(one == other and one in ("user", "assistant") for one, other in pairwise(roles)):
            found.append("two turns of one role in a row")
        if any(role in _LEADING and before not in _LEADING for before, role in pairwise(roles)):
            found.append("a system turn that is not first")
        answers = [message for message in self.messages[self.context :] if message["role"] == "assistant"]
        if not all(message.get("tool_calls") or str(message.get("content")).strip() for message in answers):
            found.append("an empty answer")
        return found


def holds_messages(value: Any) -> bool:
    """Whether the value of a column is messages and no text: an object, or a list of objects.

    A text is messages only if it is a JSON list of objects that each have a known role and a content, for an answer may be
    JSON too. A text that begins as such a list but is no JSON counts, so that `conversation` reports it.
    """
    if not isinstance(value, str):
        return bool(value) and all(isinstance(one, dict) for one in (value if isinstance(value, list) else [value]))
    if not value.lstrip().startswith(("[", "{")):
        return False
    try:
        listed = _listed(json.loads(value, strict=False), "messages")
    except (ValueError, RecursionError):
        return _BEGINS_AS_MESSAGES.match(value) is not None
    return isinstance(listed, list) and bool(listed) and all(map(_is_message, listed))


def conversation(messages: Any, context: Any = None, tools: Any = None, filled: bool = False) -> Conversation:
    """The conversation that a row's values make; raises Malformed.

    Values may be lists, or JSON text as in a CSV file. A text that `holds_messages` does not take for messages is one message:
    the user's in `context`, the assistant's in `messages` after a context. `filled`: the values come from a table, whose
    objects have null for every key that only other rows have.
    """
    before = _messages(context, "context", "user", filled)
    after = _messages(messages, "messages", None if context is None else "assistant", filled)
    found = [*before, *after]
    speakers = [message["role"] for message in found if message["role"] not in _LEADING]
    if speakers and speakers[0] == "assistant":
        raise Malformed("the conversation begins with the assistant; a turn of the user must come before it")
    made = _tools(tools, filled)
    text = json.dumps([found, len(before), made], sort_keys=True, ensure_ascii=False, default=str)
    try:
        text.encode()
    except UnicodeEncodeError as error:  # from an escape in JSON text; no tokenizer takes it
        raise Malformed(f"it holds {text[error.start]!r}, half of a character (a lone surrogate)") from None
    return Conversation(text, found, len(before), made)


def _messages(value: Any, name: str, speaker: str | None, filled: bool) -> list[dict[str, Any]]:
    """The messages of one value. `speaker` has the role of a plain text; None refuses one."""
    if _absent(value):
        return []
    if isinstance(value, str):
        if speaker is not None and not holds_messages(value):
            return [{"role": speaker, "content": value}]
        value, filled = _parsed(value, name), False  # no table fills what is inside a text
    listed = _listed(value, name)
    if not isinstance(listed, list):
        raise Malformed(f"{name} is {_kind(value)}, not a list of messages")
    return [_message(one, f"{name}[{place}]", filled) for place, one in enumerate(listed)]


def _listed(value: Any, name: str) -> Any:
    """A list of objects from an object of lists, as which some data sets store it. Any other value is returned."""
    if isinstance(value, dict) and value and all(isinstance(column, list) for column in value.values()):
        lengths = {key: len(column) for key, column in value.items()}
        if len(set(lengths.values())) > 1:
            raise Malformed(f"{name}: its lists differ in length: {', '.join(f'{key} has {n}' for key, n in lengths.items())}")
        return [dict(zip(value, cells, strict=False)) for cells in zip(*value.values(), strict=False)]
    return value


def _is_message(value: Any) -> bool:
    if not isinstance(value, dict):
        return False
    role = next((value[key] for key in _ROLE if isinstance(value.get(key), str)), "")
    return role.strip().lower() in _KNOWN and any(key in value for key in (*_CONTENT, "tool_calls"))


def _message(value: Any, name: str, filled: bool) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise Malformed(f"{name} is {_kind(value)}, not an object with role and content")
    made = _without_nulls(value) if filled else dict(value)
    role_key = next((key for key in _ROLE if isinstance(made.get(key), str)), None)
    if role_key is None:
        raise Malformed(f"{name} has no role (role or from); its keys are {', '.join(map(str, value)) or 'none'}")
    named = made.pop(role_key).strip().lower()
    if (role := _KNOWN.get(named)) is None:
        raise Malformed(f"{name} has the unknown role {named!r}; known: {', '.join(_KNOWN)}")
    content_key = next((key for key in _CONTENT if key in made), "content")
    content = _content(made.pop(content_key, None), name)
    if named in _CALLS and content:
        return {"role": role, "content": None, **made, "tool_calls": _calls(content, name)}
    return {"role": role, "content": content, **made}


def _content(value: Any, name: str) -> str | None:
    if isinstance(value, list):  # parts, as in OpenAI's files: a template for text would write them as Python prints them
        if any(isinstance(part, str) for part in value):
            raise Malformed(
                f"{name}: its content is a list with a text in it; write one text, or parts {{type: text, text: ...}}"
            )
        if foreign := [part for part in value if not (isinstance(part, dict) and isinstance(part.get("text"), str))]:
            raise Malformed(f"{name}: its content has {_part(foreign[0])}; only parts of text can be learnt")
        return "".join(part["text"] for part in value)
    if value is None or isinstance(value, str):
        return value
    if isinstance(value, float) and math.isnan(value):  # null in a table; another number would lose its spelling (4.50)
        return None
    raise Malformed(f"{name}: its content is {_kind(value)}, not text; write it as text")


def _calls(text: str, name: str) -> list[dict[str, Any]]:
    found = _parsed(text, f"{name}: its tool call")
    calls = found if isinstance(found, list) else [found]
    if not all(isinstance(call, dict) and "name" in call for call in calls):
        raise Malformed(f"{name}: its tool call is no object with name and arguments")
    return [{"type": "function", "function": call} for call in calls]


def _tools(value: Any, filled: bool) -> list[dict[str, Any]] | None:
    if isinstance(value, str) and value:
        value, filled = _parsed(value, "tools"), False  # no table fills what is inside a text
    if _absent(value):
        return None
    listed = [value] if isinstance(value, dict) else value
    if not isinstance(listed, list) or not all(isinstance(tool, dict) for tool in listed):
        raise Malformed(f"tools is {_kind(value)}, not a list of objects (JSON schemas of functions)")
    return [_without_nulls(tool) for tool in listed] if filled else listed


def _parsed(text: str, name: str) -> Any:
    try:
        found = json.loads(text, strict=False)
    except (ValueError, RecursionError) as error:
        reason = f"{error.msg}, column {error.colno}" if isinstance(error, json.JSONDecodeError) else "it cannot be read"
        raise Malformed(f"{name} is the text {text[:40]!r}, and no JSON: {reason}") from None
    if isinstance(found, (list, dict)) and nested_too_deeply(found):
        raise Malformed(f"{name}: {NESTED}")
    return found


def _absent(value: Any) -> bool:
    return value is None or value in ("", [], {}) or (isinstance(value, float) and math.isnan(value))


def _without_nulls(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: _without_nulls(inner) for name, inner in value.items() if inner is not None}
    return [_without_nulls(inner) for inner in value] if isinstance(value, Sequence) and not isinstance(value, str) else value


def _kind(value: Any) -> str:
    names = {str: "a text", list: "a list", dict: "an object", bool: "true or false", type(None): "null"}
    return names.get(type(value), "a number" if isinstance(value, (int, float)) else type(value).__name__)


def _part(value: Any) -> str:
    named = value.get("type") if isinstance(value, dict) else None
    return f"a part of type {named!r}" if named else _kind(value)
