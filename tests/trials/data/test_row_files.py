"""Local files of rows: every format that people have, and one line for whatever is wrong with one."""

import bz2
import gzip
import json
import lzma
import os

import pandas as pd
import pyarrow as pa
import pytest

from trials import mix, template
from trials.data.survey import Survey
from trials.errors import InputError
from trials.hub.hub import Hub
from trials.spec import Data, Source, TrialSpec

ROWS = [{"q": f"question {n}", "a": f"    indented\n  answer, {n}"} for n in range(25)]
LINES = "".join(json.dumps(row) + "\n" for row in ROWS).encode()
CSV = pd.DataFrame(ROWS).to_csv(index=False).encode()


class Letters:
    eos_token_id = 0

    def __call__(self, text, add_special_tokens=True):
        return {"input_ids": [ord(letter) for letter in text]}


def source(dataset: str, **fields) -> Source:
    return Source(**({"dataset": dataset, "instruction": "{{q}}", "response": "{{a}}"} | fields))


def read(dataset: str, **fields) -> list[dict]:
    return list(Hub().rows("mine", source(dataset, **fields)))


def data(dataset: str, **values) -> Data:
    given = {"samples": 10, "mix": {"mine": 1.0}, "sources": {"mine": source(dataset)}, "template": "plain"}
    return Data.model_validate(given | values)


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
def test_every_format_gives_the_same_rows(folder, name, content):
    (folder / name).write_bytes(content)
    assert read(name) == ROWS


@pytest.mark.parametrize("place", ["[v2]", "50%", "q?a=b", "{a,b}", "a b", "*"])
def test_a_path_that_exists_is_no_pattern(folder, place):
    (folder / place).mkdir()
    (folder / place / "part-1.jsonl").write_bytes(LINES)
    pd.DataFrame(ROWS).to_parquet(folder / place / "rows.parquet")
    assert read(f"{place}/part-1.jsonl") == read(f"./{place}/part-*.jsonl") == read(f"{place}/rows.parquet") == ROWS
    (folder / place / "part-1.jsonl").unlink()
    assert read(f"./{place}") == ROWS


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
        ("cut.jsonl", LINES[:-9], "cut.jsonl: row 25: not JSON"),
        ("cut.json", json.dumps(ROWS).encode()[:-9], "cut.json: row 25: not JSON"),
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
        ("again.jsonl", LINES + b'{"q": 1, "a": 2, "q": 3}\n', "again.jsonl: row 26: 'q' stands in one object twice"),
        ("again.json", b'[{"q": 1, "a": {"b": 1, "b": 2}}]', "again.json: row 1: 'b' stands in one object twice"),
        ("digits.jsonl", b'{"q": ' + b"9" * 5000 + b"}", "digits.jsonl: row 1: not JSON that can be read: a whole number of"),
        ("semi.csv", CSV.replace(b",", b";"), "semi.csv: its header is one field, 'q;a'; commas divide a file with this"),
        ("tabs.csv", CSV.replace(b",", b"\t"), "tabs.csv: its header is one field, 'q\\ta'; commas"),
        ("commas.tsv", CSV, "commas.tsv: its header is one field, 'q,a'; tabs divide a file with this ending, not commas"),
        ("number.jsonl", LINES + b"42\n", "number.jsonl: row 26: is 42, not an object"),
        ("deep.jsonl", b"[" * 100_000, "deep.jsonl: row 1: not JSON that can be read"),
        ("half.jsonl", LINES + b'{"q": "\\ud83d", "a": "b"}\n', "half.jsonl: row 26: '\\ud83d' is half of a character"),
        ("columns.json", json.dumps({"q": ["x"], "a": ["y"]}).encode(), "columns.json: is one object, not rows"),
        ("ragged.csv", CSV + b"a,b,c\n", "ragged.csv: row 26 (line 52): has 3 fields, the header 2: q, a"),
        ("quote.csv", CSV + b'a,"b\n', "quote.csv: row 26"),
        ("twice.csv", b"q,q\n1,2\n", "column 'q' stands in the header twice"),
        ("notes.txt", LINES, "notes.txt is a file, but none of .jsonl"),
        ("broken.parquet", b"PAR1", "broken.parquet"),
    ],
)
def test_a_broken_file_is_one_line_with_the_file_and_the_row(folder, name, content, expected):
    (folder / name).write_bytes(content)
    with pytest.raises(InputError) as caught:
        read(name)
    assert expected in str(caught.value)
    assert str(caught.value).startswith("source 'mine': ")
    assert "\n" not in str(caught.value)


def test_a_pipe_is_refused_before_it_is_opened(folder):
    os.mkfifo("rows.jsonl")
    with pytest.raises(InputError, match=r"rows\.jsonl: is a pipe or a device"):
        read("rows.jsonl")


@pytest.mark.parametrize("name", ["broken.parquet", "empty.parquet", "broken.arrow"])
def test_nothing_but_the_one_line_is_printed_about_a_broken_table(folder, name, capfd):
    (folder / name).write_bytes(b"" if name.startswith("empty") else b"PAR1 and nothing else")
    with pytest.raises(InputError, match=name):
        read(name)
    assert capfd.readouterr().err == ""


def test_a_value_keeps_the_type_that_its_own_row_gives_it(folder):
    (folder / "mixed.jsonl").write_text('{"q": 1, "a": "2020-01-01"}\n{"q": 1.5}\n{"q": "007", "a": [1, {"b": null}]}\n')
    assert read("mixed.jsonl") == [
        {"q": 1, "a": "2020-01-01"},
        {"q": 1.5, "a": None},
        {"q": "007", "a": [1, {"b": None}]},
    ]
    (folder / "cells.csv").write_text("q,a\n007,None\nNA,nan\n")
    assert read("cells.csv") == [{"q": "007", "a": "None"}, {"q": "NA", "a": None}]


def test_a_split_is_a_part_of_the_rows_and_names_their_place_in_the_file(folder):
    (folder / "rows.jsonl").write_bytes(LINES)
    rows = Hub().rows("mine", source("rows.jsonl", split="train[20:]"))
    assert list(rows) == ROWS[20:]
    assert rows.where(0) == "rows.jsonl: row 21"
    with pytest.raises(InputError, match="Unknown split"):
        read("rows.jsonl", split="test")


def test_a_response_keeps_its_indentation_and_nothing_else_around_it(folder):
    rows = [{"q": f" {n} ", "a": f"\n\n    return {n}\n"} for n in range(12)]
    (folder / "code.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    texts = {"".join(map(chr, row.input_ids[:-1])) for row in mix.build(data("code.jsonl"), Hub(), Letters())}
    assert texts <= {f"{n}\n    return {n}" for n in range(12)}


def test_rows_that_are_not_used_are_counted_with_their_reasons(folder):
    rows = [{"q": f"question {n}", "a": f"answer {n}"} for n in range(20)]
    rows += [{"q": f"no answer {n}", "a": answer} for answer in (None, float("nan"), "  ") for n in range(6)]
    rows += [{"q": f"{n}" + "x" * 300, "a": "b"} for n in range(10)] + [{"q": f"{n}", "a": "y" * 300} for n in range(10)]
    (folder / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    everything = data("rows.jsonl", samples=58, max_length=100)
    draw = mix.draws(everything, Hub(), ["mine"])["mine"]
    used = list(draw.rows(template.Encoder(everything, Letters()), None))
    assert draw.left_out.keys() == {"held out", "no response", "no room for a response in max_length 100"}
    assert len(used) + draw.left_out.total() == len(rows)
    assert draw.left_out["held out"] == 5
    assert draw.left_out["no response"] >= 18 - 5
    assert draw.cut == sum(len(row.input_ids) == 100 for row in used) >= 5
    with pytest.raises(InputError, match=r"needs 58 rows of 'mine'; it has \d+ usable rows of 58 \(.*no response"):
        mix.mixture(everything, Hub(), Letters())
    fewer = mix.mixture(data("rows.jsonl", samples=len(used), max_length=100), Hub(), Letters())
    assert fewer.cut == {"mine": draw.cut}
    assert fewer.left_out["mine"].keys() <= draw.left_out.keys()


def test_an_empty_row_is_no_copy_of_an_empty_row_that_is_held_out(folder):
    (folder / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in ROWS + [{"q": "", "a": ""}] * 75))
    draw = mix.draws(data("rows.jsonl"), Hub(), ["mine"])["mine"]
    assert len(list(draw.rows(None, None))) + draw.left_out.total() == 100
    assert draw.left_out.keys() == {"held out", "no response"}


def test_too_few_usable_rows_are_found_before_any_trial(folder):
    rows = [{"q": f"question {n % 5}", "a": "answer"} for n in range(60)]
    (folder / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    parts = {"base": {"model": "micro", "dtype": "float32"}, "eval": {"math": {"task": "t", "metric": "acc"}}}
    spec = TrialSpec.model_validate(parts | {"data": data("rows.jsonl", samples=55)})
    with pytest.raises(InputError, match="copy of a held-out row"):
        Survey(Hub()).check(spec)


class Ending(Letters):
    """Adds the end token to every text by itself."""

    def __call__(self, text, add_special_tokens=True):
        return {"input_ids": [*map(ord, text), *([0] if add_special_tokens else [])]}


def test_a_row_ends_with_one_end_token_whoever_adds_it(folder):
    (folder / "rows.jsonl").write_bytes(LINES)
    rows = mix.build(data("rows.jsonl"), Hub(), Ending())
    assert all(row.input_ids.count(0) == 1 and row.input_ids[-1] == 0 for row in rows)
    assert rows == mix.build(data("rows.jsonl"), Hub(), Letters())


def test_a_tokenizer_without_an_end_token_is_one_line(folder):
    (folder / "rows.jsonl").write_bytes(LINES)
    endless = Letters()
    endless.eos_token_id = None
    with pytest.raises(InputError, match="has no end token"):
        mix.build(data("rows.jsonl"), Hub(), endless)
