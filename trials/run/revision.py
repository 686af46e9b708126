"""The commit of the running code: of its checkout, or of the checkout that it was shipped from."""

import os
import subprocess
from functools import cache
from pathlib import Path

SHIPPED = "SLIMSWEEP_GIT"
"""The environment variable with the revision, for workers that get the code without its checkout."""


@cache
def git_revision() -> str | None:
    """The commit, with `+changes` where files differ from it; None outside a checkout."""
    if SHIPPED in os.environ:  # first: shipped code may lie in a folder of another repository
        return os.environ[SHIPPED]
    here = Path(__file__).parents[1]
    try:
        describe = ["git", "-C", str(here), "describe", "--always", "--abbrev=40", "--dirty=+changes", "--exclude=*"]
        return subprocess.run(describe, capture_output=True, text=True, check=True, timeout=10).stdout.strip()
    except (OSError, subprocess.SubprocessError):
        return None
