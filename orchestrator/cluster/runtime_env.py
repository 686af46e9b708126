"""Ships the program's three packages, and the task folders of a config, to nodes in a Ray runtime environment.

The packages' dependencies must be installed there.

No secret is shipped, because every user of the cluster can read runtime environments: each node has its own HF_TOKEN.
"""

import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from orchestrator.config.model import SweepConfig
from trials.run.revision import SHIPPED, git_revision
from trials.tasks.folder import files, located, shipped_name

PACKAGES = ("orchestrator", "trials", "analysis")
_HERE = Path(__file__).parents[2]
_EXCLUDED = ("__pycache__", "*.pyc", ".*")


@contextmanager
def runtime_env(config: SweepConfig) -> Iterator[dict[str, Any]]:
    """The `runtime_env` for a `ray.init` within the block: it ships this code and the config's task folders."""
    if "RAY_JOB_CONFIG_JSON_ENV_VAR" in os.environ:  # a submitted job has both already
        yield {}
        return
    modules = [str(_HERE / name) for name in PACKAGES]
    with tempfile.TemporaryDirectory(prefix="slimsweep-tasks-") as scratch:
        modules += map(str, copy_task_folders(config, Path(scratch)))
        yield {"py_modules": modules, "excludes": ["**/__pycache__"], "env_vars": revision()}


def revision() -> dict[str, str]:
    """Environment variables that name the git revision of the shipped code."""
    found = git_revision()
    return {SHIPPED: found} if found else {}


def copy(config: SweepConfig, folder: Path) -> None:
    """Copies the packages and the config's task folders into `folder`, a job's working directory."""
    for name in PACKAGES:
        shutil.copytree(_HERE / name, folder / name, ignore=shutil.ignore_patterns(*_EXCLUDED))
    copy_task_folders(config, folder)


def copy_task_folders(config: SweepConfig, folder: Path) -> list[Path]:
    """Copies the config's task folders into `folder`, under the names by which `located` finds them; returns the copies."""
    copies = []
    for include in sorted({evaluation.include for evaluation in config.eval.values() if evaluation.include is not None}):
        copies.append(folder / shipped_name(include))
        for name, path in files(located(include)).items():
            (copies[-1] / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(path, copies[-1] / name)  # a link becomes the file behind it
    return copies
