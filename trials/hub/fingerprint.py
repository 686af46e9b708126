"""Checksums of files. The checksum of a large file is cached until the file's size or times change."""

import hashlib
import re
import time
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path

from trials.ledger import local_files

_LARGE = 1 << 20  # bytes; a smaller file is read each time
_SETTLED = 2_000_000_000  # nanoseconds; a more recent change may be followed by one with the same time stamp
_NOTE = re.compile(r"(\d+ \d+ \d+ \d+) ([0-9a-f]{64})")


def sha256(path: Path) -> str:
    """The file's sha256 in hexadecimal digits."""
    path = path.resolve()
    found = path.stat()
    # a copy that preserves the modification time still changes the inode's ctime
    state = f"{found.st_size} {found.st_mtime_ns} {found.st_ctime_ns} {found.st_ino}"
    note = cache("checksums") / hashlib.sha256(str(path).encode()).hexdigest()[:32]
    if found.st_size >= _LARGE and (known := _kept(note)) is not None and known[0] == state:
        return known[1]
    with path.open("rb") as opened:
        digest = hashlib.file_digest(opened, "sha256").hexdigest()
    if found.st_size >= _LARGE and time.time_ns() - max(found.st_mtime_ns, found.st_ctime_ns) > _SETTLED:
        keep(note, f"{state} {digest}")
    return digest


def together(files: Iterable[tuple[str, Path]]) -> str:
    """One checksum of files and their names, independent of their order."""
    digest = hashlib.sha256()
    for name, path in sorted(files):
        digest.update(f"{name}\0{sha256(path)}\n".encode())
    return digest.hexdigest()


def cache(name: str) -> Path:
    """This program's folder in the hub's cache."""
    from huggingface_hub import constants  # reads its environment variables as it is imported

    return Path(constants.HF_HOME) / "slimsweep" / name


def _kept(note: Path) -> tuple[str, str] | None:
    try:
        match = _NOTE.fullmatch(note.read_text(encoding="ascii"))
    except (OSError, UnicodeDecodeError):
        return None
    return None if match is None else (match[1], match[2])


def keep(note: Path, text: str) -> None:
    """Writes a small file of the cache atomically."""
    with suppress(OSError):  # without the cache everything works, only slower
        local_files.replace(note, lambda partial: partial.write_text(text, encoding="ascii"))
