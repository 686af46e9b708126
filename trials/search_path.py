"""Checks Python's version and removes the working folder from its search path; a command imports this before anything else.

`python -m` searches the working folder first, and a user's folder may contain a `trials`, a `datasets.py` or a `yaml.py`.
"""

import os
import sys

HOME = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))  # noqa: PTH100, PTH120  # pathlib may be shadowed
"""The folder that contains the program's packages."""


def _check_version() -> None:
    """Exits with one line: code that a cluster was sent has no installer that checks this."""
    if not (3, 11) <= sys.version_info[:2] <= (3, 13):
        version = ".".join(map(str, sys.version_info[:3]))
        sys.stderr.write(f"slimsweep needs Python 3.11 to 3.13, but {sys.executable} on {os.uname().nodename} is {version}\n")
        raise SystemExit(2)


def _remove_working_folder() -> None:
    """Removes it for this process and its children, unless it is the checkout itself."""
    if sys.path.count(HOME) > 1:  # a command put it first to find this module; it belongs behind the standard library
        sys.path.remove(HOME)
    try:
        here = os.getcwd()  # noqa: PTH109
    except FileNotFoundError:  # the folder was deleted
        here = ""
    if here == HOME:
        return
    os.environ["PYTHONSAFEPATH"] = "1"
    # `PYTHONPATH=$PYTHONPATH:folder` without an earlier value has an empty entry, which means the working folder
    named = [path for path in os.environ.pop("PYTHONPATH", "").split(os.pathsep) if path not in ("", ".", here)]
    if named:
        os.environ["PYTHONPATH"] = os.pathsep.join(named)
    sys.path[:] = [path for path in sys.path if path not in ("", ".", here)]


_check_version()
_remove_working_folder()
