"""Leases: of all that would work on the same thing, in this process or on another continent, one does.

A lease belongs to a folder of a storage root and is its file `lease.N.json` with the highest N. Taking over is creating N + 1,
which the storage grants to one alone; N is never used again, so whoever slept through it finds a higher number and knows. The
holder counts a beat up in its file every BEAT seconds. It is dead when its process is seen to have ended (from the same host),
or when its file has not changed for EXPIRY seconds of the observer's own clock: clocks of two machines are never compared, and
no clock that can be set is read.
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
    """A holder's clock: it also counts while the machine is suspended, where the system can, for others do not wait then.

    An observer's does not: what it watches may have been suspended with it.
    """
    return time.clock_gettime(time.CLOCK_BOOTTIME) if hasattr(time, "CLOCK_BOOTTIME") else time.monotonic()


class Watch:
    """What an observer remembers of leases: since when each has looked as it does."""

    def __init__(self, clock: Callable[[], float] = time.monotonic):
        self.clock = clock
        self._seen: dict[str, tuple[str, bytes, float]] = {}

    def unchanged(self, folder: Path, file: str, content: bytes) -> float:
        """Seconds for which this observer has met nothing but this content; 0 at first sight."""
        now = self.clock()
        before = self._seen.get(str(folder))
        since = before[2] if before and before[:2] == (file, content) else now
        self._seen[str(folder)] = (file, content, since)
        return now - since


_process = Watch()  # an observer has to have watched for a while: all of a process remember together


def acquire(folder: Path, watch: Watch = _process) -> "Lease | None":
    """The folder's lease, to be released; None while somebody living holds it, or has just been quicker."""
    number, living = _standing(folder, watch)
    if living:
        return None
    lease = Lease(folder, number + 1)
    if not lease.create():
        return None
    numbers = _numbers(folder)
    if max(numbers, default=0) > lease.number:  # it slept since it looked, and the number it made is long past
        storage.remove(lease.path)
        return None
    for number in numbers:
        if number < lease.number:
            storage.remove(folder / f"lease.{number}.json")
    lease.start()
    return lease


def held(folder: Path, watch: Watch = _process) -> bool:
    """Whether somebody living, this process included, holds the folder's lease."""
    return _standing(folder, watch)[1]


class Lease:
    """What `acquire` gives: held until `release`, or to the end of a `with`, and renewed by a thread of its own."""

    def __init__(self, folder: Path, number: int):
        self.folder = folder
        self.number = number
        self.path = folder / f"lease.{number}.json"
        self._renewed = _clock()
        self._holder = {"holder": uuid.uuid4().hex, "host": _host(), "pid": os.getpid(), "started": _started(os.getpid())}
        self._beats = 0
        self._taken = False
        self._over = threading.Event()
        self._lock = threading.Lock()

    def create(self) -> bool:
        """Puts the lease's file there; False where somebody else has."""
        text = self._text()
        return storage.create(self.path, text) or _holds(self.path, text)

    def start(self) -> None:
        """Begins to renew."""
        threading.Thread(target=self._beat, name=f"lease of {self.folder.name}", daemon=True).start()

    @property
    def lost(self) -> bool:
        """Whether somebody else may hold it by now: it was taken over, or could not be renewed for so long that it may be."""
        return self._taken or _clock() - self._renewed > EXPIRY - BEAT

    def renew(self) -> bool:
        """Looks and counts a beat; False where it was taken over or released. OSError where the storage does not answer."""
        with self._lock:
            if self._taken or self._over.is_set():
                return False
            now = _clock()
            if max(_numbers(self.folder), default=0) != self.number:
                self._taken = True
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
                return  # what could not be released runs out: nobody renews it any more

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
                continue  # a full disk or a store out of reach, for now; `lost` says when it has lasted too long

    def _text(self) -> str:
        return json.dumps(self._holder | {"beat": self._beats}) + "\n"


def _holds(path: Path, text: str) -> bool:
    """Whether the file holds this very text: a creation whose answer was lost is asked for again, and then refused."""
    try:
        return storage.read_bytes(path) == text.encode()
    except (FileNotFoundError, storage.NotAFile):
        return False


def _numbers(folder: Path) -> list[int]:
    # a name that no holder gives, such as 007 or other digits than ASCII's, is nobody's lease: no file of its number is found
    found = (re.fullmatch(r"lease\.([1-9][0-9]{0,17})\.json", name) for name in storage.names(folder))
    return [int(match[1]) for match in found if match]


def _standing(folder: Path, watch: Watch) -> tuple[int, bool]:
    """The highest number, 0 where there is none, and whether its holder is to be taken for living."""
    number = max(_numbers(folder), default=0)
    if not number:
        return 0, False
    file = f"lease.{number}.json"
    try:
        content = storage.read_bytes(folder / file)
    except FileNotFoundError:  # superseded since it was listed
        return number, True
    except storage.NotAFile:  # no holder's
        return number, False
    try:
        holder = json.loads(content)
    except ValueError:
        holder = None
    if not isinstance(holder, dict):
        holder = {}  # whoever wrote it may be alive: it has its time like any other
    if holder.get("released") is True or _ended(holder):
        return number, False
    return number, watch.unchanged(folder, file, content) < EXPIRY


# ---------------------------------------------------------------------- processes


@cache
def _host(pid: int | str = "self", name: str | None = None) -> str | None:
    """Tells the machine of a process, as its processes see it and since it booted, from all others; None where it is not said.

    `name` is the machine's; without it this one's."""
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii")
        namespace = Path(f"/proc/{pid}/ns/pid").readlink()
    except OSError:
        return None
    # the name tells copies of one machine's memory image apart, which share the rest
    return hashlib.sha256(f"{boot} {namespace} {name or socket.gethostname()}".encode()).hexdigest()[:16]


def _started(pid: int) -> int | None:
    """When a process started, in ticks since boot; None for a zombie, and where /proc shows nothing of it."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace").rpartition(")")[2].split()
    except OSError:
        return None
    return None if fields[0] in "ZX" else int(fields[19])


def _ended(holder: dict[str, Any]) -> bool:
    """Whether the holder's process can be seen from here to have ended."""
    pid, host = holder.get("pid"), _host()
    if host is None or holder.get("host") != host or not isinstance(pid, int) or pid < 1:
        return False
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return True
    except (PermissionError, OverflowError):
        return False  # another user's: /proc may hide how it fares
    return _started(pid) != holder.get("started")
