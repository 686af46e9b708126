"""Runs a command so that no closed terminal, broken pipe, narrow encoding or signal ends it with a traceback."""

import codecs
import errno
import io
import os
import resource
import signal
import sys
from collections.abc import Callable
from types import FrameType
from typing import Any, TextIO

HANGUPS = (signal.SIGTERM, signal.SIGHUP)
"""Signals that end a command at once."""
_GONE = (errno.EPIPE, errno.EIO)  # the reader has read enough; the terminal was closed
_READABLE = {"±": "+-", "…": "...", "–": "-", "—": "-", "×": "x", "≤": "<=", "≥": ">="}


def run(command: Callable[[], int]) -> int:
    """The command's exit code. Output that could not be written makes a success a failure, unless nobody reads it any more."""
    _open_standard_streams()
    _hang_up_as_interrupts()
    streams = [stream for stream in (_replaced(1), _replaced(2)) if stream is not None]
    try:
        code = command()
    except MemoryError:
        print(f"out of memory{_memory_limit()}", file=sys.stderr)
        code = 1
    except ImportError as error:
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
    """Whether who started this process wants the signal ignored, as nohup does with SIGHUP."""
    return signal.getsignal(signum) == signal.SIG_IGN


class _Outlet(io.FileIO):
    """A file descriptor that is /dev/null from the first write that fails on; `lost` is that failure's number."""

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
    """/dev/null for a closed one: the next file that is opened would get its number, and what is printed into it."""
    for number in (0, 1, 2):
        try:
            os.fstat(number)
        except OSError:
            os.open(os.devnull, os.O_RDWR)


def _replaced(number: int) -> TextIO | None:
    """Standard output (1) or error (2) as an `_Outlet`; None where something else stands in its place already, as in a test."""
    name = {1: "stdout", 2: "stderr"}[number]
    stream = getattr(sys, name)
    if stream is not getattr(sys, f"__{name}__"):
        return None
    codecs.register_error("readable", _readable)
    buffer = io.BufferedWriter(_Outlet(number, "w", closefd=False))
    encoding = getattr(stream, "encoding", "utf-8")
    made = io.TextIOWrapper(buffer, encoding, "readable", line_buffering=number == 2 or os.isatty(number))
    setattr(sys, name, made)
    return made


def _readable(error: UnicodeError) -> tuple[bytes, int]:
    """An error handler of codecs: stand-ins for characters that the encoding lacks; the bytes of a name that is no text."""
    assert isinstance(error, UnicodeEncodeError)
    found = error.object[error.start : error.end]
    shown = (
        bytes([ord(character) - 0xDC00]) if "\udc80" <= character <= "\udcff" else _READABLE.get(character, "?").encode()
        for character in found
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
