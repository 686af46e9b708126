"""A row as text and as tokens: a source's columns in the trial's prompt template, and which tokens the loss counts.

`alpaca` is Stanford Alpaca's prompt. `plain` is instruction, input and response, each on its own line. `chat` is the
tokenizer's own chat template with a user's message (instruction, empty line, input) and an assistant's. Alpaca and plain rows
end with the tokenizer's end token, a chat as its template ends it.
"""

import datetime as dt
import difflib
import re
from collections.abc import Callable
from functools import cached_property
from typing import Any

from trials.data.sandbox import ERRORS, Sandbox, present
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

_Part = tuple[str, Callable[[dict[str, Any]], str]]
"""A field's name for errors, and the function that renders it."""
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
    """Renders a source's row: (instruction, input, response), or (text,) for a source of plain text.

    Parts are stripped, but the last one (response or text) keeps the indentation of its first line.
    """

    def __init__(self, name: str, source: Source):
        self.name = name
        self._sandbox = Sandbox()
        fields = ("text",) if source.text is not None else ("instruction", "input", "response")
        self._parts = [self._part(field, getattr(source, field) or "") for field in fields]

    def __call__(self, row: dict[str, Any], where: str = "") -> tuple[str, ...]:
        """`where`: the row's file and number, for errors."""
        row = present(row)
        return tuple(self._rendered(part, row, where, part is self._parts[-1]) for part in self._parts)

    def _part(self, field: str, text: str) -> _Part:
        try:
            return f"{field} {text!r}", self._sandbox.compiled(text)
        except ERRORS as error:
            raise InputError(f"source {self.name!r}: {field} {text[:200]!r}: template: {_reason(error)}") from error

    def _rendered(self, part: _Part, row: dict[str, Any], where: str, last: bool) -> str:
        name, render = part
        try:
            text = render(row)
        except ERRORS as error:
            at = f"{where}: " if where else ""
            raise InputError(
                f"source {self.name!r}: {at}{name}: {_reason(error)}; the columns are {', '.join(row)}{_near(error, row)}"
            ) from error
        return _LEADING_LINES.sub("", text.rstrip()) if last else text.strip()


def _reason(error: BaseException) -> str:
    return " ".join(str(error).split()) or type(error).__name__


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

    @cached_property
    def _template(self) -> dict[str, Any]:
        """The argument of apply_chat_template that fixes the template's date to data.date, if that is set."""
        if self._data.date is None:
            return {}
        return {"chat_template": dated(self._tokenizer.get_chat_template(), self._data.date)}

    def __call__(self, parts: tuple[str, ...]) -> Tokens:
        return self.tokens(*self.uncut(parts))

    def uncut(self, parts: tuple[str, ...]) -> tuple[int, list[int]]:
        """The number of prompt tokens, and all token ids, not truncated."""
        if len(parts) == 1:
            return 0, self._ended(self._ids(parts[0]))
        if self._data.template == "chat":
            return self._chat(*parts)
        instruction, given, response = parts
        return self._completed((alpaca if self._data.template == "alpaca" else plain)(instruction, given), response)

    def tokens(self, prompt: int, ids: list[int]) -> Tokens:
        """Truncated ids and labels; the first `prompt` ids have no labels unless data.loss_on is everything."""
        labels = ids if self._data.loss_on == "everything" else [IGNORED] * prompt + ids[prompt:]
        return ids[: self._data.max_length], labels[: self._data.max_length]

    def _completed(self, prompt: str, response: str) -> tuple[int, list[int]]:
        # tokenised together: many tokenizers encode a text differently at its start
        before, whole = self._ids(prompt), self._ids(prompt + response)
        if whole[: len(before)] != before:  # a token spans the border, so the response is tokenised by itself
            whole = before + self._tokenizer(response, add_special_tokens=False)["input_ids"]
        return len(before), self._ended(whole)

    def _ids(self, text: str) -> list[int]:
        ids = self._tokenizer(text)["input_ids"]  # less the special tokens that the tokenizer appends
        return ids[: len(ids) - self._added]

    def _ended(self, ids: list[int]) -> list[int]:
        end = self._tokenizer.eos_token_id
        if end is None:
            raise InputError(
                f"the tokenizer of {getattr(self._tokenizer, 'name_or_path', '')} has no end token, so no row would end; "
                "set eos_token in its tokenizer_config.json, or use data.template chat where its chat template ends messages"
            )
        return ids if ids[-1:] == [end] else [*ids, end]  # some data sets write the end token into their responses

    def _chat(self, instruction: str, given: str, response: str) -> tuple[int, list[int]]:
        base = getattr(self._tokenizer, "name_or_path", "")
        if getattr(self._tokenizer, "chat_template", None) is None:
            raise InputError(
                f"data.template: {base} has no chat template; use alpaca or plain, or the instruct model of this base"
            )
        question = [{"role": "user", "content": f"{instruction}\n\n{given}" if given else instruction}]
        answered = [*question, {"role": "assistant", "content": response}]
        apply, template = self._tokenizer.apply_chat_template, self._template
        try:
            before = apply(question, add_generation_prompt=True, tokenize=True, return_dict=False, **template)
            whole = apply(answered, tokenize=True, return_dict=False, **template)
        except ERRORS as error:  # the template is the model's own
            raise InputError(
                f"data.template: the chat template of {base} takes no user and assistant: {_reason(error)}"
            ) from error
        if whole[: len(before)] != before:
            raise InputError(
                f"data.template: the chat template of {base} writes an answered message differently from one that awaits its "
                f"answer, so the response cannot be separated from the prompt; use alpaca or plain"
            )
        return len(before), list(whole)


def _added_at_end(tokenizer: Any) -> int:
    """The number of special tokens that the tokenizer appends to a text."""
    whole, bare = tokenizer("a")["input_ids"], tokenizer("a", add_special_tokens=False)["input_ids"]
    for begin in range(len(whole) - len(bare) + 1):
        if bare and whole[begin : begin + len(bare)] == bare:
            return len(whole) - begin - len(bare)
    return 0
