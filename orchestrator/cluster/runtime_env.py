"""The program's code as a Ray runtime environment, for nodes that do not have it; the packages that it needs they must have.

Only the three packages travel: no ledger, no caches, nothing else of the user's folder, and none of the environment's secrets.
HF_TOKEN is for each node to have (a Kubernetes secret, a file named by HF_TOKEN_PATH): Ray shows runtime environments to all.
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
    """What `ray.init` takes so that workers elsewhere import this very code; nothing inside a submitted job, which has it."""
    if "RAY_JOB_CONFIG_JSON_ENV_VAR" in os.environ:
        return {}
    modules = [str(_HERE / name) for name in PACKAGES]
    return {"py_modules": modules, "excludes": ["**/__pycache__"], "env_vars": revision()}


def revision() -> dict[str, str]:
    """Environment variables by which shipped code knows what it is."""
    found = git_revision()
    return {SHIPPED: found} if found else {}


def copy(folder: Path) -> None:
    """Puts the packages into `folder`, a job's working directory."""
    for name in PACKAGES:
        shutil.copytree(_HERE / name, folder / name, ignore=shutil.ignore_patterns(*_EXCLUDED))
