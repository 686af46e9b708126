"""A row as text and as tokens: a source's columns in the trial's prompt template, and which tokens the loss counts.

`alpaca` is Stanford Alpaca's prompt. `plain` is instruction, input and response, each on its own line. `chat` is the
tokenizer's own chat template with a user's message (instruction, empty line, input) and an assistant's. Alpaca and plain rows
end with the tokenizer's end token, a chat as its template ends it.

A conversation is rendered by `chat`, or by `plain` in lines `User: ...` and `Assistant: ...`, where the end token ends each
turn of the assistant (see trials/data/turns.py).
"""

import datetime as dt
import difflib
import functools
import re
from collections.abc import Callable
from typing import Any

from trials.data import turns
from trials.data.conversation import Conversation, Malformed, conversation
from trials.data.sandbox import ERRORS, Sandbox, present, reason
from trials.errors import InputError
from trials.spec import Data, Source

# Stanford Alpaca's two prompts, as its data card gives them.
_ALPACA_INPUT = (
    "Below is an instruction that describes a task, paired with an input that provides further context. "
    "Write a response that appropriately completes the request.\n\n"
    "### Instruction:\n{instruction}\n\n### Input:\n{input}\n\n### Response:\n"
)
_ALPACA = (
    "Below is an instruction that describes a task. Write a response that appropriately completes the request.\n\n"
    "### Instruction:\n{instruction}\n\n### Response:\n"
)
_DIRECTIVES = "aAbBcdfHIjmMpSUwWxXyYGuV"  # of strftime
_LEADING_LINES = re.compile(r"\A\s*\n")
IGNORED = -100  # the label that the loss leaves out
NO_ALPACA = (
    "data.template alpaca has one instruction and one response, and this is a conversation; write data.template: chat, or "
    "plain for a base without a chat template"
)

_Part = tuple[str, Callable[[dict[str, Any]], Any]]
"""A field's name for errors, and the function that renders it."""
Where = Callable[[], str]
"""Returns a row's file and number, which are looked up only for an error; `str` for none."""
Parts = tuple[str, ...] | Conversation
Tokens = tuple[list[int], list[int]]
"""Token ids and labels of equal length; a label is the token's id or IGNORED."""


def alpaca(instruction: str, given: str) -> str:
    """The prompt, up to where the response begins."""
    return (_ALPACA_INPUT if given else _ALPACA).format(instruction=instruction, input=given)


def plain(instruction: str, given: str) -> str:
    return f"{instruction}\n{given}\n" if given else f"{instruction}\n"


def dated(template: str, date: dt.date) -> str:
    """The chat template with a macro `strftime_now` that formats this date instead of today's."""
    # a macro of replacements, because transformers passes no functions of its caller to a template
    written = [(f"%{sign}{letter}", date.strftime(f"%{sign}{letter}")) for letter in _DIRECTIVES for sign in ("-", "")]
    replaced = "".join(f".replace({before!r}, {after!r})" for before, after in [*written, ("%%", "%")])
    return f"{{%- macro strftime_now(format) -%}}{{{{- format{replaced} -}}}}{{%- endmacro -%}}{template}"


class Reader:
    """Renders a source's row: (instruction, input, response), (text,) for a source of plain text, or a conversation.

    Parts are stripped, but the last one (response or text) keeps the indentation of its first line.
    """

    def __init__(self, name: str, source: Source, filled: bool = False):
        """`filled`: rows come from a table, whose objects have null for every key that only other rows have."""
        self.name, self._filled = name, filled
        self._sandbox = Sandbox()
        fields = ("text",) if source.text is not None else ("instruction", "input", "response")
        expressions = ("messages", "context", "tools") if source.messages is not None else ()
        self._parts = [self._part(field, getattr(source, field) or "") for field in fields] if not expressions else []
        self._values = {
            field: self._part(field, text, self._sandbox.expression)
            for field in expressions
            if (text := getattr(source, field)) is not None
        }

    def __call__(self, row: dict[str, Any], where: Where = str) -> Parts:
        given = present(row)
        if self._values:
            return self._conversation(row, given, where)
        parts = [self._rendered(part, given, where) for part in self._parts]
        return (*(part.strip() for part in parts[:-1]), _LEADING_LINES.sub("", parts[-1].rstrip()))

    def _conversation(self, row: dict[str, Any], given: dict[str, Any], where: Where) -> Conversation:
        found = {field: self._rendered(value, given, where) for field, value in self._values.items()}
        if "context" in found:
            found["context"] = found["context"] or ""  # an empty prompt is one: `messages` may be a plain text then
        try:
            return conversation(**({"tools": row.get("tools")} | found), filled=self._filled)
        except Malformed as error:
            raise InputError(f"source {self.name!r}: {where()}: {error}") from None

    def _part(self, field: str, text: str, compiled: Callable[[str], Any] | None = None) -> _Part:
        try:
            return f"{field} {text!r}", (compiled or self._sandbox.compiled)(text)
        except ERRORS as error:
            raise InputError(f"source {self.name!r}: {field} {text[:200]!r}: template: {reason(error)}") from error

    def _rendered(self, part: _Part, row: dict[str, Any], where: Where) -> Any:
        name, render = part
        try:
            return render(row)
        except ERRORS as error:
            at = f"{place}: " if (place := where()) else ""
            raise InputError(
                f"source {self.name!r}: {at}{name}: {reason(error)}; the columns are {', '.join(row)}{_near(error, row)}"
            ) from error


def _near(error: BaseException, row: dict[str, Any]) -> str:
    """The column whose name is most like the undefined one, as a suggestion."""
    undefined = re.match("'(.*)' is undefined", str(error))
    near = difflib.get_close_matches(undefined[1], row, n=1) if undefined else []
    return f"; did you mean {near[0]!r}?" if near else ""


class Encoder:
    """Tokenises the parts of a row and truncates them to data.max_length.

    The prompt has the tokens that an evaluation would feed, so the labels begin where an answer would begin. A row ends with
    exactly one end token, whether or not the tokenizer adds one.
    """

    def __init__(self, data: Data, tokenizer: Any):
        self._data, self._tokenizer = data, tokenizer
        self._added = _added_at_end(tokenizer)
        self._everything = data.loss_on == "everything"

    def __call__(self, parts: Parts) -> Tokens:
        return self.cut(self.uncut(parts))

    def uncut(self, parts: Parts) -> Tokens:
        """All tokens of a row, and labels.

        Raises InputError for a row that the template cannot render, or not with exact labels where the loss is on responses.
        """
        if isinstance(parts, Conversation):
            ids, labels = self._turns(parts)
        else:
            prompt, ids = self._prompted(parts)
            labels = [IGNORED] * prompt + ids[prompt:]
        return ids, ids if self._everything else labels

    def cut(self, tokens: Tokens) -> Tokens:
        ids, labels = tokens
        return ids[: self._data.max_length], labels[: self._data.max_length]

    def _prompted(self, parts: tuple[str, ...]) -> tuple[int, list[int]]:
        """The number of prompt tokens, and all token ids."""
        if len(parts) == 1:
            return 0, self._ended(self._ids(parts[0]))
        if self._data.template == "chat":
            return self._chat(*parts)
        instruction, given, response = parts
        return self._completed((alpaca if self._data.template == "alpaca" else plain)(instruction, given), response)

    def _turns(self, row: Conversation) -> Tokens:
        if self._data.template == "alpaca":
            raise InputError(NO_ALPACA)
        if self._data.template == "chat" and self._everything:
            ids = turns.everything(self._tokenizer, row, self._chat_template(row.tools))
            return ids, ids
        if self._data.template == "chat":
            ids, spans = turns.chat(self._tokenizer, row, self._chat_template(row.tools))
            labels = [IGNORED] * len(ids)
            for begin, end in spans:
                labels[begin:end] = ids[begin:end]
            return ids, labels
        ids, labels = [], []
        for prompt, response, learnt in turns.plain(row):
            before, whole = self._joined(prompt, response or "", first=not ids)
            whole = whole if response is None else self._ended(whole)
            ids += whole
            labels += [IGNORED] * before + whole[before:] if learnt else [IGNORED] * len(whole)
        return ids, labels

    def _completed(self, prompt: str, response: str) -> tuple[int, list[int]]:
        before, whole = self._joined(prompt, response)
        return before, self._ended(whole)

    def _joined(self, prompt: str, response: str, first: bool = True) -> tuple[int, list[int]]:
        """The number of prompt tokens, and all token ids, without an end. `first`: nothing comes before the prompt."""
        # tokenised together: many tokenizers encode a text differently at its start
        before, whole = self._ids(prompt, first), self._ids(prompt + response, first)
        if whole[: len(before)] != before:  # a token spans the border, so the response is tokenised by itself
            whole = before + self._tokenizer(response, add_special_tokens=False)["input_ids"]
        return len(before), whole

    def _ids(self, text: str, first: bool = True) -> list[int]:
        if not first:
            return list(self._tokenizer(text, add_special_tokens=False)["input_ids"])
        ids = self._tokenizer(text)["input_ids"]  # less the special tokens that the tokenizer appends
        return ids[: len(ids) - self._added]

    def _ended(self, ids: list[int]) -> list[int]:
        end = self._tokenizer.eos_token_id
        if end is None:
            raise InputError(
                f"the tokenizer of {self._base} has no end token, so no row would end; "
                "set eos_token in its tokenizer_config.json, or use data.template chat where its chat template ends messages"
            )
        return ids if ids[-1:] == [end] else [*ids, end]  # some data sets write the end token into their responses

    def _chat_template(self, tools: Any = None) -> str:
        """The tokenizer's chat template, with its date fixed to data.date if that is set."""
        if getattr(self._tokenizer, "chat_template", None) is None:
            raise InputError(
                f"data.template: {self._base} has no chat template; use alpaca or plain, or the instruct model of this base"
            )
        text = str(self._tokenizer.get_chat_template(tools=tools))
        return text if self._data.date is None else dated(text, self._data.date)

    @property
    def _base(self) -> str:
        return str(getattr(self._tokenizer, "name_or_path", ""))

    def _chat(self, instruction: str, given: str, response: str) -> tuple[int, list[int]]:
        template = self._chat_template()
        question = [{"role": "user", "content": f"{instruction}\n\n{given}" if given else instruction}]
        answered = [*question, {"role": "assistant", "content": response}]
        apply = functools.partial(self._tokenizer.apply_chat_template, chat_template=template, tokenize=True, return_dict=False)
        try:
            before = [] if self._everything else apply(question, add_generation_prompt=True)
            whole = apply(answered)
        except ERRORS as error:  # the template is the model's own
            raise InputError(
                f"data.template: the chat template of {self._base} takes no user and assistant: {reason(error)}"
            ) from error
        if whole[: len(before)] != before:
            raise InputError(
                f"data.template: the chat template of {self._base} writes an answered message differently from one that awaits "
                f"its answer, so the response cannot be separated from the prompt; use alpaca or plain, or data.loss_on: "
                "everything"
            )
        return len(before), list(whole)


def _added_at_end(tokenizer: Any) -> int:
    """The number of special tokens that the tokenizer appends to a text."""
    whole, bare = tokenizer("a")["input_ids"], tokenizer("a", add_special_tokens=False)["input_ids"]
    for begin in range(len(whole) - len(bare) + 1):
        if bare and whole[begin : begin + len(bare)] == bare:
            return len(whole) - begin - len(bare)
    return 0
