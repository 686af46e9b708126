"""Renders a stranger's templates in another process, which bounds the memory, the time and the text of each rendering.

Within one process nothing bounds Jinja's whole language: one expression can fill the memory or compute for hours within C code.
"""

import atexit
import fcntl
import json
import os
import signal
import subprocess
from collections.abc import Mapping
from multiprocessing import Pipe
from multiprocessing.connection import Connection
from multiprocessing.reduction import ForkingPickler
from threading import RLock
from typing import Any

from trials.other_process import command, inherited
from trials.tasks.template_environment import OutOfBounds, UnknownColumn, Unrenderable
from trials.tasks.template_process import MEMORY, NO_ROOM, SECONDS, TEXT

_FINISHED = (Unrenderable.__name__, UnknownColumn.__name__)
"""Errors whose text needs no name before it."""


def render(template: str, row: Mapping[str, Any]) -> str:
    """The text. Raises Unrenderable where the template cannot render the row within the bounds."""
    return _answer(template, dict(row))


def literal(text: str) -> Any:
    """The list or number that Python reads in a text. Raises Unrenderable for one that it cannot read within the bounds."""
    return json.loads(_answer(text, None))


class _Process:
    """The other process. The first request starts it, and the first after its death starts it anew."""

    def __init__(self) -> None:
        self._lock = RLock()
        self._running: tuple[subprocess.Popen[bytes], Connection] | None = None

    def ask(self, request: bytes) -> bytes:
        """What the process answers. Raises EOFError with its exit code where it dies."""
        with self._lock:
            process, connection = self._running = self._running or _started()
            try:
                connection.send_bytes(request)
                return connection.recv_bytes()
            except (EOFError, ConnectionError):
                code = process.wait()
                self.end()
                raise EOFError(code) from None
            except BaseException:
                self.end()  # after Ctrl-C its answer must not be taken for that of the next request
                raise

    def end(self) -> None:
        """Ends the process, if there is one."""
        if self._running is not None:
            process, connection = self._running
            connection.close()
            process.kill()
            process.wait()
        self._running = None

    def forget(self) -> None:
        """After a fork: the process, and maybe the lock, are the parent's."""
        self.__init__()  # type: ignore[misc]


def _started() -> tuple[subprocess.Popen[bytes], Connection]:
    here, there = (Connection(_above_standard(end)) for end in Pipe())
    with there:
        arguments = command("trials.tasks.template_process", str(there.fileno()))
        process = subprocess.Popen(
            arguments,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            env=inherited(),
            pass_fds=[there.fileno()],
            process_group=0,  # Ctrl-C is for the program, which then closes the connection
        )
    return process, here


def _above_standard(end: Connection) -> int:
    """Its descriptor, above those of standard input and output: where these are closed, it may have got one of them."""
    with end:
        return fcntl.fcntl(end.fileno(), fcntl.F_DUPFD_CLOEXEC, 3)


_process = _Process()
atexit.register(_process.end)
os.register_at_fork(after_in_child=_process.forget)


def _answer(text: str, row: dict[str, Any] | None) -> str:
    try:
        request = bytes(ForkingPickler.dumps((text, row)))
    except Exception as error:
        raise Unrenderable(f"the row cannot be sent to the process that renders it: {type(error).__name__}: {error}") from error
    try:
        answer = _process.ask(request)
    except EOFError as error:
        raise OutOfBounds(_cause(error.args[0])) from None
    if answer[:1] == TEXT:
        return answer[1:].decode("utf-8", "surrogatepass")
    kind, message = json.loads(answer[1:])
    raise Unrenderable(message if kind in _FINISHED else f"{kind}: {message}")


def _cause(code: int) -> str:
    if code == -signal.SIGPROF:
        return f"a template may compute {SECONDS} s for a row, and it takes longer"
    if code == NO_ROOM:
        return f"a template may fill {MEMORY // 2**30} GiB of memory, and it needs more"
    return f"the process that renders templates ended with code {code}: the template broke it, or the machine has no memory"
