"""A row as text and as tokens: what a source's columns say, in the trial's template, and which tokens the loss counts.

`alpaca` is Stanford Alpaca's prompt. `plain` is instruction, input and response on lines of their own, with nothing said around
them. `chat` is what the tokenizer's own chat template makes of a user's message (instruction, an empty line, input) and an
assistant's. Alpaca and plain rows end with the tokenizer's end token, a chat as its template has it.
"""

import datetime as dt
from functools import cached_property
from typing import Any

import jinja2

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
IGNORED = -100  # the label that the loss leaves out

Tokens = tuple[list[int], list[int]]
"""Token ids and labels, of one length: a label is its id, or IGNORED."""


def alpaca(instruction: str, given: str) -> str:
    """The prompt, up to where the response begins."""
    return (_ALPACA_INPUT if given else _ALPACA).format(instruction=instruction, input=given)


def plain(instruction: str, given: str) -> str:
    return f"{instruction}\n{given}\n" if given else f"{instruction}\n"


def dated(template: str, date: dt.date) -> str:
    """The chat template with `strftime_now` at the start of this date: transformers passes no function to a template."""
    written = [(f"%{sign}{letter}", date.strftime(f"%{sign}{letter}")) for letter in _DIRECTIVES for sign in ("-", "")]
    replaced = "".join(f".replace({before!r}, {after!r})" for before, after in [*written, ("%%", "%")])
    return f"{{%- macro strftime_now(format) -%}}{{{{- format{replaced} -}}}}{{%- endmacro -%}}{template}"


class Reader:
    """Reads a source's row: (instruction, input, response), or (text,) of a source of plain text."""

    def __init__(self, name: str, source: Source):
        self.name = name
        # a missing value is an empty text, where jinja would write None
        environment = jinja2.Environment(
            undefined=jinja2.StrictUndefined, autoescape=False, finalize=lambda value: "" if value is None else value
        )
        texts = (source.text,) if source.text is not None else (source.instruction, source.input, source.response)
        try:
            self._parts = [environment.from_string(text or "") for text in texts]
        except jinja2.TemplateSyntaxError as error:
            raise InputError(f"source {name!r}: template: {error}") from error

    def __call__(self, row: dict[str, Any]) -> tuple[str, ...]:
        try:
            return tuple(part.render(row).strip() for part in self._parts)
        except (jinja2.TemplateError, TypeError) as error:
            raise InputError(f"source {self.name!r}: template: {error}; the columns are {', '.join(row)}") from error


class Encoder:
    """Turns what a Reader read into tokens, cut at data.max_length.

    The prompt's tokens are those that an evaluation would feed, so what the loss counts begins where an answer would begin.
    """

    def __init__(self, data: Data, tokenizer: Any):
        self._data, self._tokenizer = data, tokenizer

    @cached_property
    def _template(self) -> dict[str, Any]:
        """apply_chat_template's argument for a template whose date is data.date; none for the tokenizer's own, with today's."""
        if self._data.date is None:
            return {}
        return {"chat_template": dated(self._tokenizer.get_chat_template(), self._data.date)}

    def __call__(self, parts: tuple[str, ...]) -> Tokens:
        if len(parts) == 1:
            return self.tokens(0, [*self._tokenizer(parts[0])["input_ids"], self._tokenizer.eos_token_id])
        if self._data.template == "chat":
            return self._chat(*parts)
        instruction, given, response = parts
        return self._completed((alpaca if self._data.template == "alpaca" else plain)(instruction, given), response)

    def tokens(self, prompt: int, ids: list[int]) -> Tokens:
        """Of a row whose first `prompt` ids are not learnt unless all of it is."""
        labels = ids if self._data.loss_on == "everything" else [IGNORED] * prompt + ids[prompt:]
        return ids[: self._data.max_length], labels[: self._data.max_length]

    def _completed(self, prompt: str, response: str) -> Tokens:
        before = self._tokenizer(prompt)["input_ids"]
        whole = self._tokenizer(prompt + response)["input_ids"]
        if whole[: len(before)] != before:  # a token spans the border: the response gets tokens of its own
            whole = before + self._tokenizer(response, add_special_tokens=False)["input_ids"]
        return self.tokens(len(before), [*whole, self._tokenizer.eos_token_id])

    def _chat(self, instruction: str, given: str, response: str) -> Tokens:
        base = getattr(self._tokenizer, "name_or_path", "")
        if getattr(self._tokenizer, "chat_template", None) is None:
            raise InputError(
                f"data.template: {base} has no chat template; use alpaca or plain, or the instruct model of this base"
            )
        asked = [{"role": "user", "content": f"{instruction}\n\n{given}" if given else instruction}]
        answered = [*asked, {"role": "assistant", "content": response}]
        apply, template = self._tokenizer.apply_chat_template, self._template
        try:
            before = apply(asked, add_generation_prompt=True, tokenize=True, return_dict=False, **template)
            whole = apply(answered, tokenize=True, return_dict=False, **template)
        except jinja2.TemplateError as error:
            raise InputError(f"data.template: the chat template of {base} takes no user and assistant: {error}") from error
        if whole[: len(before)] != before:
            raise InputError(
                f"data.template: the chat template of {base} writes an answered message otherwise than one that it asks to be "
                f"answered, so what is to be learnt cannot be told from the prompt; use alpaca or plain"
            )
        return self.tokens(len(before), list(whole))
