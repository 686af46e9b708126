"""Which code this is: the commit of its checkout, or of the checkout that it was shipped from."""

import os
import subprocess
from functools import cache
from pathlib import Path

SHIPPED = "SLIMSWEEP_GIT"
"""The environment variable that carries the revision to where the code comes without its checkout."""


@cache
def git_revision() -> str | None:
    """The commit, with `+changes` when files differ from it; None outside a checkout."""
    if SHIPPED in os.environ:
        return os.environ[SHIPPED]
    here = Path(__file__).parents[1]
    try:
        asked = ["git", "-C", str(here), "describe", "--always", "--abbrev=40", "--dirty=+changes", "--exclude=*"]
        return subprocess.run(asked, capture_output=True, text=True, check=True, timeout=10).stdout.strip()
    except (OSError, subprocess.SubprocessError):
        return None
