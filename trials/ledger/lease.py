"""Leases: at most one process, on any machine, works on a key.

The lease of a folder is its file `lease.N.json` with the highest N. A takeover creates N + 1, which the storage grants to one
process only. N is never used again, so a holder that slept finds a higher number and knows that it lost the lease. The holder
increments a beat in its file every BEAT seconds. It counts as dead when its process has ended (seen from the same host), or
when its file has not changed for EXPIRY seconds.
"""

import hashlib
import json
import os
import re
import socket
import threading
import time
import uuid
from collections.abc import Callable
from functools import cache
from pathlib import Path
from types import TracebackType
from typing import Any

from trials.ledger import storage

BEAT = 5.0
EXPIRY = 60.0


def _clock() -> float:
    """A holder's clock. It counts while the machine is suspended, where the system supports that: others do not wait."""
    return time.clock_gettime(time.CLOCK_BOOTTIME) if hasattr(time, "CLOCK_BOOTTIME") else time.monotonic()


class Watch:
    """An observer's memory of leases: how long each one has been unchanged."""

    # The observer's own monotonic clock: clocks of two machines are never compared, and nobody can set it. It stops during a
    # suspension, for the watched holder may have been suspended too.
    def __init__(self, clock: Callable[[], float] = time.monotonic):
        self.clock = clock
        self._seen: dict[str, tuple[str, bytes, float]] = {}

    def unchanged(self, folder: Path, file: str, content: bytes) -> float:
        """Seconds for which this observer has seen only this content; 0 at first sight."""
        now = self.clock()
        before = self._seen.get(str(folder))
        since = before[2] if before and before[:2] == (file, content) else now
        self._seen[str(folder)] = (file, content, since)
        return now - since


_process = Watch()  # shared by all observers of a process: an observer must have watched for a while


def acquire(folder: Path, watch: Watch = _process) -> "Lease | None":
    """The folder's lease, to be released; None while a living process holds it, or was faster."""
    number, living = _standing(folder, watch)
    if living:
        return None
    lease = Lease(folder, number + 1)
    if not lease.create():
        return None
    numbers = _numbers(folder)
    if max(numbers, default=0) > lease.number:  # this process slept after it looked, and its number is outdated
        storage.remove(lease.path)
        return None
    for number in numbers:
        if number < lease.number:
            storage.remove(folder / f"lease.{number}.json")
    lease.start()
    return lease


def held(folder: Path, watch: Watch = _process) -> bool:
    """Whether a living process, maybe this one, holds the folder's lease."""
    return _standing(folder, watch)[1]


class Lease:
    """A lease, held until `release` or the end of a `with`, and renewed by a thread of its own."""

    def __init__(self, folder: Path, number: int):
        self.folder = folder
        self.number = number
        self.path = folder / f"lease.{number}.json"
        self._renewed = _clock()
        self._holder = {"holder": uuid.uuid4().hex, "host": _host(), "pid": os.getpid(), "started": _started(os.getpid())}
        self._beats = 0
        self._superseded = False
        self._over = threading.Event()
        self._lock = threading.Lock()

    def create(self) -> bool:
        """Creates the lease's file; False where another process has created it."""
        text = self._text()
        return storage.create(self.path, text) or _holds(self.path, text)

    def start(self) -> None:
        """Starts the thread that renews the lease."""
        threading.Thread(target=self._beat, name=f"lease of {self.folder.name}", daemon=True).start()

    @property
    def lost(self) -> bool:
        """Whether another process may hold it: after a takeover, or after so long without renewal that one was possible."""
        return self._superseded or _clock() - self._renewed > EXPIRY - BEAT

    def renew(self) -> bool:
        """Writes a beat; False after a takeover or a release. OSError where the storage does not answer."""
        with self._lock:
            if self._superseded or self._over.is_set():
                return False
            now = _clock()
            if max(_numbers(self.folder), default=0) != self.number:
                self._superseded = True
                return False
            self._beats += 1
            storage.write_text(self.path, self._text())
            self._renewed = now
            return True

    def release(self) -> None:
        with self._lock:
            if self._over.is_set():
                return
            self._over.set()
            released = json.dumps({"released": True}) + "\n"
            try:
                if max(_numbers(self.folder), default=0) != self.number:
                    return
                try:
                    storage.write_text(self.path, released)
                except OSError:
                    if not storage.is_local(self.path):
                        raise
                    handle = os.open(self.path, os.O_WRONLY | os.O_NOFOLLOW)
                    with open(handle, "w", encoding="utf-8") as file:  # noqa: PTH123  # a full disk has room for a shorter text
                        file.write(released)
                        file.truncate()
            except OSError:
                return  # it expires, because nobody renews it

    def __enter__(self) -> "Lease":
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.release()

    def _beat(self) -> None:
        while not self._over.wait(BEAT):
            try:
                if not self.renew():
                    return
            except OSError:
                continue  # a full disk or an unreachable store may recover; `lost` says when that took too long

    def _text(self) -> str:
        return json.dumps(self._holder | {"beat": self._beats}) + "\n"


def _holds(path: Path, text: str) -> bool:
    """Whether the file holds exactly this text: a store's client repeats a creation whose answer was lost, and is refused."""
    try:
        return storage.read_bytes(path) == text.encode()
    except (FileNotFoundError, storage.NotAFile):
        return False


def _numbers(folder: Path) -> list[int]:
    # no holder writes a name such as 007 or one with other digits than ASCII's: its number leads to no file
    found = (re.fullmatch(r"lease\.([1-9][0-9]{0,17})\.json", name) for name in storage.names(folder))
    return [int(match[1]) for match in found if match]


def _standing(folder: Path, watch: Watch) -> tuple[int, bool]:
    """The highest number, 0 where there is none, and whether its holder counts as living."""
    number = max(_numbers(folder), default=0)
    if not number:
        return 0, False
    file = f"lease.{number}.json"
    try:
        content = storage.read_bytes(folder / file)
    except FileNotFoundError:  # superseded since it was listed
        return number, True
    except storage.NotAFile:  # not written by a holder
        return number, False
    try:
        holder = json.loads(content)
    except ValueError:
        holder = None
    if not isinstance(holder, dict):
        holder = {}  # its writer may be alive, so it has to expire like any other
    if holder.get("released") is True or _ended(holder):
        return number, False
    return number, watch.unchanged(folder, file, content) < EXPIRY


# ---------------------------------------------------------------------- processes


@cache
def _host() -> str | None:
    """Identifies this machine, its boot and this process namespace; None if /proc does not show them."""
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii")
        namespace = Path("/proc/self/ns/pid").readlink()
    except OSError:
        return None
    # copies of a machine's memory image differ in the name only
    return hashlib.sha256(f"{boot} {namespace} {socket.gethostname()}".encode()).hexdigest()[:16]


def _started(pid: int) -> int | None:
    """The start of a process in ticks since boot; None for a zombie, or where /proc does not show it."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace").rpartition(")")[2].split()
    except OSError:
        return None
    return None if fields[0] in "ZX" else int(fields[19])


def _ended(holder: dict[str, Any]) -> bool:
    """Whether this process can see that the holder's has ended."""
    pid, host = holder.get("pid"), _host()
    if host is None or holder.get("host") != host or not isinstance(pid, int) or pid < 1:
        return False
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return True
    except (PermissionError, OverflowError):
        return False  # another user's process: /proc may hide its state
    return _started(pid) != holder.get("started")
