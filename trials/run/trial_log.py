"""The log of a trial, `LEDGER/KEY/log.txt`: its phases, and what libraries and native code write to standard error meanwhile.

Every line begins with the time (UTC) and holds no secret. The file keeps its beginning and its end when it grows too long. A
later attempt appends to it. In a folder each line is written at once; to an object store the file is uploaded now and then.
"""

import logging
import os
import platform
import stat
import tempfile
import threading
import time
import warnings
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, ClassVar

from trials.ledger import storage
from trials.printable import printable, secrets, without_secrets

FILE = "log.txt"
END = "==== the attempt ends ===="
"""The last line of an attempt, however it ended; one whose process died lacks it."""
LIMIT, HEAD, TAIL = 5 << 20, 1 << 20, 2 << 20
"""Bytes: a longer file is cut to its first HEAD and its last TAIL."""
_LINE = 4096  # characters of a line
_CHUNK = 1 << 20  # bytes of standard error that are read at once
_MOST = 8 << 20  # bytes of standard error between two looks, beyond which the middle is left out
_UPLOAD_SECONDS = 120.0  # between two uploads within a phase
Guard = Callable[[Callable[[], None]], None]
"""Runs a call; decides what becomes of its error."""


class TrialLog:
    def __init__(
        self,
        folder: Path,
        guard: Guard,
        environment: Mapping[str, str] = os.environ,
        mine: Callable[[], bool] = lambda: True,
    ):
        """`folder` is the trial's in the ledger; every write goes through `guard`. Values of variables of `environment` with a
        secret's name are left out. Once `mine` is false the file is another process's, and this one leaves it alone."""
        self._folder, self._guard, self._mine = folder, guard, mine
        self._secrets = secrets(environment)
        self._lock = threading.RLock()
        self._handle: int | None = None
        self._scratch: tempfile.TemporaryDirectory[str] | None = None  # holds the file of a store until it is uploaded
        self._source: Source | None = None
        self._uploaded, self._dirty = 0.0, False
        self._size = 0

    def open(self) -> None:
        """Opens the file, begins a new attempt in it, and captures what is written to standard error from now on."""
        self._guard(self._begin)

    def write(self, text: str) -> None:
        """Appends the lines of the text. Does nothing while the file is not open."""
        self._guard(lambda: self._write(text))

    def pump(self, publish: bool = False) -> None:
        """Takes over what standard error has got since the last call; with `publish`, or when that is due, uploads the file."""
        due = publish or time.monotonic() - self._uploaded >= _UPLOAD_SECONDS
        self._guard(self._publish if due else self._take)

    def publish(self) -> None:
        """Uploads the file to its store where it has changed. A local file is always complete."""
        self._guard(self._publish)

    def without_secrets(self, text: str) -> str:
        """The text with *** in the place of secrets: what the log hides, other files hide too."""
        return without_secrets(text, self._secrets)

    def close(self) -> None:
        """Stops writing; the file stays as it was last published."""
        with self._lock:
            if self._source is not None:
                self._source.close()
            if self._handle is not None:
                os.close(self._handle)
            if self._scratch is not None:
                self._scratch.cleanup()
            self._source = self._handle = self._scratch = None

    # ---------------------------------------------------------------------- the file

    def _begin(self) -> None:
        with self._lock:
            if not storage.is_local(self._folder):
                self._scratch = tempfile.TemporaryDirectory(prefix="slimsweep-log-")
                (Path(self._scratch.name) / FILE).write_text(read(self._folder), encoding="utf-8")
            self._open()
            self._uploaded = time.monotonic()
            self._source = StandardError.of_file(self._handle) or Hooks(self.write)
            again = "another attempt" if self._size else "the trial begins"
            self._append(f"==== {again} on {platform.node()}, process {os.getpid()} ====")

    def _append(self, text: str) -> None:
        now = datetime.now(UTC).isoformat(timespec="seconds").removesuffix("+00:00")
        lines = "".join(
            f"{now} {line[:_LINE]}\n" for line in printable(self.without_secrets(text)).splitlines() if line.strip()
        )
        with self._lock:
            if self._handle is None or not lines or not self._mine():
                return
            content = lines.encode("utf-8", "backslashreplace")
            self._size += os.write(self._handle, content)
            self._dirty = True
            if self._size > LIMIT and self._mine():
                self._cut()

    def _write(self, text: str) -> None:
        with self._lock:
            self._take()  # what stands on standard error already came before
            self._append(text)

    def _take(self) -> None:
        with self._lock:
            if self._source is not None and (text := self._source.new()):
                self._append(text)

    def _publish(self) -> None:
        with self._lock:
            self._take()
            self._uploaded = time.monotonic()  # before the upload: one that fails is not tried again at once
            if self._scratch is None or not self._dirty or not self._mine():
                return
            content, self._dirty = (Path(self._scratch.name) / FILE).read_bytes(), False
        try:
            storage.replace_file(self._folder / FILE, lambda path: path.write_bytes(content))
        except BaseException:
            self._dirty = True
            raise

    def _open(self) -> None:
        if self._scratch is not None:
            self._handle = _appending(Path(self._scratch.name) / FILE)
        else:
            with storage.anchored(self._folder, 2) as place:
                self._handle = _appending(place / FILE)
        self._size = os.fstat(self._handle).st_size

    def _cut(self) -> None:
        """Leaves out the middle of the file."""
        assert self._handle is not None
        handle, self._handle = self._handle, None  # a file that cannot be cut gets no more lines: it would fill the disk
        try:
            head, tail = os.pread(handle, HEAD, 0), os.pread(handle, TAIL, self._size - TAIL)
            head, tail = head[: head.rfind(b"\n") + 1], tail[tail.find(b"\n") + 1 :]
            between = f"==== {self._size - len(head) - len(tail):,} bytes are left out here ====\n".encode()

            def write(path: Path) -> None:
                path.write_bytes(head + between + tail)

            if self._scratch is not None:
                storage.replace_file(Path(self._scratch.name) / FILE, write)
            else:
                with storage.anchored(self._folder, 2) as place:
                    storage.replace_file(place / FILE, write)
        finally:
            os.close(handle)
        self._open()


def read(folder: Path) -> str:
    """The log in the trial's folder; empty where there is none."""
    if storage.is_link(folder):
        return ""
    try:
        return storage.read_bytes(folder / FILE).decode("utf-8", "replace")
    except (FileNotFoundError, NotADirectoryError, storage.NotAFile):
        return ""


def _appending(path: Path) -> int:
    """A descriptor that appends to a regular file; follows no link and waits for no pipe."""
    handle = os.open(path, os.O_RDWR | os.O_APPEND | os.O_CREAT | os.O_NOFOLLOW | os.O_NONBLOCK, 0o666)
    if not stat.S_ISREG(os.fstat(handle).st_mode):
        os.close(handle)
        raise OSError(f"{path}: not a file")
    return handle


# ---------------------------------------------------------------------- what is written to standard error


class Source:
    """Where foreign lines come from."""

    def new(self) -> str:
        """The whole lines since the last call, where they have to be fetched."""
        return ""

    def close(self) -> None:
        """Ends the capture."""


class StandardError(Source):
    """Reads the file that standard error goes to, as in a worker of Ray.

    No descriptor is redirected: the last words of a crash stay where Ray looks for them. It holds what native code writes, too.
    """

    def __init__(self, handle: int):
        self._handle, self._offset, self._rest = handle, os.fstat(handle).st_size, b""

    @classmethod
    def of_file(cls, log: int | None) -> "StandardError | None":
        """None where standard error is a terminal or a pipe, or the log itself."""
        try:
            ours = os.fstat(2)
            if not stat.S_ISREG(ours.st_mode) or (log is not None and os.path.samestat(ours, os.fstat(log))):
                return None
            return cls(os.open("/proc/self/fd/2", os.O_RDONLY))
        except OSError:  # closed, or no Linux
            return None

    def new(self) -> str:
        size, left_out = os.fstat(self._handle).st_size, ""
        if size < self._offset:  # truncated by somebody
            self._offset = 0
        if size - self._offset > _MOST:
            left_out = f"==== {size - _MOST - self._offset:,} bytes of standard error are left out here ====\n"
            self._offset, self._rest = size - _MOST, b""
        found = [self._rest]
        while chunk := os.pread(self._handle, min(_CHUNK, max(size - self._offset, 0)), self._offset):
            self._offset += len(chunk)
            found.append(chunk)
        whole, newline, self._rest = b"".join(found).rpartition(b"\n")
        if len(self._rest) > _LINE:  # a progress bar that never ends its line
            self._rest = self._rest[-_LINE:]
        # a progress bar returns to the beginning of its line: only what stands there in the end counts
        lines = [line.rstrip(b"\r").rpartition(b"\r")[2] for line in (whole + newline).split(b"\n")]
        return left_out + b"\n".join(lines).decode("utf-8", "replace")

    def close(self) -> None:
        os.close(self._handle)


class Hooks(Source):
    """Warnings and records of `logging` from level WARNING on, where standard error is no file; they are still shown there."""

    _writers: ClassVar[list["Hooks"]] = []  # of all open logs of this process
    _before: ClassVar[tuple[Any, Any] | None] = None
    """What the hooks have replaced. They stay for the rest of the process: others may have wrapped them since."""

    def __init__(self, write: Callable[[str], None]):
        self.write = write
        if Hooks._before is None:
            Hooks._before = logging.getLogRecordFactory(), warnings.showwarning
            # a factory sees the records of all loggers and leaves their handlers as they are
            logging.setLogRecordFactory(_record)
            warnings.showwarning = _warning
        Hooks._writers.append(self)

    def close(self) -> None:
        Hooks._writers.remove(self)

    @classmethod
    def pass_on(cls, text: str) -> None:
        for one in list(cls._writers):
            one.write(text)


def _record(*arguments: Any, **named: Any) -> logging.LogRecord:
    assert Hooks._before is not None
    made: logging.LogRecord = Hooks._before[0](*arguments, **named)
    if made.levelno >= logging.WARNING:
        Hooks.pass_on(f"{made.levelname} {made.name}: {_message(made)}")
    return made


def _warning(message: Any, category: type[Warning], filename: str, lineno: int, *rest: Any, **named: Any) -> None:
    assert Hooks._before is not None
    Hooks.pass_on(f"{filename}:{lineno}: {category.__name__}: {message}")
    Hooks._before[1](message, category, filename, lineno, *rest, **named)


def _message(record: logging.LogRecord) -> str:
    try:
        return record.getMessage()
    except (TypeError, ValueError, KeyError):  # its arguments do not fit; `logging` itself reports that
        return str(record.msg)
