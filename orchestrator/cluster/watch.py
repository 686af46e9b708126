"""Watches the processes of Ray that a sweep needs, and interrupts the sweep with the cause when one of them dies."""

import os
import re
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Mapping
from pathlib import Path

import psutil

from orchestrator.cluster import limits
from trials import command

_POLL = 0.2  # seconds between two checks of the processes
_UNWIND_SECONDS = 10.0  # for the command to end by itself
_FATAL = re.compile(r"(?:terminate called .*|what\(\): .*| C \d+ \d+\] .*|Check failed.*)$", re.M)
_LONGEST = 200
_CONNECT_SECONDS = 2.0  # for one connection to the GCS
_CHECK_GCS = 5.0  # seconds between two connections
_GCS_SECONDS = 45.0  # without an answer; Ray itself gives up after 60, and a fault-tolerant GCS may be back before

Check = Callable[[], str | None]
"""How a process ended, as "was killed by SIGKILL"; None while it runs."""


def child(process: subprocess.Popen[bytes]) -> Check:
    """Checks a process that this one started."""

    def ended() -> str | None:
        code = process.poll()
        if code is None:
            return None
        return f"was killed by {signal.Signals(-code).name}" if code < 0 else f"ended with exit code {code}"

    return ended


def local_process(process: psutil.Process) -> Check:
    """Checks a process of this machine that another one started."""

    def ended() -> str | None:
        try:
            return None if process.is_running() and process.status() != psutil.STATUS_ZOMBIE else "ended"
        except psutil.NoSuchProcess:
            return "ended"

    return ended


def server(address: str, clock: Callable[[], float] = time.monotonic) -> Check:
    """Checks a server at HOST:PORT, on any machine: it has ended when nothing answers for `_GCS_SECONDS`."""
    host, _, port = address.rpartition(":")
    answered = checked = clock()

    def ended() -> str | None:
        nonlocal answered, checked
        if clock() - checked < _CHECK_GCS:
            return None
        try:
            socket.create_connection((host.strip("[]"), int(port)), timeout=_CONNECT_SECONDS).close()
            answered = clock()
        except OSError:
            pass  # counted by the time since the last answer
        checked = clock()
        return f"at {address} has not answered for {_GCS_SECONDS:.0f} s" if checked - answered > _GCS_SECONDS else None

    return ended


class Watch:
    """Interrupts the main thread when a process dies between `begin` and `end`, where the sweep runs in that thread.

    Ray itself would end the process up to a minute later, with exit code 1 and forty lines of output.
    """

    def __init__(self) -> None:
        self._in_main = threading.current_thread() is threading.main_thread()
        self._over = threading.Event()
        self._lost: str | None = None

    def begin(self, checks: Mapping[str, Check], logs: Path) -> None:
        """`checks` are those of Ray's processes by name, `logs` is the folder of their logs."""
        threading.Thread(target=self._watch, args=(checks, logs), daemon=True).start()

    @property
    def lost(self) -> str | None:
        """Why the main thread was interrupted, in one line."""
        return self._lost

    def end(self) -> None:
        """Stops watching."""
        self._over.set()

    def _watch(self, checks: Mapping[str, Check], logs: Path) -> None:
        killed = limits.oom_kills()
        while not self._over.wait(_POLL):
            for name, check in checks.items():
                if (ended := check()) is not None and not self._over.is_set():
                    self._lost = cause(name, ended, limits.oom_kills() > killed, logs)
                    self._interrupt()
                    return

    def _interrupt(self) -> None:
        """Raises KeyboardInterrupt in the main thread. Kills a command that hangs in calls to a dead Ray; no other program."""
        if self._in_main:
            # a program or notebook has a handler of SIGTERM only while its sweep runs; that of SIGINT may finish trials first
            signum = signal.SIGTERM if callable(signal.getsignal(signal.SIGTERM)) else signal.SIGINT
            signal.pthread_kill(threading.main_thread().ident or 0, signum)
        if not self._over.wait(_UNWIND_SECONDS):
            print(self._lost, file=sys.stderr, flush=True)
            if command.running():
                os._exit(1)


def cause(name: str, ended: str, out_of_memory: bool, logs: Path) -> str:
    """The cause in one line: the process, how it ended, the limits and its log."""
    reasons = []
    if ended.endswith(signal.SIGKILL.name) and out_of_memory:
        reasons.append("this machine was out of memory: run fewer trials at once (resources.max_concurrent)")
    if words := _last_words(logs, name):
        reasons.append(words)
    if low := limits.low():
        reasons.append(f"a process may have {low} here: raise that")
    because = f" ({'; '.join(reasons)})" if reasons else ""
    return f"Ray's {name} {ended}{because}; its log: {logs / name}.out; the same command goes on with what is left"


def _last_words(logs: Path, name: str) -> str:
    """The last line about a crash in the process's logs."""
    for ending in ("err", "out"):
        log = logs / f"{name}.{ending}"
        if log.exists() and (found := _FATAL.findall(log.read_text(encoding="utf-8", errors="replace"))):
            return str(found[-1]).strip()[:_LONGEST]
    return ""
