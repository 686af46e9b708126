"""Rows of local text files: JSON lines, JSON, CSV and TSV, plain or compressed.

Each value keeps the type that its own row gives it: no column is converted because of other rows, and a CSV cell is a string. A
file is parsed once, cached as Arrow in the cache of `datasets`, and memory-mapped from there.
"""

import csv
import itertools
import json
import re
import sys
import tempfile
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from trials.data import compression
from trials.errors import InputError

Numbered = Iterator[tuple[int, dict[str, Any]]]
"""Rows, each with the line on which it begins; in a JSON list, with its index from 1."""

TABLES = {".parquet": "parquet", ".arrow": "arrow"}
"""File endings that `datasets` reads, with the name of its reader."""
_WRAPPERS = ("data", "rows", "train", "examples", "instances")  # keys of a JSON object that holds its rows in a list
_MISSING = ("nan", "NaN", "<NA>")  # a CSV cell that pandas or numpy wrote for no value
_UTF8, _UTF16 = b"\xef\xbb\xbf", (b"\xff\xfe", b"\xfe\xff")
_MAGIC = {"gzip": b"\x1f\x8b", "bzip2": b"BZh91AY&SY", "xz": b"\xfd7zXZ", "zstd": b"\x28\xb5\x2f\xfd", "Parquet": b"PAR1\x15"}
"""First bytes of binary files that often carry a text ending."""
_DELIMITERS = {",": "commas", ";": "semicolons", "\t": "tabs", "|": "bars"}
# a row is JSON text, because rows of one file may have different types in a column
_SCHEMA = pa.schema([("file", pa.int32()), ("number", pa.int64()), ("line", pa.int64()), ("row", pa.large_string())])
_BATCH = 1_000  # rows of an Arrow batch
_DEEPEST = 100  # lists and objects inside each other: what reads a row recurses, and Python's stack is finite
NESTED = f"lists and objects are nested more than {_DEEPEST} deep; write the inner ones as text"
_BLANKS = re.compile(r"[ \t\r\n]*")


def ending(path: Path) -> str:
    """The suffix that determines the format, in lower case: the last one that is not a compression."""
    suffixes = [suffix.lower() for suffix in path.suffixes]
    return "".join(suffixes[-2:-1] if suffixes[-1:] and suffixes[-1] in compression.ENDINGS else suffixes[-1:])


def known(path: Path) -> bool:
    return ending(path) in _READERS or ending(path) in TABLES


def endings() -> str:
    return f"{', '.join([*_READERS, *TABLES])}; each also with {', '.join(compression.ENDINGS)}"


class Rows(Sequence[dict[str, Any]]):
    """Rows by number."""

    columns: list[str]
    version: tuple[str, ...]
    """Names of cached files, which change with the rows' content."""
    filled = False
    """Whether the objects of a column have the same keys in every row, with null for those that a row lacks."""

    def where(self, number: int) -> str:
        """The row's file and number, counted from 1, for errors."""
        raise NotImplementedError


class TableRows(Rows):
    """Rows of a datasets.Dataset."""

    filled = True

    def __init__(self, dataset: Any, name: str):
        self._dataset, self._name = dataset, name
        self.columns = dataset.column_names
        self.version = tuple(file["filename"] for file in dataset.cache_files)

    def __len__(self) -> int:
        return len(self._dataset)

    def __getitem__(self, number: Any) -> Any:
        return self._dataset[int(number)]

    def where(self, number: int) -> str:
        return f"{self._name}: row {number + 1}"


class FileRows(Rows):
    """Rows of text files, in the files' order. A column that a row lacks is None."""

    def __init__(self, files: Sequence[Path], split: str, cache: Path):
        table = cache / "numbered.arrow"
        if not table.is_file():
            _write(files, table)
        self.columns, self._files = json.loads(table.with_suffix(".json").read_text()), files
        self._table = pa.ipc.open_stream(pa.memory_map(str(table))).read_all()
        self._numbers = numbers_of(split, self._table.num_rows)
        self.version = (str(table), split)

    def __len__(self) -> int:
        return len(self._numbers)

    def __getitem__(self, number: Any) -> Any:
        row = json.loads(self._table["row"][int(self._numbers[number])].as_py())
        return dict.fromkeys(self.columns) | row

    def where(self, number: int) -> str:
        at = int(self._numbers[number])
        file, number, line = (self._table[name][at].as_py() for name in ("file", "number", "line"))
        return _at(self._files[file], number, line)


def numbers_of(split: str, rows: int) -> np.ndarray:
    """(n,) row numbers of a split such as train[:90%]; raises ValueError for an unknown split."""
    import datasets  # takes a second

    parts = datasets.ReadInstruction.from_spec(split).to_absolute({"train": rows})
    return np.concatenate([np.arange(part.from_, part.to) for part in parts])


def _write(files: Sequence[Path], table: Path) -> None:
    """Parses the files into the table, and writes its columns beside it as JSON."""
    columns: dict[str, None] = {}
    table.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=table.parent) as folder:
        made = Path(folder) / table.name
        with pa.OSFile(str(made), "wb") as sink, pa.ipc.new_stream(sink, _SCHEMA) as writer:
            for index, path in enumerate(files):
                numbered = enumerate(_encoded(path, columns), 1)
                while some := list(itertools.islice(numbered, _BATCH)):
                    numbers, encoded = zip(*some, strict=True)
                    lines, texts = zip(*encoded, strict=True)
                    files_of = pa.repeat(pa.scalar(index, pa.int32()), len(some))
                    writer.write_batch(pa.record_batch([files_of, numbers, lines, texts], _SCHEMA))
        named = made.with_suffix(".json")
        named.write_text(json.dumps(list(columns)))
        named.replace(table.with_suffix(".json"))
        made.replace(table)  # last: a reader takes the table as the sign that both are whole


def _encoded(path: Path, columns: dict[str, None]) -> Iterator[tuple[int, str]]:
    """Each row's line, and the row as JSON. Adds its columns to `columns`, in order."""
    number = 0
    for number, (line, row) in enumerate(read(path), 1):
        columns.update(dict.fromkeys(row))
        text = json.dumps(row, ensure_ascii=False)
        try:
            text.encode()
        except UnicodeEncodeError as error:
            half = text[error.start]
            raise InputError(f"{_at(path, number, line)}: {half!r} is half of a character (a lone surrogate)") from None
        yield line, text
    if number == 0:
        raise InputError(f"{path}: has no rows")


def read(path: Path) -> Numbered:
    """The file's rows; raises InputError that names the file and, if one is wrong, the row."""
    with compression.readable(path):
        for number, (line, row) in enumerate(_READERS[ending(path)](path), 1):
            if nested_too_deeply(row):
                raise InputError(f"{_at(path, number, line)}: {NESTED}")
            yield line, row


def nested_too_deeply(value: Any) -> bool:
    """Whether lists and objects inside a list or an object are nested deeper than in any row."""
    outer = [value]
    for _ in range(_DEEPEST):
        inner = (one for some in outer for one in (some.values() if isinstance(some, dict) else some))
        outer = [one for one in inner if isinstance(one, (list, dict))]
    return bool(outer)


def _at(path: Path, number: int, line: int) -> str:
    return f"{path}: row {number}" + (f" (line {line})" if line != number else "")


def _lines(path: Path) -> Iterator[bytes]:
    """The file's lines without a byte order mark."""
    with compression.opened(path) as file:
        for number, line in enumerate(file):
            if number == 0:
                _check_text(path, line)
            yield line.removeprefix(_UTF8) if number == 0 else line


def _check_text(path: Path, first: bytes) -> None:
    """Raises InputError if a file's first line shows that it is not UTF-8 text."""
    if first.startswith(_UTF16) or (bytes(4) in (first[:8:2], first[1:8:2]) and any(first[:8])):
        raise InputError(f"{path}: is UTF-16, and must be UTF-8: iconv -f utf-16 -t utf-8")
    for kind, magic in _MAGIC.items():
        if first.startswith(magic):
            raise InputError(f"{path}: holds {kind} data, which its ending does not say")


def _decoded(line: bytes, where: str) -> str:
    if b"\0" in line:  # zeros are what a crash or a full disk leaves
        raise InputError(f"{where}: byte 0x00 at column {line.index(0) + 1} is no text; the file is damaged")
    try:
        return line.decode()
    except UnicodeDecodeError as error:
        byte = f"byte 0x{line[error.start]:02x} at column {error.start + 1}"
        raise InputError(f"{where}: not UTF-8 ({byte}); for a file in Latin-1: iconv -f latin1 -t utf-8") from None


# ---------------------------------------------------------------------- JSON


def _json_lines(path: Path) -> Numbered:
    if next((line for line in _lines(path) if line.strip()), b"").lstrip().startswith(b"["):
        yield from _json(path)
        return
    number = 0
    for line, raw in enumerate(_lines(path), 1):
        if raw.strip():
            number += 1
            where = _at(path, number, line)
            yield line, _object(_parsed(_decoded(raw, where), where), where)


def _json(path: Path) -> Numbered:
    """A list of objects, an object that holds such a list, or one object a line."""
    lines = enumerate(_lines(path), 1)
    text = "".join(_decoded(raw, f"{path}: line {line}") for line, raw in lines)
    if text.lstrip().startswith("["):
        yield from _elements(path, text)
        return
    try:
        whole = json.loads(text, strict=False, object_pairs_hook=_distinct)
    except (ValueError, RecursionError):  # one object a line, or broken: reading it by lines finds the row
        whole = None
    rows = [whole[key] for key in _WRAPPERS if isinstance(whole, dict) and _objects(whole.get(key))]
    if rows:
        yield from enumerate(rows[0], 1)
    elif isinstance(whole, dict) and any(_columnar(value) for value in whole.values()):
        raise InputError(f"{path}: is one object, not rows; write a list of objects, or each object on a line of its own")
    elif isinstance(whole, dict):
        yield 1, whole
    else:
        yield from _json_lines(path)


def _objects(value: Any) -> bool:
    return isinstance(value, list) and bool(value) and all(isinstance(row, dict) for row in value)


def _columnar(value: Any) -> bool:
    """Whether the value looks like a column: pandas writes {"column": {"0": ...}} by default."""
    return (isinstance(value, dict) and "0" in value) or (isinstance(value, list) and not _objects(value))


def _elements(path: Path, text: str) -> Numbered:
    """The objects of a JSON list, decoded one by one so that an error names its row."""
    decoder = json.JSONDecoder(strict=False, object_pairs_hook=_distinct)
    position, number = text.index("[") + 1, 0
    while True:
        position = _after_blanks(text, position)
        if number == 0 and text[position : position + 1] == "]":
            return
        number += 1
        where = f"{path}: row {number}"
        try:
            row, position = decoder.raw_decode(text, position)
        except (ValueError, RecursionError) as error:
            raise InputError(f"{where}: {_not_json(error)}") from None
        yield number, _object(row, where)
        position = _after_blanks(text, position)
        if text[position : position + 1] == "]":
            if text[position + 1 :].strip():
                raise InputError(f"{path}: the list of {number} rows ends, and more follows it")
            return
        if text[position : position + 1] != ",":
            raise InputError(f"{where}: not JSON: no comma or ] follows it")
        position += 1


def _after_blanks(text: str, position: int) -> int:
    return position + len(_BLANKS.match(text, position)[0])  # type: ignore[index]  # it matches everywhere


def _parsed(text: str, where: str) -> Any:
    try:
        # strict=False allows raw control characters in strings, which some writers leave unescaped
        return json.loads(text, strict=False, object_pairs_hook=_distinct)
    except (ValueError, RecursionError) as error:
        raise InputError(f"{where}: {_not_json(error)}") from None


class _DuplicateKey(ValueError):
    """A JSON object has a key twice; Python's decoder would silently keep the last value."""


def _distinct(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    row = dict(pairs)
    if len(row) < len(pairs):
        names = [name for name, _ in pairs]
        raise _DuplicateKey(f"{next(name for name in names if names.count(name) > 1)!r} occurs twice in one object")
    return row


def _not_json(error: Exception) -> str:
    if isinstance(error, _DuplicateKey):
        return str(error)
    if isinstance(error, json.JSONDecodeError):
        end = error.doc.rstrip()
        lines, column = end.count("\n") + 1, len(end) - end.rfind("\n") - 1
        last = f"column {column}" if lines == 1 else f"line {lines}, column {column}"
        if error.msg.startswith("Unterminated string"):
            return f"not JSON: cut short at {last}, in the text that begins at column {error.colno}"
        if error.pos >= len(end):
            return f"not JSON: cut short at {last}"
        return f"not JSON: {error.msg}, column {error.colno}"
    if isinstance(error, RecursionError):
        return "not JSON that can be read: nested too deeply"
    return "not JSON that can be read: a whole number of more than 4,300 digits"  # Python's own limit


def _object(row: Any, where: str) -> dict[str, Any]:
    if not isinstance(row, dict):
        kind = "a list" if isinstance(row, list) else "a text" if isinstance(row, str) else json.dumps(row)[:40]
        raise InputError(f"{where}: is {kind}, not an object with columns")
    return row


# ---------------------------------------------------------------------- CSV


def _separated(path: Path, delimiter: str) -> Numbered:
    csv.field_size_limit(sys.maxsize)  # the default refuses fields beyond 128 KiB
    number = 0

    def texts() -> Iterator[str]:  # decoded line by line, so that an error names its row
        for line, raw in enumerate(_lines(path), 1):
            yield _decoded(raw, f"{path}: row {number + 1} (line {line})" if line > 1 else f"{path}: header")

    reader, first = csv.reader(texts(), delimiter=delimiter, strict=True), 1
    try:
        header = next((cells for cells in reader if cells), [])
        if len(header) == 1 and (other := next((sign for sign in _DELIMITERS if sign in header[0]), None)):
            wanted, used = _DELIMITERS[delimiter], _DELIMITERS[other]
            raise InputError(
                f"{path}: its header is one field, {header[0]!r}; {wanted} divide a file with this ending, not {used}"
            )
        if twice := sorted({name for name in header if header.count(name) > 1}):
            raise InputError(f"{path}: column {twice[0]!r} occurs twice in the header")
        first = reader.line_num + 1
        for cells in reader:
            if cells:
                number += 1
                yield first, _cells(header, cells, f"{path}: row {number} (line {first})")
            first = reader.line_num + 1
    except csv.Error as error:
        # the line where the row begins: a quote that is never closed runs to the end of the file
        raise InputError(
            f"{path}:{first}: row {number + 1}: not CSV: {error}; a quote inside a quoted field is doubled"
        ) from None


def _cells(header: list[str], cells: list[str], where: str) -> dict[str, Any]:
    if len(cells) != len(header):
        raise InputError(f"{where}: has {len(cells)} fields, the header {len(header)}: {', '.join(header)}")
    return {name: None if cell in _MISSING else cell for name, cell in zip(header, cells, strict=True)}


_READERS: Mapping[str, Callable[[Path], Iterable[tuple[int, dict[str, Any]]]]] = {
    ".jsonl": _json_lines,
    ".ndjson": _json_lines,
    ".json": _json,
    ".csv": lambda path: _separated(path, ","),
    ".tsv": lambda path: _separated(path, "\t"),
}
