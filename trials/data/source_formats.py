"""Recognises a source's format by its columns, where its definition names only the data set.

A format is recognised if exactly one fits. A column `text` counts only where no other format fits, because many data sets
carry their rendered rows in it. Names of columns are compared without case.
"""

import difflib
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from trials.data.conversation import holds_messages
from trials.data.row_files import Rows
from trials.errors import InputError
from trials.spec import Source

_CONVERSATIONS = ("messages", "conversations", "conversation")
_TEXTS: Mapping[str, Mapping[str, tuple[str, ...]]] = {
    "prompt/completion": {"instruction": ("prompt",), "response": ("completion",)},
    "Alpaca": {"instruction": ("instruction",), "response": ("output",), "input": ("input", "context")},
    "instruction/response": {"instruction": ("instruction",), "response": ("response",), "input": ("input", "context")},
    "question/answer": {"instruction": ("question",), "response": ("answer",), "input": ("context",)},
    "plain text": {"text": ("text",)},
}
"""By format: the columns of each field. `input` is optional, and its first column that exists is read."""
_PLAIN = "plain text"
_SEARCHED = 10_000  # rows in which a misspelt key is looked for
_LOOKED_AT = 100  # rows until one has a value that shows its kind


@dataclass(frozen=True)
class Format:
    """A recognised format."""

    name: str
    source: Source
    """The definition with the templates of this format."""
    read: tuple[str, ...]
    """Columns."""
    unread: tuple[str, ...]
    detail: str = ""

    def __str__(self) -> str:
        columns = f"column{'s' * (len(self.read) > 1)} {', '.join(self.read)}{f' ({self.detail})' if self.detail else ''}"
        return f"{self.name}, by its {columns}" + (f"; not read: {', '.join(self.unread)}" if self.unread else "")


def recognised(name: str, source: Source, rows: Rows) -> Format | None:
    """The format of a source without templates; None for one with templates of its own. InputError unless one format fits."""
    if source.explicit:
        return None
    found = list(_fitting(source, rows))
    if len(found) > 1:
        found = [one for one in found if one.name != _PLAIN]
    if len(found) == 1:
        return found[0]
    columns = ", ".join(rows.columns) or "none"
    if not found:
        first, *others = rows.columns or ("a", "b")
        such = f'instruction: "{{{{{first}}}}}" and response: "{{{{{others[-1]}}}}}"' if others else f'text: "{{{{{first}}}}}"'
        raise InputError(
            f"source {name!r}: {source.dataset}: its columns ({columns}) fit no known format (messages, conversations, prompt "
            f"and completion, instruction and output, question and answer, text){_meant(rows.columns)}; write templates over "
            f"them in data.sources.{name}, such as {such}"
        )
    fits = " and ".join(f"{one.name} ({', '.join(one.read)})" for one in found)
    ways = ", or ".join(_spelled(one.source) for one in found)
    raise InputError(
        f"source {name!r}: {source.dataset}: its columns ({columns}) fit {fits}; write the one that is meant in "
        f"data.sources.{name}: {ways}"
    )


def _meant(columns: Sequence[str]) -> str:
    """The column of a format that a misspelt one is most like."""
    known = {*_CONVERSATIONS, *(name for fields in _TEXTS.values() for names in fields.values() for name in names)}
    near = ((column, difflib.get_close_matches(column.lower(), known, n=1, cutoff=0.8)) for column in columns)
    return next((f"; did you mean {meant[0]} by {column}?" for column, meant in near if meant and column not in known), "")


def _fitting(source: Source, rows: Rows) -> Iterator[Format]:
    by_name = {column.lower(): column for column in rows.columns}
    for wanted in _CONVERSATIONS:
        if (column := by_name.get(wanted)) and (keys := _keys(rows, column)) is not None:
            fields = {"messages": column} | {field: by_name[field] for field in ("system", "tools") if field in by_name}
            yield _conversations(source, rows, fields, keys)
    for name, wanted_columns in _TEXTS.items():
        found = {
            field: next((by_name[one] for one in names if one in by_name), None) for field, names in wanted_columns.items()
        }
        if all(column is not None for field, column in found.items() if field != "input"):
            yield _texts(source, rows, name, {field: column for field, column in found.items() if column is not None})


def _conversations(source: Source, rows: Rows, columns: dict[str, str], keys: Sequence[str]) -> Format:
    update = {"messages": _template(columns["messages"])}
    if "system" in columns:
        system = columns["system"]
        update["context"] = f"{{{{ [{{'role': 'system', 'content': {system}}}] if {system} else [] }}}}"
    if "tools" in columns:
        update["tools"] = _template(columns["tools"])
    name = "ShareGPT" if "from" in keys else "messages"
    detail = ", ".join(key for key in ("role", "from", "content", "value") if key in keys)
    return _format(name, source.model_copy(update=update), rows, columns.values(), detail)


def _texts(source: Source, rows: Rows, name: str, columns: dict[str, str]) -> Format:
    fields = {field: _template(column) for field, column in columns.items()}
    tools: list[str] = []
    if name == "prompt/completion" and any(holds_messages(_first(rows, column)) for column in columns.values()):
        # lists of messages: the loss leaves out the prompt, whoever speaks in it
        name, fields = "prompt/completion of messages", {"context": fields["instruction"], "messages": fields["response"]}
        tools = [column for column in rows.columns if column.lower() == "tools"][:1]
        fields |= dict(zip(("tools",), map(_template, tools), strict=False))
    return _format(name, source.model_copy(update=fields), rows, [*columns.values(), *tools])


def _format(name: str, source: Source, rows: Rows, read: Any, detail: str = "") -> Format:
    columns = tuple(read)
    unread = tuple(_unread(column, columns, rows) for column in rows.columns if column not in columns)
    return Format(name, source, columns, unread, detail)


def _unread(column: str, read: tuple[str, ...], rows: Rows) -> str:
    """The column's name; where it stands in a row in place of a read one, as a misspelt key does, with the first such row."""
    near = difflib.get_close_matches(column, read, n=1, cutoff=0.85)
    if not near:
        return column
    some = ((number, rows[number]) for number in range(min(len(rows), _SEARCHED)))
    first = next((number for number, row in some if row.get(column) is not None and row.get(near[0]) is None), None)
    return column if first is None else f"{column} (did you mean {near[0]}? first: {rows.where(first)})"


def _template(column: str) -> str:
    return f"{{{{{column}}}}}"


def _spelled(source: Source) -> str:
    fields = source.model_dump(include={"messages", "instruction", "input", "response", "text"}, exclude_defaults=True)
    return ", ".join(f"{field}: {json.dumps(text)}" for field, text in fields.items())


def _keys(rows: Rows, column: str) -> list[str] | None:
    """The keys of the column's first message; empty if the first rows have no message, None if the values are no messages."""
    value = _first(rows, column)
    if isinstance(value, str) and value.lstrip().startswith(("[", "{")):
        try:
            value = json.loads(value, strict=False)
        except (ValueError, RecursionError):  # reading the row reports it
            return []
    if isinstance(value, list) and value:
        value = value[0] if isinstance(value[0], dict) else {}
    if isinstance(value, dict):
        return [str(key) for key in value]
    return [] if value in (None, []) else None


def _first(rows: Rows, column: str) -> Any:
    """The column's first value that is not empty; None if the first rows have none."""
    values = (rows[number].get(column) for number in range(min(len(rows), _LOOKED_AT)))
    return next((value for value in values if value not in (None, "", [], "[]")), None)
