"""Ships the program's three packages to nodes in a Ray runtime environment. Their dependencies must be installed there.

No secret is shipped, because every user of the cluster can read runtime environments: each node has its own HF_TOKEN.
"""

import os
import shutil
from pathlib import Path
from typing import Any

from trials.run.revision import SHIPPED, git_revision

PACKAGES = ("orchestrator", "trials", "analysis")
_HERE = Path(__file__).parents[2]
_EXCLUDED = ("__pycache__", "*.pyc", ".*")


def runtime_env() -> dict[str, Any]:
    """The `runtime_env` for `ray.init` that ships this code."""
    if "RAY_JOB_CONFIG_JSON_ENV_VAR" in os.environ:  # a submitted job has the code already
        return {}
    modules = [str(_HERE / name) for name in PACKAGES]
    return {"py_modules": modules, "excludes": ["**/__pycache__"], "env_vars": revision()}


def revision() -> dict[str, str]:
    """Environment variables that name the git revision of the shipped code."""
    found = git_revision()
    return {SHIPPED: found} if found else {}


def copy(folder: Path) -> None:
    """Copies the packages into `folder`, a job's working directory."""
    for name in PACKAGES:
        shutil.copytree(_HERE / name, folder / name, ignore=shutil.ignore_patterns(*_EXCLUDED))
