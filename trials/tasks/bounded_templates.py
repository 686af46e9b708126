"""Renders a stranger's templates in another process, which bounds the memory, the time and the text of each rendering.

Within one process nothing bounds Jinja's whole language: one expression can fill the memory or compute for hours within C code.
"""

import atexit
import json
import os
import signal
import subprocess
from multiprocessing import Pipe
from multiprocessing.connection import Connection
from threading import RLock
from typing import Any

from trials.other_process import command, inherited
from trials.tasks.template_environment import UnknownColumn, Unrenderable
from trials.tasks.template_process import MEMORY, SECONDS


class _Process:
    """The other process. It is started by the first rendering, and anew after it has died or this process has forked."""

    def __init__(self) -> None:
        self._lock = RLock()
        self._running: tuple[subprocess.Popen[bytes], Connection] | None = None
        self._of = 0

    def answer(self, template: str, row: dict[str, Any]) -> dict[str, str]:
        """What the process answers. Raises EOFError with its exit code where it dies."""
        with self._lock:
            if self._of != os.getpid():
                self._running = None
            process, connection = self._running = self._running or self._start()
            try:
                connection.send((template, row))
                answer: dict[str, str] = json.loads(connection.recv_bytes())
            except (EOFError, OSError):
                code = process.wait()
                self.end()
                raise EOFError(code) from None
            except BaseException:
                self.end()  # after Ctrl-C its answer must not be taken for that of the next row
                raise
            return answer

    def _start(self) -> tuple[subprocess.Popen[bytes], Connection]:
        here, there = Pipe()
        with there:
            arguments = command("trials.tasks.template_process", str(there.fileno()))
            process = subprocess.Popen(
                arguments,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                env=inherited(),
                pass_fds=[there.fileno()],
            )
        self._of = os.getpid()
        return process, here

    def end(self) -> None:
        """Ends the process, where this one has started it."""
        if self._running is not None and self._of == os.getpid():
            process, connection = self._running
            connection.close()
            process.kill()
            process.wait()
        self._running = None


_process = _Process()
atexit.register(_process.end)


class BoundedTemplate:
    """A template of Jinja that renders one row at a time."""

    def __init__(self, source: str):
        self._source = source

    def render(self, **row: Any) -> str:
        """The text. Raises Unrenderable for a row that the template cannot render within its bounds."""
        try:
            answer = _process.answer(self._source, row)
        except EOFError as error:
            raise Unrenderable(_cause(error.args[0])) from None
        if "text" in answer:
            return answer["text"]
        if answer["error"] == "UndefinedError":
            raise UnknownColumn(answer["message"], list(row))
        raise Unrenderable(_reason(answer["error"], answer["message"]))


def _cause(code: int) -> str:
    if code == -signal.SIGPROF:
        return f"a template may compute {SECONDS} s for a row, and it takes longer"
    return (
        f"the process that renders templates ended with code {code}: the template breaks it, or the machine has no memory left"
    )


def _reason(error: str, message: str) -> str:
    if error == "MemoryError":
        return f"a template may fill {MEMORY // 2**30} GiB of memory, and it needs more"
    return message if error == "Unrenderable" else f"{error}: {message}"
