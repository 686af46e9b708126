"""Starts a module of the program in another process."""

import os
import sys
from pathlib import Path

import trials


def command(module: str, *arguments: str) -> list[str]:
    """The command line. The user's working folder cannot shadow the program."""
    return [sys.executable, "-P", "-m", module, *arguments]


def inherited() -> dict[str, str]:
    """This process's environment, in which the other finds the program where this one found it."""
    paths = [str(Path(trials.__file__).parents[1]), *filter(None, [os.environ.get("PYTHONPATH")])]
    return {**os.environ, "PYTHONPATH": os.pathsep.join(paths)}
