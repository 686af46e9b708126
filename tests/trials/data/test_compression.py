"""Compressed tables are read like plain ones; damaged ones are one line."""

import bz2
import gzip
import io
import lzma

import pandas as pd
import pyarrow as pa
import pytest

from tests.factories.rows import ROWS, local_source
from trials.data import compression
from trials.errors import InputError
from trials.hub import identity
from trials.hub.hub import Hub
from trials.spec import Data


def parquet() -> bytes:
    held = io.BytesIO()
    pd.DataFrame(ROWS).to_parquet(held)
    return held.getvalue()


def arrow() -> bytes:
    table, held = pa.Table.from_pylist(ROWS), io.BytesIO()
    with pa.ipc.new_file(held, table.schema) as writer:
        writer.write_table(table)
    return held.getvalue()


def zstd(content: bytes) -> bytes:
    return pa.compress(content, "zstd", asbytes=True)


@pytest.mark.parametrize("made", [parquet, arrow])
@pytest.mark.parametrize(
    ("ending", "compress"), [(".gz", gzip.compress), (".ZST", zstd), (".bz2", bz2.compress), (".xz", lzma.compress)]
)
def test_compressed_table_has_the_same_rows(folder, made, ending, compress):
    name = f"rows.{made.__name__}{ending}"
    (folder / name).write_bytes(compress(made()))
    assert list(Hub().rows("mine", local_source(name))) == ROWS


def test_content_of_a_compressed_table_is_its_identity(folder):
    data = Data(samples=1, mix={"mine": 1.0}, sources={"mine": local_source("rows.parquet.gz")})
    found = set()
    for rows in (ROWS, ROWS[1:]):
        pd.DataFrame(rows).to_parquet(folder / "plain")
        (folder / "rows.parquet.gz").write_bytes(gzip.compress((folder / "plain").read_bytes()))
        found.add(identity.of_source(data, "mine", Hub()))
        assert list(Hub().rows("mine", local_source("rows.parquet.gz"))) == rows
    assert len(found) == 2


@pytest.mark.parametrize("ending", [".gz", ".zst"])
def test_damaged_table_is_one_line(folder, ending):
    compress = {".gz": gzip.compress, ".zst": zstd}[ending]
    (folder / f"cut.parquet{ending}").write_bytes(compress(parquet())[:-30])
    with pytest.raises(InputError, match=rf"source 'mine': cut\.parquet{ending}: ") as caught:
        Hub().rows("mine", local_source(f"cut.parquet{ending}"))
    assert "\n" not in str(caught.value)


def test_plain_file_is_not_copied(folder):
    (folder / "rows.parquet").write_bytes(parquet())
    assert compression.unpacked(folder / "rows.parquet", folder / "cache") == folder / "rows.parquet"
    assert not (folder / "cache").exists()
