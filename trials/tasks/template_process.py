"""The process of trials/tasks/bounded_templates.py: `python -m trials.tasks.template_process DESCRIPTOR`.

Each request is a template and a row, or a literal of Python and None. Each answer is a text, or an error's name and message.
The process ends when the other end closes.
"""

import ast
import json
import os
import pickle
import random
import resource
import signal
import sys
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

from trials.tasks.template_environment import Unrenderable, environment

SECONDS = 2
"""Of processor time, for each request."""
MEMORY = 2**30
"""Bytes beyond those that the process starts with."""
CHARACTERS = 4_000_000
"""Of a text. A prompt of a million tokens has about as many."""
NO_ROOM = 3
"""The exit code after a request that needs more memory: nobody knows what is left of the process."""
TEXT, ERROR = b"t", b"e"
"""The first byte of an answer."""
_MESSAGE = 4_000  # characters


def main(connection: Connection) -> None:
    templates = environment()
    signal.signal(signal.SIGPROF, signal.SIG_DFL)  # ends the process, within C code too
    signal.pthread_sigmask(signal.SIG_UNBLOCK, [signal.SIGPROF])
    if sys.platform == "linux":  # the size is told by no other system
        pages = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[0])
        _limit(resource.RLIMIT_AS, pages * resource.getpagesize() + MEMORY)
    _limit(resource.RLIMIT_CORE, 0)
    # whatever Python says when it breaks on a template; the exit code is told
    os.dup2(os.open(os.devnull, os.O_WRONLY), 2)
    try:
        while True:
            request = connection.recv_bytes()
            text, row = pickle.loads(request)  # of the program, not of the template
            signal.setitimer(signal.ITIMER_PROF, SECONDS)
            answer = _answer(templates, text, row)
            signal.setitimer(signal.ITIMER_PROF, 0)
            connection.send_bytes(answer)
    except MemoryError:
        os._exit(NO_ROOM)
    except (EOFError, OSError):
        return


def _limit(what: int, amount: int) -> None:
    soft, hard = resource.getrlimit(what)
    resource.setrlimit(what, (amount if soft == resource.RLIM_INFINITY else min(amount, soft), hard))


def _answer(templates: Any, text: str, row: dict[str, Any] | None) -> bytes:
    """Raises MemoryError."""
    try:
        written = json.dumps(ast.literal_eval(text)) if row is None else _rendered(templates, text, row)
        return TEXT + written.encode("utf-8", "surrogatepass")
    except MemoryError:
        raise
    except Exception as error:  # noqa: BLE001  # sent to the program, which raises it
        return ERROR + json.dumps([type(error).__name__, str(error)[:_MESSAGE]]).encode()


def _rendered(templates: Any, template: str, row: dict[str, Any]) -> str:
    if "random" in template or "lipsum" in template:
        random.seed(repr((template, row)))  # the same text at every attempt
    text: str = templates.from_string(template).render(row)
    if len(text) > CHARACTERS:
        raise Unrenderable(f"a template may write {CHARACTERS:,} characters for a row, and it writes {len(text):,}")
    return text


if __name__ == "__main__":
    main(Connection(int(sys.argv[1])))
