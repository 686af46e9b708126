"""Watches the processes of a local Ray and ends the command with the cause when one of them dies."""

import os
import re
import signal
import subprocess
import sys
import threading
from collections.abc import Mapping
from pathlib import Path

from orchestrator.cluster import limits

_POLL = 0.2  # seconds between two checks of the processes
_UNWIND_SECONDS = 10.0  # for the command to end by itself
_FATAL = re.compile(r"(?:terminate called .*|what\(\): .*| C \d+ \d+\] .*|Check failed.*)$", re.M)
_LONGEST = 200


class Watch:
    """Interrupts the main thread when a process dies between `begin` and `end`.

    Ray itself would end the command up to a minute later, with exit code 1 and forty lines of output.
    """

    def __init__(self) -> None:
        self._over = threading.Event()
        self._lost: str | None = None

    def begin(self, processes: Mapping[str, subprocess.Popen[bytes]], logs: Path) -> None:
        """`processes` are Ray's by name, `logs` is the folder of their logs."""
        threading.Thread(target=self._watch, args=(processes, logs), daemon=True).start()

    @property
    def lost(self) -> str | None:
        """Why the main thread was interrupted, in one line."""
        return self._lost

    def end(self) -> None:
        """Stops watching."""
        self._over.set()

    def _watch(self, processes: Mapping[str, subprocess.Popen[bytes]], logs: Path) -> None:
        killed = limits.oom_kills()
        while not self._over.wait(_POLL):
            for name, process in processes.items():
                if (code := process.poll()) is not None and not self._over.is_set():
                    self._lost = cause(name, code, limits.oom_kills() > killed, logs)
                    self._interrupt()
                    return

    def _interrupt(self) -> None:
        """Ends the command as SIGTERM would; kills it where it hangs in calls to a dead Ray."""
        if callable(signal.getsignal(signal.SIGTERM)):
            signal.pthread_kill(threading.main_thread().ident or 0, signal.SIGTERM)
        if not self._over.wait(_UNWIND_SECONDS):
            print(self._lost, file=sys.stderr, flush=True)
            os._exit(1)


def cause(name: str, code: int, out_of_memory: bool, logs: Path) -> str:
    """The cause in one line: the process, how it ended, the limits and its log."""
    ended = f"was killed by {signal.Signals(-code).name}" if code < 0 else f"ended with exit code {code}"
    reasons = []
    if code == -signal.SIGKILL and out_of_memory:
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
