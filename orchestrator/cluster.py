"""The Ray that a sweep runs on: one that is there already, or one of this machine's own."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

# Ray reads these when it is imported or starts its processes.
os.environ.setdefault("RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER", "0")  # a local Ray would listen on every interface
os.environ.setdefault("RAY_CHDIR_TO_TRIAL_DIR", "0")
os.environ.setdefault("RAY_AIR_NEW_OUTPUT", "0")
os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
os.environ.setdefault("TUNE_PRINT_ALL_TRIAL_ERRORS", "0")
os.environ.setdefault("TUNE_DISABLE_AUTO_CALLBACK_LOGGERS", "1")
os.environ.setdefault("TUNE_DISABLE_SIGINT_HANDLER", "1")  # it kills what runs; see `interruptible`

import ray

from orchestrator.config import Resources
from orchestrator.errors import SweepFailed
from trials.errors import InputError

_TRIES = 3  # to start a Ray of this machine's own


def environment(resources: Resources) -> dict[str, str]:
    """What every process of the sweep finds in its environment."""
    return {
        "OMP_NUM_THREADS": str(resources.cpus_per_trial),
        "TOKENIZERS_PARALLELISM": "false",
        "HF_DATASETS_DISABLE_PROGRESS_BARS": "1",
        "RAY_CHDIR_TO_TRIAL_DIR": "0",
        "TORCHDYNAMO_DISABLE": "1",  # bitsandbytes would import torch's compiler, a seventh of all imports, and nothing uses it
    }


@contextmanager
def connected(address: str | None, resources: Resources, runtime_env: dict[str, Any]) -> Iterator[None]:
    """A connection to the cluster at `address`, or a Ray of this machine's own that listens on loopback alone.

    Inside a task of a cluster that connection is there already, and stays.
    """
    if ray.is_initialized():
        yield
        return
    runtime_env = {**runtime_env, "env_vars": runtime_env.get("env_vars", {}) | environment(resources)}
    common: dict[str, Any] = {"log_to_driver": False, "logging_level": "ERROR", "runtime_env": runtime_env}
    if address is None:
        _start(common)
    else:
        try:
            ray.init(address=address, **common)
        except (ConnectionError, ValueError, RuntimeError) as error:
            raise unreachable(address, error) from error
    try:
        yield
    finally:
        ray.shutdown()


def _start(common: dict[str, Any]) -> None:
    """A Ray of this machine's own. It gives itself half a minute, which a busy machine may exceed: that is tried again."""
    for left in reversed(range(_TRIES)):
        try:
            ray.init(
                address="local",
                num_cpus=len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count(),
                include_dashboard=False,
                _node_ip_address="127.0.0.1",
                # it would start a worker for each core, none of which has the variables that Tune gives its actors
                _system_config={"prestart_worker_first_driver": False},
                **common,
            )
            return
        except Exception as error:
            ray.shutdown()
            if "timed out" not in str(error):
                raise
            if not left:
                raise SweepFailed(
                    f"Ray did not start on this machine in {_TRIES} tries: it may be too busy, or other Rays run on it; "
                    "the same command again goes on"
                ) from error


def unreachable(address: str, error: Exception) -> InputError:
    """What --address names does not answer, or not to us."""
    reason = " ".join(str(error).split())[:160]
    if os.environ.get("RAY_AUTH_MODE") != "token":
        reason += " (a cluster that asks for a token needs RAY_AUTH_MODE=token and RAY_AUTH_TOKEN or ~/.ray/auth_token)"
    return InputError(f"--address {address}: no Ray cluster answers there: {reason}")
