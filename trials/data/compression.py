"""Compressed files: opened as their content, or unpacked into a cache for readers that need a plain file."""

import bz2
import gzip
import hashlib
import io
import lzma
import shutil
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import pyarrow as pa

from trials.errors import InputError, disk_failure
from trials.ledger import local_files

ENDINGS: dict[str, Callable[[Path], Any]] = {
    ".gz": gzip.GzipFile,
    ".bz2": bz2.BZ2File,
    ".xz": lzma.LZMAFile,
    ".zst": lambda path: io.BufferedReader(pa.CompressedInputStream(str(path), "zstd")),
}
"""How a file is opened, by the last part of its name in lower case."""


def opened(path: Path) -> Any:
    """The file's content as a binary file; its end says whether it is compressed."""
    return ENDINGS.get(path.suffix.lower(), partial(open, mode="rb"))(path)


@contextmanager
def readable(path: Path) -> Iterator[None]:
    """Raises InputErrors that name the file in place of the errors of reading it."""
    try:
        yield
    except (EOFError, zlib.error, lzma.LZMAError) as error:
        raise InputError(f"{path}: the compressed data is damaged or incomplete: {error}") from error
    except OSError as error:
        if disk_failure(error):  # of the cache that is written meanwhile
            raise
        raise InputError(f"{path}: cannot be read: {error.strerror or error}") from error


def unpacked(path: Path, cache: Path) -> Path:
    """The file itself, or its content as a file in `cache`, a folder that belongs to the content. InputError if damaged."""
    if path.suffix.lower() not in ENDINGS:
        return path
    # by the path, too: two files of one source may have the same name
    plain = cache / "unpacked" / hashlib.sha256(str(path.resolve()).encode()).hexdigest()[:16] / path.stem
    if not plain.is_file():
        with readable(path), opened(path) as packed:
            local_files.replace(plain, partial(_copy, packed))
    return plain


def _copy(source: Any, target: Path) -> None:
    with target.open("wb") as file:
        shutil.copyfileobj(source, file)
