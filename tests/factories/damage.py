"""Damage that can be done to any file."""

import contextlib
import os
import socket
from collections.abc import Callable
from pathlib import Path
from typing import Any

BYTES: dict[str, Callable[[bytes], bytes]] = {
    "empty": lambda whole: b"",
    "half": lambda whole: whole[: len(whole) // 2],
    "nul": lambda whole: b"\0" * 300,
    "latin1": lambda whole: b"\xe4\xf6\xff\xfe" + whole,
    "tail": lambda whole: whole + b"}}\x00{",
    "deep": lambda whole: b"[" * 100_000,
    "other": lambda whole: b'{"a": 1}\n',
    "nothing": lambda whole: b"null",
}
KINDS: dict[str, Callable[[Path], object]] = {  # of what may stand where a file should
    "folder": lambda path: path.mkdir(),
    "pipe": lambda path: os.mkfifo(path),
    "endless link": lambda path: path.symlink_to("/dev/zero"),
    "dead link": lambda path: path.symlink_to("/nowhere/at/all"),
    "own link": lambda path: path.symlink_to(path.name),
    "socket": lambda path: _socket(path),
}


def _socket(path: Path) -> None:
    with contextlib.chdir(path.parent), socket.socket(socket.AF_UNIX) as made:  # its path may be too long for a socket
        made.bind(path.name)


# ---------------------------------------------------------------------- values of JSON

HUGE = 10**400
DEEP: Any = []
for _ in range(150):
    DEEP = [DEEP]
