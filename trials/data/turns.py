"""Which tokens of a conversation the assistant writes: by the chat template's own marks, or by prefixes, and exactly.

A template with {% generation %} blocks marks them: a token counts as in transformers' `return_assistant_tokens_mask`, on which
TRL trains with `assistant_only_loss`. Without these blocks, the rendering of the messages before a turn, with the beginning of
an answer, and the rendering up to its end must both be prefixes of the whole conversation's, in text and in tokens. The turn is
then between them. A row for which neither holds is refused: its loss would fall on the wrong tokens.
"""

import itertools
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from trials.data.conversation import Conversation
from trials.data.sandbox import ERRORS, reason
from trials.errors import InputError

Span = tuple[int, int]
"""Begin and end."""
_LABELS = {"system": "System", "developer": "System", "user": "User", "assistant": "Assistant"}


def chat(tokenizer: Any, row: Conversation, template: str) -> tuple[list[int], list[Span]]:
    """The row's token ids, and the spans of tokens that the loss counts. Raises InputError, without the row's place."""
    from trials.data import chat_template  # imports transformers, which plans without a chat template need not wait for

    with _refusals(tokenizer):
        if getattr(tokenizer, "is_fast", False) and chat_template.marks_turns(template):
            return _marked(tokenizer, row, template)
        whole = _Rendering(tokenizer, row, template)
        return whole.ids, list(_between_prefixes(row, whole))


def everything(tokenizer: Any, row: Conversation, template: str) -> list[int]:
    """The token ids that `chat` gives, also for a template of which no turn is known exactly. Raises as `chat`."""
    with _refusals(tokenizer):
        return _Rendering(tokenizer, row, template).ids


@contextmanager
def _refusals(tokenizer: Any) -> Iterator[None]:
    try:
        yield
    except ERRORS as error:  # the template is the model's own
        raise InputError(f"the chat template of {_name(tokenizer)} refuses this conversation: {reason(error)}") from error


def plain(row: Conversation) -> Iterator[tuple[str, str | None, bool]]:
    """(prompt, answer, whether the loss counts it) for each of the assistant's turns, for bases without a chat template.

    A turn is a line `User: TEXT`, `System: TEXT` or `Assistant: TEXT`; the last one's end is the end token, not a line break.
    Turns after the assistant's last one come as a prompt without an answer. Raises InputError, without the row's place.
    """
    prompt = ""
    if row.tools:
        raise InputError("data.template plain has no place for tools; use chat")
    for place, message in enumerate(row.messages):
        if message["role"] not in _LABELS or message.get("tool_calls"):
            raise InputError(f"data.template plain has no place for messages[{place}], which is of a tool; use chat")
        text, label = str(message["content"]).strip(), _LABELS[message["role"]]
        if label == "Assistant":
            yield f"{prompt}{label}:", f" {text}", place >= row.context
            prompt = ""
        else:
            prompt += f"{label}: {text}\n"
    if prompt:
        yield prompt, None, False


class _Rendering:
    """A conversation as a template renders it, and its first messages."""

    def __init__(self, tokenizer: Any, row: Conversation, template: str, known: tuple[str, list[int]] | None = None):
        """`known`: the whole conversation's text and token ids, where they have been made already."""
        self._tokenizer, self._row, self._template = tokenizer, row, template
        if known is None:
            text = self._rendered(len(row.messages))
            known = text, self._tokens(text)
        self.text, self.ids = known

    def end_of(self, count: int, answer: bool) -> int:
        """The number of tokens of the first `count` messages, with the beginning of an answer if `answer`."""
        if count == len(self._row.messages):
            return len(self.ids)
        ids = self._prefix(count, answer)
        if self.ids[: len(ids)] != ids:
            raise InputError(
                f"as the chat template of {_name(self._tokenizer)} renders {_part(count, answer)}, a token of the whole "
                "conversation spans their end, so the assistant's tokens are not known exactly; remove white space there, such "
                "as line breaks before an answer"
            )
        return len(ids)

    def shared(self, count: int) -> int:
        """The number of tokens that the first `count` messages, with the beginning of an answer, share with the whole."""
        pairs = zip(self._prefix(count, True), self.ids, strict=False)
        return sum(1 for _ in itertools.takewhile(lambda pair: pair[0] == pair[1], pairs))

    def _prefix(self, count: int, answer: bool) -> list[int]:
        text = self._rendered(count, answer)
        if not self.text.startswith(text):
            raise InputError(
                f"the chat template of {_name(self._tokenizer)} renders {_part(count, answer)} in another way once more "
                "messages follow, so the assistant's tokens are not known exactly; give the base a template that renders them "
                "alike or marks the assistant's turns with {% generation %} blocks"
            )
        return self._tokens(text)

    def _rendered(self, count: int, answer: bool = False) -> str:
        messages, tools = self._row.messages[:count], self._row.tools
        apply = self._tokenizer.apply_chat_template
        return str(apply(messages, tools=tools, chat_template=self._template, add_generation_prompt=answer, tokenize=False))

    def _tokens(self, text: str) -> list[int]:
        return list(self._tokenizer(text, add_special_tokens=False)["input_ids"])


def _part(count: int, answer: bool) -> str:
    messages = f"the first {count} messages" if count > 1 else "the first message"
    return f"{messages} with the beginning of an answer" if answer else messages


def _between_prefixes(row: Conversation, whole: _Rendering) -> Iterator[Span]:
    for place, message in enumerate(row.messages):
        if message["role"] == "assistant" and place >= row.context:
            yield whole.end_of(place, answer=True), whole.end_of(place + 1, answer=False)


def _marked(tokenizer: Any, row: Conversation, template: str) -> tuple[list[int], list[Span]]:
    from trials.data import chat_template

    text, blocks = chat_template.with_turns(tokenizer, template, row.messages, row.tools)
    encoded = tokenizer(text, add_special_tokens=False)
    ids, learnt = list(encoded["input_ids"]), 0
    if any(message["role"] not in ("system", "developer") for message in row.messages[: row.context]):
        # the blocks do not say whose turn they are, and a block may begin before a prompt ends: TRL's completion_mask
        learnt = _Rendering(tokenizer, row, template, (text, ids)).shared(row.context)
    spans = []
    for begin, end in blocks:
        # a character may belong to no token, such as a space that the tokenizer drops
        tokens = (encoded.char_to_token(character) for character in range(begin, end))
        first = next((token for token in tokens if token is not None), None)
        backwards = (encoded.char_to_token(character) for character in range(end - 1, begin - 1, -1))
        last = next((token for token in backwards if token is not None), None)
        if first is not None and last is not None and last >= learnt:
            spans.append((max(first, learnt), last + 1))
    return ids, spans


def _name(tokenizer: Any) -> str:
    return str(getattr(tokenizer, "name_or_path", ""))
