"""Row files of all formats give the same rows, and an error is one line with file and row."""

import bz2
import gzip
import json
import lzma
import os

import pandas as pd
import pyarrow as pa
import pytest

from tests.factories.rows import LINES, ROWS, local_source
from trials.errors import InputError
from trials.hub.hub import Hub
from trials.template import Reader

CSV = pd.DataFrame(ROWS).to_csv(index=False).encode()


def read(dataset: str, **fields) -> list[dict]:
    return list(Hub().rows("mine", local_source(dataset, **fields)))


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("rows.jsonl", LINES),
        ("rows.JSONL", LINES),
        ("rows.ndjson", LINES),
        ("rows.json", LINES),
        ("blank.jsonl", LINES.replace(b"\n", b"\n\n  \n")),
        ("crlf.jsonl", LINES.replace(b"\n", b"\r\n")),
        ("bom.jsonl", b"\xef\xbb\xbf" + LINES),
        ("unended.jsonl", LINES.rstrip()),
        ("list.json", json.dumps(ROWS).encode()),
        ("pretty.json", json.dumps(ROWS, indent=2).encode()),
        ("list.jsonl", json.dumps(ROWS).encode()),
        ("data.json", json.dumps({"version": 1, "data": ROWS}).encode()),
        ("rows.jsonl.gz", gzip.compress(LINES)),
        ("rows.json.gz", gzip.compress(json.dumps(ROWS).encode())),
        ("rows.csv.gz", gzip.compress(CSV)),
        ("rows.jsonl.bz2", bz2.compress(LINES)),
        ("rows.jsonl.xz", lzma.compress(LINES)),
        ("rows.jsonl.zst", pa.compress(LINES, "zstd", asbytes=True)),
        ("rows.ndjson.ZST", pa.compress(LINES[:200], "zstd", asbytes=True) + pa.compress(LINES[200:], "zstd", asbytes=True)),
        ("rows.csv", CSV),
        ("bom.CSV", b"\xef\xbb\xbf" + CSV),
        ("rows.tsv", pd.DataFrame(ROWS).to_csv(index=False, sep="\t").encode()),
        ("my.data.v2.jsonl", LINES),
    ],
)
def test_all_file_formats_give_the_same_rows(folder, name, content):
    (folder / name).write_bytes(content)
    assert read(name) == ROWS


@pytest.mark.parametrize("place", ["[v2]", "50%", "q?a=b", "{a,b}", "a b", "*"])
def test_existing_path_is_not_a_glob_pattern(folder, place):
    (folder / place).mkdir()
    (folder / place / "part-1.jsonl").write_bytes(LINES)
    pd.DataFrame(ROWS).to_parquet(folder / place / "rows.parquet")
    assert read(f"{place}/part-1.jsonl") == read(f"./{place}/part-*.jsonl") == read(f"{place}/rows.parquet") == ROWS
    (folder / place / "part-1.jsonl").unlink()
    assert read(f"./{place}") == ROWS


def nested(levels: int) -> bytes:
    """A row of so many lists and objects inside each other."""
    return b'{"q": ' + b"[" * (levels - 1) + b"]" * (levels - 1) + b', "a": 1}'


def test_row_may_be_nested_a_hundred_deep(folder):
    (folder / "nested.jsonl").write_bytes(nested(100))
    source = local_source("nested.jsonl", instruction="{{a}}", response="{{a}}")
    assert Reader("mine", source)(Hub().rows("mine", source)[0]) == ("1", "", "1")


@pytest.mark.parametrize(
    ("name", "content", "expected"),
    [
        ("empty.jsonl", b"", "empty.jsonl: has no rows"),
        ("blank.jsonl", b"\n \n", "blank.jsonl: has no rows"),
        ("header.csv", b"q,a\n", "header.csv: has no rows"),
        ("list.json", b"[]", "list.json: has no rows"),
        ("latin1.jsonl", LINES + '{"q": "é", "a": "b"}\n'.encode("latin1"), "row 26: not UTF-8 (byte 0xe9"),
        ("latin1.csv", CSV + "é,b\n".encode("latin1"), "row 26 (line 52): not UTF-8 (byte 0xe9"),
        ("utf16.jsonl", LINES.decode().encode("utf-16"), "utf16.jsonl: is UTF-16"),
        ("cut.jsonl", LINES[:-9], "cut.jsonl: row 25: not JSON: cut short at column "),
        ("cut.json", json.dumps(ROWS).encode()[:-9], "cut.json: row 25: not JSON: cut short at column "),
        ("cut.jsonl.gz", gzip.compress(LINES)[:-20], "cut.jsonl.gz: the compressed data is damaged"),
        ("plain.jsonl.gz", LINES, "plain.jsonl.gz: "),
        ("cut.jsonl.zst", pa.compress(LINES, "zstd", asbytes=True)[:-20], "cut.jsonl.zst: cannot be read: Truncated"),
        ("plain.jsonl.zst", LINES, "plain.jsonl.zst: cannot be read"),
        ("packed.jsonl", gzip.compress(LINES), "packed.jsonl: holds gzip data, which its ending does not say"),
        ("packed.csv", bz2.compress(CSV), "packed.csv: holds bzip2 data"),
        ("unmarked.jsonl", LINES.decode().encode("utf-16-le"), "unmarked.jsonl: is UTF-16"),
        ("unmarked.csv", CSV.decode().encode("utf-16-be"), "unmarked.csv: is UTF-16"),
        ("crash.jsonl", LINES + bytes(40), "crash.jsonl: row 26: byte 0x00 at column 1 is no text; the file is damaged"),
        ("crash.csv", CSV + b"a\0,b\n", "crash.csv: row 26 (line 52): byte 0x00 at column 2"),
        ("again.jsonl", LINES + b'{"q": 1, "a": 2, "q": 3}\n', "again.jsonl: row 26: 'q' occurs twice in one object"),
        ("again.json", b'[{"q": 1, "a": {"b": 1, "b": 2}}]', "again.json: row 1: 'b' occurs twice in one object"),
        ("digits.jsonl", b'{"q": ' + b"9" * 5000 + b"}", "digits.jsonl: row 1: not JSON that can be read: a whole number of"),
        ("semi.csv", CSV.replace(b",", b";"), "semi.csv: its header is one field, 'q;a'; commas divide a file with this"),
        ("tabs.csv", CSV.replace(b",", b"\t"), "tabs.csv: its header is one field, 'q\\ta'; commas"),
        ("commas.tsv", CSV, "commas.tsv: its header is one field, 'q,a'; tabs divide a file with this ending, not commas"),
        ("number.jsonl", LINES + b"42\n", "number.jsonl: row 26: is 42, not an object"),
        ("deep.jsonl", b"[" * 100_000, "deep.jsonl: row 1: not JSON that can be read"),
        ("nested.jsonl", LINES + nested(500), "nested.jsonl: row 26: lists and objects are nested more than 100 deep"),
        ("nested.json", b"[" + nested(101) + b"]", "nested.json: row 1: lists and objects are nested more than 100 deep"),
        ("half.jsonl", LINES + b'{"q": "\\ud83d", "a": "b"}\n', "half.jsonl: row 26: '\\ud83d' is half of a character"),
        ("columns.json", json.dumps({"q": ["x"], "a": ["y"]}).encode(), "columns.json: is one object, not rows"),
        ("ragged.csv", CSV + b"a,b,c\n", "ragged.csv: row 26 (line 52): has 3 fields, the header 2: q, a"),
        ("quote.csv", CSV + b'a,"b\n' + b"c,d\n" * 9, "quote.csv:52: row 26: not CSV: unexpected end of data"),
        ("inner.csv", CSV + b'"say "no"",b\n' + b"c,d\n" * 9, "inner.csv:52: row 26: not CSV: ',' expected after '\"'"),
        ("twice.csv", b"q,q\n1,2\n", "column 'q' occurs twice in the header"),
        ("notes.txt", LINES, "notes.txt is a file, but none of .jsonl"),
        ("broken.parquet", b"PAR1", "broken.parquet"),
    ],
)
def test_error_of_a_broken_file_names_file_and_row(folder, name, content, expected):
    (folder / name).write_bytes(content)
    with pytest.raises(InputError) as caught:
        read(name)
    assert expected in str(caught.value)
    assert str(caught.value).startswith("source 'mine': ")
    assert "\n" not in str(caught.value)


def test_pipe_is_refused_before_it_is_opened(folder):
    os.mkfifo("rows.jsonl")
    with pytest.raises(InputError, match=r"rows\.jsonl: is a pipe or a device"):
        read("rows.jsonl")


@pytest.mark.parametrize("name", ["broken.parquet", "empty.parquet", "broken.arrow"])
def test_broken_table_prints_one_line_only(folder, name, capfd):
    (folder / name).write_bytes(b"" if name.startswith("empty") else b"PAR1 and nothing else")
    with pytest.raises(InputError, match=name):
        read(name)
    assert capfd.readouterr().err == ""


def test_value_keeps_the_type_of_its_own_row(folder):
    (folder / "mixed.jsonl").write_text('{"q": 1, "a": "2020-01-01"}\n{"q": 1.5}\n{"q": "007", "a": [1, {"b": null}]}\n')
    assert read("mixed.jsonl") == [
        {"q": 1, "a": "2020-01-01"},
        {"q": 1.5, "a": None},
        {"q": "007", "a": [1, {"b": None}]},
    ]
    (folder / "cells.csv").write_text("q,a\n007,None\nNA,nan\n")
    assert read("cells.csv") == [{"q": "007", "a": "None"}, {"q": "NA", "a": None}]


def test_split_selects_rows_and_keeps_their_numbers_in_the_file(folder):
    (folder / "rows.jsonl").write_bytes(LINES)
    rows = Hub().rows("mine", local_source("rows.jsonl", split="train[20:]"))
    assert list(rows) == ROWS[20:]
    assert rows.where(0) == "rows.jsonl: row 21"
    with pytest.raises(InputError, match="Unknown split"):
        read("rows.jsonl", split="test")
