"""Runs a command so that a closed terminal, broken pipe, limited encoding or signal causes no traceback."""

import atexit
import codecs
import errno
import gc
import io
import os
import resource
import signal
import sys
import threading
from collections.abc import Callable
from types import FrameType
from typing import Any, TextIO

HANGUPS = (signal.SIGTERM, signal.SIGHUP)
"""Signals that interrupt a command."""
_GONE = (errno.EPIPE, errno.EIO)  # the reader closed the pipe; the terminal was closed
_READABLE = {"±": "+-", "…": "...", "–": "-", "—": "-", "×": "x", "≤": "<=", "≥": ">="}


_running = threading.Event()


def running() -> bool:
    """Whether this process is a command. Else it is a program or a notebook of the user's, which is not ours to end."""
    return _running.is_set()


def run(command: Callable[[], int]) -> int:
    """The command's exit code. Lost output turns success into failure, unless its reader is gone."""
    _running.set()
    atexit.register(gc.freeze)  # the interpreter's last collections would visit the million objects of the imports: 4 s
    try:
        return _run(command)
    finally:
        _running.clear()  # who calls a command from a program goes on after it


def _run(command: Callable[[], int]) -> int:
    _open_standard_streams()
    _hang_up_as_interrupts()
    streams = [stream for stream in (_replaced(1), _replaced(2)) if stream is not None]
    try:
        code = command()
    except MemoryError:  # a traceback would need memory again
        print(f"out of memory{_memory_limit()}", file=sys.stderr)
        code = 1
    except ImportError as error:  # a library that cannot be mapped within the limit
        if not (limit := _memory_limit()):
            raise
        print(f"{' '.join(str(error).split())}: out of memory{limit}", file=sys.stderr)
        code = 1
    for stream in streams:
        stream.flush()
        lost = stream.buffer.raw.lost  # type: ignore[attr-defined]
        if lost is not None and lost not in _GONE:
            print(f"standard output: {os.strerror(lost)}", file=sys.stderr)
            code = code or 1
    return code


def ignored(signum: int) -> bool:
    """Whether the parent process has the signal ignored, as nohup does with SIGHUP."""
    return signal.getsignal(signum) == signal.SIG_IGN


class _Outlet(io.FileIO):
    """A file descriptor that becomes /dev/null after a failed write; `lost` is the errno of that failure."""

    lost: int | None = None

    def write(self, data: Any) -> int:
        try:
            return super().write(data) or 0
        except OSError as error:
            self.lost = error.errno
            null = os.open(os.devnull, os.O_WRONLY)
            os.dup2(null, self.fileno())
            os.close(null)
            return len(data)


def _open_standard_streams() -> None:
    """Opens /dev/null for a closed one: else the next opened file would get its number, and the printed output."""
    for number in (0, 1, 2):
        try:
            os.fstat(number)
        except OSError:
            os.open(os.devnull, os.O_RDWR)


def _replaced(number: int) -> TextIO | None:
    """Standard output (1) or error (2) as an `_Outlet`; None where it is redirected within the process, as by pytest."""
    name = {1: "stdout", 2: "stderr"}[number]
    stream = getattr(sys, name)
    if stream is not getattr(sys, f"__{name}__"):
        return None
    # the wrapped stream would raise on the first character that its encoding lacks
    codecs.register_error("readable", _readable)
    buffer = io.BufferedWriter(_Outlet(number, "w", closefd=False))
    encoding = getattr(stream, "encoding", "utf-8")
    replacement = io.TextIOWrapper(buffer, encoding, "readable", line_buffering=number == 2 or os.isatty(number))
    setattr(sys, name, replacement)
    return replacement


def _readable(error: UnicodeError) -> tuple[bytes, int]:
    """A codec error handler: replaces characters that the encoding lacks; keeps the bytes of an undecodable file name."""
    assert isinstance(error, UnicodeEncodeError)
    characters = error.object[error.start : error.end]
    shown = (
        bytes([ord(character) - 0xDC00]) if "\udc80" <= character <= "\udcff" else _READABLE.get(character, "?").encode()
        for character in characters
    )
    return b"".join(shown), error.end


def _hang_up_as_interrupts() -> None:
    for signum in HANGUPS:
        if not ignored(signum):
            signal.signal(signum, _interrupt)


def _interrupt(signum: int, frame: FrameType | None) -> None:
    raise KeyboardInterrupt


def _memory_limit() -> str:
    limit = resource.getrlimit(resource.RLIMIT_AS)[0]
    return "" if limit == resource.RLIM_INFINITY else f": this process may have {limit / 2**30:.1f} GiB (ulimit -v)"
