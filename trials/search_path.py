"""Takes the working folder out of Python's search path; a command imports this before anything else.

`python -m` searches the working folder first, and a user's folder may hold a `trials`, a `datasets.py` or a `yaml.py`.
"""

import os
import sys

HOME = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))  # noqa: PTH100, PTH120  # pathlib may be shadowed
"""The folder that holds the program's packages."""


def _leave_out_working_folder() -> None:
    """For this process and those that it starts. A checkout that the user stands in stays."""
    if sys.path.count(HOME) > 1:  # a command put it first to find this module; its place is behind the standard library
        sys.path.remove(HOME)
    try:
        here = os.getcwd()  # noqa: PTH109
    except FileNotFoundError:  # the folder was deleted
        here = ""
    if here == HOME:
        return
    os.environ["PYTHONSAFEPATH"] = "1"
    # `PYTHONPATH=$PYTHONPATH:folder` with nothing set before it holds an empty entry, which stands for the working folder
    named = [path for path in os.environ.pop("PYTHONPATH", "").split(os.pathsep) if path not in ("", ".", here)]
    if named:
        os.environ["PYTHONPATH"] = os.pathsep.join(named)
    sys.path[:] = [path for path in sys.path if path not in ("", ".", here)]


_leave_out_working_folder()
