"""Starts a module of the program in another process."""

import os
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TextIO

import trials


def command(module: str, *arguments: str) -> list[str]:
    """The command line. The user's working folder cannot shadow the program."""
    return [sys.executable, "-P", "-m", module, *arguments]


def inherited() -> dict[str, str]:
    """This process's environment, in which the other finds the program where this one found it."""
    paths = [str(Path(trials.__file__).parents[1]), *filter(None, [os.environ.get("PYTHONPATH")])]
    return {**os.environ, "PYTHONPATH": os.pathsep.join(paths)}


def answering(arguments: Sequence[str], environment: Mapping[str, str]) -> tuple[subprocess.Popen[str], TextIO]:
    """Starts a process that reads lines from standard input; returns it and the lines that it writes to the descriptor whose
    number is appended to its arguments. Its standard output goes to standard error, for libraries print."""
    reading, writing = os.pipe()
    try:
        process = subprocess.Popen(
            [*arguments, str(writing)], stdin=subprocess.PIPE, stdout=2, text=True, env=dict(environment), pass_fds=[writing]
        )
    except BaseException:
        os.close(reading)
        raise
    finally:
        os.close(writing)
    return process, os.fdopen(reading)
