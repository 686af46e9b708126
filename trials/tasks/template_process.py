"""The process of trials/tasks/bounded_templates.py: `python -m trials.tasks.template_process DESCRIPTOR`.

Each message that it gets is a template and a row, each that it sends the text or an error. It ends when the other end closes.
"""

import json
import os
import resource
import signal
import sys
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

from jinja2 import UndefinedError

from trials.tasks.template_environment import Unrenderable, environment

SECONDS = 2
"""Of processor time, for each rendering."""
MEMORY = 2**30
"""Bytes beyond those that the process starts with."""
CHARACTERS = 4_000_000
"""Of a text. A prompt of a million tokens has about as many."""
_MESSAGE = 1_000  # characters


def main(connection: Connection) -> None:
    templates = environment()
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the program, which then closes the connection
    signal.signal(signal.SIGPROF, signal.SIG_DFL)  # ends the process, within C code too
    if sys.platform == "linux":  # the size is told by no other system
        pages = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[0])
        _limit(resource.RLIMIT_AS, pages * resource.getpagesize() + MEMORY)
    _limit(resource.RLIMIT_CORE, 0)
    # whatever Python says when it breaks on a template; the exit code is told
    os.dup2(os.open(os.devnull, os.O_WRONLY), 2)
    while True:
        try:
            template, row = connection.recv()
        except EOFError:
            return
        signal.setitimer(signal.ITIMER_PROF, SECONDS)
        answer = _answer(templates, template, row)
        signal.setitimer(signal.ITIMER_PROF, 0)
        try:
            connection.send_bytes(answer)
        except BrokenPipeError:
            return


def _limit(what: int, amount: int) -> None:
    soft, hard = resource.getrlimit(what)
    resource.setrlimit(what, (amount if soft == resource.RLIM_INFINITY else min(amount, soft), hard))


def _answer(templates: Any, template: str, row: dict[str, Any]) -> bytes:
    try:
        text = templates.from_string(template).render(**row)
        if len(text) > CHARACTERS:
            raise Unrenderable(f"a template may write {CHARACTERS:,} characters for a row, and it writes {len(text):,}")
        return json.dumps({"text": text}).encode()
    except Exception as error:  # noqa: BLE001 - the other end raises it
        kind = "UndefinedError" if isinstance(error, UndefinedError) else type(error).__name__
        return json.dumps({"error": kind, "message": str(error)[:_MESSAGE]}).encode()


if __name__ == "__main__":
    main(Connection(int(sys.argv[1])))
