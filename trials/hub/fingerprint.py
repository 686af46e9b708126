"""Checksums of files. A large file is read once: its checksum is kept in the cache until its size or its times change."""

import hashlib
import os
import re
import time
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path

_LARGE = 1 << 20  # bytes; a smaller file is read again at once
_SETTLED = 2_000_000_000  # nanoseconds; a file that changed more recently may change again within one tick of its clock
_NOTE = re.compile(r"(\d+ \d+ \d+ \d+) ([0-9a-f]{64})")


def sha256(path: Path) -> str:
    """The file's sha256 in hexadecimal digits."""
    path = path.resolve()
    found = path.stat()
    # a copy that keeps the time of the original still changes the inode's own time
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
    """One checksum of files under their names, whatever their order."""
    digest = hashlib.sha256()
    for name, path in sorted(files):
        digest.update(f"{name}\0{sha256(path)}\n".encode())
    return digest.hexdigest()


def cache(name: str) -> Path:
    """A folder of the program's own in the hub's cache."""
    from huggingface_hub import constants

    return Path(constants.HF_HOME) / "slimsweep" / name


def _kept(note: Path) -> tuple[str, str] | None:
    try:
        match = _NOTE.fullmatch(note.read_text(encoding="ascii"))
    except (OSError, UnicodeDecodeError):
        return None
    return None if match is None else (match[1], match[2])


def keep(note: Path, text: str) -> None:
    """Writes a small file of the cache, at once or not at all."""
    with suppress(OSError):  # a cache that cannot be written costs time and nothing else
        note.parent.mkdir(parents=True, exist_ok=True)
        making = note.with_name(f"{note.name}.{os.getpid()}")
        making.write_text(text, encoding="ascii")
        making.replace(note)
