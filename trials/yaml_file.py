"""Reads a YAML file with the position of every value, and checks it against a pydantic model.

Every problem is a line `file:line:column: what is wrong; what is allowed` of one InputError. Plain values follow YAML 1.2:
`010` is 10, `1e-4` is a number, `yes` and `1:30` are text. `<<` merges.
"""

import codecs
import re
from pathlib import Path
from typing import Any, TypeVar, cast

import yaml
from pydantic import BaseModel, ValidationError

from trials.errors import InputError
from trials.explain import Place, problems, required

Model = TypeVar("Model", bound=BaseModel)

_BYTES = 2**20
_DEPTH = 50  # a config needs 6; the parser recurses
_VALUES = 50_000  # an alias counts at each expansion: a small file can expand to billions of values
_DIGITS = 300  # of a whole number; a float has no more
_TAG = "tag:yaml.org,2002:"
_MERGE = f"{_TAG}merge"
_NULLS = ("", "~", "null", "Null", "NULL")
_TRUTHS = {word: word.lower() == "true" for word in ("true", "True", "TRUE", "false", "False", "FALSE")}
_UNPRINTABLE = yaml.reader.Reader.NON_PRINTABLE
_DATE = yaml.SafeLoader.timestamp_regexp


def _problem(text: str, node: yaml.Node | yaml.Event) -> yaml.MarkedYAMLError:
    return yaml.MarkedYAMLError(problem=text, problem_mark=cast(Any, node.start_mark))


class _Loader(yaml.SafeLoader):
    """Composes nodes with the tags of YAML 1.2's core schema; refuses deep nesting and recursive aliases."""

    yaml_implicit_resolvers = {}  # noqa: RUF012  without YAML 1.1's

    def __init__(self, text: str):
        super().__init__(text)
        self._open: list[str | None] = []  # the anchors around the current node, None for a node without one
        self._read = 0

    def compose_node(self, parent: Any, index: Any) -> Any:
        event: Any = self.peek_event()
        self._read += 1
        if isinstance(event, yaml.AliasEvent) and event.anchor in self._open:
            raise _problem(f"*{event.anchor} stands inside &{event.anchor}, which would never end", event)
        if len(self._open) == _DEPTH:
            raise _problem(f"nested more than {_DEPTH} levels deep", event)
        if self._read > _VALUES:
            raise _problem(f"more than {_VALUES:,} values", event)
        self._open.append(None if isinstance(event, yaml.AliasEvent) else event.anchor)
        node = super().compose_node(parent, index)
        self._open.pop()
        return node


class _Dumper(yaml.SafeDumper):
    """Quotes text that either version of YAML would read as another type."""


# Unlike YAML 1.2, digits may be grouped as in 1_000: nobody means a text by that.
for _kind, _pattern, _first in (
    ("null", r"~|null|Null|NULL|", ["~", "n", "N", ""]),
    ("bool", r"true|True|TRUE|false|False|FALSE", list("tTfF")),
    ("int", r"[-+]?[0-9][0-9_]*|0o[0-7]+|0x[0-9a-fA-F]+", list("-+0123456789")),
    (
        "float",
        r"[-+]?(\.[0-9]+|[0-9][0-9_]*(\.[0-9_]*)?)([eE][-+]?[0-9]+)?|[-+]?\.(inf|Inf|INF)|\.(nan|NaN|NAN)",
        list("-+.0123456789"),
    ),
    ("merge", r"<<", ["<"]),
):
    _Loader.add_implicit_resolver(f"{_TAG}{_kind}", re.compile(f"^(?:{_pattern})$"), _first)
    _Dumper.add_implicit_resolver(f"{_TAG}{_kind}", re.compile(f"^(?:{_pattern})$"), _first)


def dump(data: Any) -> str:
    """Plain data as YAML that this module and readers of YAML 1.1 read back unchanged."""
    return str(yaml.dump(data, Dumper=_Dumper, sort_keys=False, allow_unicode=True))


def _scalar(node: Any) -> Any:
    """The value of a node that is neither a list nor a mapping."""
    text, kind = node.value, node.tag.removeprefix(_TAG)
    try:
        match kind:
            case "str" | "merge" | "!":
                return _text(node)
            case "null" if text in _NULLS:
                return None
            case "bool":
                return _TRUTHS[text]
            case "int":
                return _whole(node)
            case "float":
                return float(text.lower().replace("_", "").replace(".inf", "inf").replace(".nan", "nan"))
    except (ValueError, KeyError):
        pass
    raise _problem(f"{_shown(text)} is no {kind}; plain values need no tag", node)


def _text(node: Any) -> str:
    text = str(node.value)
    if bad := re.search("[\0\ud800-\udfff]", text):
        raise _problem(f"the character U+{ord(bad[0]):04X} has no place in a config", node)
    if node.style is None and _DATE.match(text):  # a plain 2024-02-31 is a mistake, not a text
        try:
            yaml.SafeLoader("").construct_yaml_timestamp(node)
        except (ValueError, OverflowError):
            raise _problem(f"{text} is no date; write it in quotes if it is a text", node) from None
    return text


def _whole(node: Any) -> int:
    text = node.value.replace("_", "")
    if len(text) > _DIGITS:
        raise _problem(f"a whole number of {len(text.lstrip('+-')):,} digits; nothing here is that large", node)
    base = {"0o": 8, "0x": 16}.get(text[:2], 10)
    return int(text, base)


def _shown(text: str) -> str:
    return repr(text if len(text) < 60 else text[:57] + "...")


class YamlFile:
    """A parsed file: `data` (dicts, lists, scalars), and `where(place)`, the file, line and column of a value."""

    def __init__(self, path: Path, text: str | None = None):
        self.path = path
        self._positions: dict[Place, tuple[int, int]] = {(): (1, 1)}
        self._named: dict[Place, str] = {}
        self._built = 0
        text = self._text() if text is None else text
        if bad := _UNPRINTABLE.search(text):
            hint = "; save it as UTF-8" if bad[0] == "\0" else ""
            raise InputError(f"{self._at(text[: bad.start()])}: not YAML: the character U+{ord(bad[0]):04X}{hint}")
        try:
            node = _Loader(text).get_single_node()
            self.data: Any = {} if node is None else self._build(node, ())
        except yaml.MarkedYAMLError as error:
            mark = error.problem_mark or error.context_mark
            where = f":{mark.line + 1}:{mark.column + 1}" if mark else ""
            said = ", ".join(part for part in (error.context, error.problem) if part)
            hint = "; indent with blanks, not tabs" if "'\\t'" in said else ""
            raise InputError(f"{path}{where}: not YAML: {said}{hint}") from None
        if self.data is None:
            self.data = {}
        if not isinstance(self.data, dict):
            raise InputError(
                f"{path}:1:1: expected keys and values, found a {'list' if isinstance(self.data, list) else 'text'}"
            )

    def _text(self) -> str:
        try:
            with self.path.open("rb") as file:
                raw = file.read(_BYTES + 1)
        except FileNotFoundError:
            raise InputError(f"{self.path}: no such file") from None
        except OSError as error:
            raise InputError(f"{self.path}: cannot be read: {error.strerror or error}") from None
        if len(raw) > _BYTES:
            raise InputError(f"{self.path}:1:1: more than {_BYTES // 2**20} MiB; this is no config")
        if raw.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE, codecs.BOM_UTF32_BE)):
            raise InputError(f"{self.path}:1:1: not UTF-8 but UTF-16 or UTF-32; save it as UTF-8")
        try:
            return raw.decode("utf-8-sig")
        except UnicodeDecodeError as error:
            before = raw[: error.start].decode("utf-8", "replace")
            byte = raw[error.start]
            raise InputError(f"{self._at(before)}: the byte 0x{byte:02x} is not UTF-8 (Latin-1?); save it as UTF-8") from None

    def _at(self, before: str) -> str:
        """File, line and column of the character after this text."""
        return f"{self.path}:{before.count(chr(10)) + 1}:{len(before) - before.rfind(chr(10))}"

    def _build(self, node: Any, place: Place) -> Any:
        self._built += 1
        if self._built > _VALUES:
            raise _problem(f"with its aliases expanded it has more than {_VALUES:,} values", node)
        value: Any
        if isinstance(node, yaml.MappingNode):
            value = self._mapping(node, place)
        elif isinstance(node, yaml.SequenceNode):
            value = [self._build(child, (*place, i)) for i, child in enumerate(node.value)]
        else:
            value = _scalar(node)
        if not isinstance(node, yaml.ScalarNode) and node.tag not in (f"{_TAG}map", f"{_TAG}seq"):
            raise _problem(f"the tag {node.tag} has no meaning here", node)
        self._positions[place] = (node.start_mark.line + 1, node.start_mark.column + 1)
        return value

    def _mapping(self, node: yaml.MappingNode, place: Place) -> dict[str, Any]:
        """The mapping with its merges. A key of its own overrides a merged one, independent of their order."""
        entries: dict[str, tuple[Any, Any]] = {}
        for key_node, value_node in node.value:
            if not isinstance(key_node, yaml.ScalarNode):
                raise _problem("a key is a text, not a list or a mapping", key_node)
            key = _text(key_node)
            if key in entries:
                raise _problem(f"key {_shown(key)} stands here twice", key_node)
            entries[key] = key_node, value_node
        result: dict[str, Any] = {}
        if "<<" in entries and entries["<<"][0].tag == _MERGE:
            result = self._merged(entries.pop("<<")[1], place)
        for key, (key_node, value_node) in entries.items():
            result[key] = self._build(value_node, (*place, key))
            self._positions[(*place, key)] = (key_node.start_mark.line + 1, key_node.start_mark.column + 1)
        return result

    def _merged(self, node: Any, place: Place) -> dict[str, Any]:
        result: dict[str, Any] = {}
        for source in reversed(
            node.value if isinstance(node, yaml.SequenceNode) else [node]
        ):  # an earlier source overrides a later one
            if not isinstance(source, yaml.MappingNode):
                raise _problem("`<<` takes a mapping or a list of mappings, such as `<<: *name`", node)
            result |= self._build(source, place)
        return result

    def where(self, place: Place) -> str:
        """`file:line:column` of the value at this place, or of the innermost value around it that the file contains."""
        for end in range(len(place), -1, -1):
            if place[:end] in self._named:
                return self._named[place[:end]]
        while place not in self._positions:
            place = place[:-1]
        line, column = self._positions[place]
        return f"{self.path}:{line}:{column}"

    def name(self, place: Place, where: str) -> None:
        """Sets the origin of a value that was added after reading, or of the whole file at the place ()."""
        self._named[place] = where

    def take(self, key: str, other: "YamlFile") -> None:
        """Replaces a section by that of another file; problems in it are reported at that file's lines."""
        self.data[key] = other.data[key]
        for place in other._positions:
            if place[:1] == (key,):
                self._named[place] = other.where(place)

    def check(self, model: type[Model]) -> Model:
        """The data as `model`. Raises InputError with a line for every problem."""
        if not self.data:
            raise InputError(f"{self.where(())}: the file is empty; expected {', '.join(required(model))}")
        try:
            return model.model_validate(self.data)
        except ValidationError as error:
            lines = (f"{self.where(place)}: {text}" for place, text in problems(error, model, self.data))
            raise InputError("\n".join(dict.fromkeys(lines))) from None
