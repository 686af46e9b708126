"""Connects to a Ray cluster, or starts a local Ray that listens on loopback alone."""

import importlib.util
import os
import platform
import re
import signal
import threading
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

# Ray reads these when it is imported or starts its processes.
os.environ.setdefault("RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER", "0")  # a local Ray would listen on every interface
os.environ.setdefault("RAY_CHDIR_TO_TRIAL_DIR", "0")
os.environ.setdefault("RAY_AIR_NEW_OUTPUT", "0")
os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
os.environ.setdefault("TUNE_PRINT_ALL_TRIAL_ERRORS", "0")
os.environ.setdefault("TUNE_DISABLE_AUTO_CALLBACK_LOGGERS", "1")
os.environ.setdefault("TUNE_DISABLE_SIGINT_HANDLER", "1")  # Tune's handler kills the running trials; see `interruptible`

import psutil
import ray
from ray._private import ray_constants
from ray.job_config import JobConfig

from orchestrator.cluster import limits
from orchestrator.cluster.watch import Check, Watch, child, local_process, server
from orchestrator.config.model import Resources
from orchestrator.errors import SweepFailed
from trials.errors import InputError
from trials.printable import one_line, without_passwords
from trials.run.threads import cpu_settings

# a program or a notebook may have imported Ray before this file set the variable
ray_constants.ENABLE_RAY_CLUSTER = ray_constants.env_bool(ray_constants.ENABLE_RAY_CLUSTERS_ENV_VAR, False)
# Ray would print its processes' reports to standard output; their logs have them too
ray._private.worker.print_to_stdstream = lambda *arguments, **named: None

MINIMUM = "2.60"
"""The oldest Ray that runs a sweep, as in pyproject.toml."""
_HERE = Path(__file__).parents[2]
_TOKEN_SECONDS = 5.0  # for a cluster to refuse a token; Ray finds out whatever else is wrong
_STORE = 128 << 20  # bytes of the object store; it holds the trainable, and Ray's default is 30 % of the memory
_TRIES = 3  # starts of a local Ray


def environment(resources: Resources) -> dict[str, str]:
    """Environment variables of every process of the sweep."""
    return {
        **cpu_settings(resources.cpus_per_trial),
        "TOKENIZERS_PARALLELISM": "false",
        "HF_DATASETS_DISABLE_PROGRESS_BARS": "1",
        "TQDM_DISABLE": "1",  # a worker writes to a log
        "RAY_CHDIR_TO_TRIAL_DIR": "0",
        "TORCHDYNAMO_DISABLE": "1",  # bitsandbytes would import torch's compiler, unused: a seventh of the imports
    }


@contextmanager
def connected(address: str | None, resources: Resources, runtime_env: dict[str, Any]) -> Iterator[None]:
    """Connects to the cluster at `address`, or starts a local Ray; shuts the connection down afterwards.

    InputError where this process has a connection of its own, which has another address and other settings.
    """
    if ray.is_initialized():
        if ray._private.worker.global_worker.mode != ray.WORKER_MODE:
            raise InputError("Ray is connected already in this process, and a sweep connects by itself: ray.shutdown() first")
        yield  # in a task of a cluster: the connection is not ours to end
        return
    runtime_env = {**runtime_env, "env_vars": runtime_env.get("env_vars", {}) | environment(resources)}
    common: dict[str, Any] = {"log_to_driver": False, "logging_level": "ERROR", "runtime_env": runtime_env}
    common["job_config"] = _job_config(own_code=address is None)
    watch = Watch()
    try:
        with _own_signals():
            if address is None:
                _start(common)
            else:
                _join(address, common)
            _begin(watch)
        yield
    except BaseException as error:
        if watch.lost is None:
            raise
        raise SweepFailed(watch.lost) from error
    finally:
        if watch.lost is None:
            watch.end()
        ray.shutdown()
        watch.end()


def _begin(watch: Watch) -> None:
    """Watches the raylet of this machine and the GCS. Ray's client (ray://) has neither; it reports a lost server itself."""
    node: Any = ray._private.worker._global_node
    if node is None:
        return
    checks: dict[str, Check] = {}
    if node.head:
        checks = {name: child(node.all_processes[name][0].process) for name in ("gcs_server", "raylet")}
    else:
        checks["gcs_server"] = server(node.gcs_address)
        if (raylet := _raylet(node.raylet_socket_name)) is not None:
            checks["raylet"] = local_process(raylet)
    watch.begin(checks, Path(node.get_logs_dir_path()))


def _raylet(socket_name: str) -> psutil.Process | None:
    """The raylet that listens on this socket; None where another user's processes are hidden."""
    for process in psutil.process_iter(["name", "cmdline"]):
        if process.info["name"] == "raylet" and any(socket_name in part for part in process.info["cmdline"] or ()):
            return process
    return None


def _join(address: str, common: dict[str, Any]) -> None:
    _check_token(address)
    try:
        ray.init(address=address, **common)
    except (ConnectionError, ValueError, RuntimeError) as error:
        raise unreachable(address, error) from error


def _check_token(address: str) -> None:
    """InputError where the cluster refuses this command's token; Ray would retry for half a minute."""
    if importlib.util.find_spec("grpc") is None:  # part of the extra `cluster`
        return
    import grpc
    from ray._private.authentication.http_token_authentication import get_auth_headers_if_auth_enabled
    from ray._private.services import canonicalize_bootstrap_address

    place = canonicalize_bootstrap_address(address)
    if place is None:
        return
    with grpc.insecure_channel(place, options=[("grpc.enable_http_proxy", 0)]) as channel:
        ask = channel.unary_unary("/ray.rpc.NodeInfoGcsService/GetClusterId")
        try:
            ask(b"", metadata=list(get_auth_headers_if_auth_enabled({}).items()), timeout=_TOKEN_SECONDS)
        except grpc.RpcError as error:
            if error.code() == grpc.StatusCode.UNAUTHENTICATED:
                raise unreachable(address, error.details()) from None


class _SearchPath(list[str]):
    """The folders that Ray puts first in its workers' search path."""

    def extend(self, folders: Iterable[str]) -> None:
        """Ignores the working directory, which Ray would add: workers would import the user's `trials` or `datasets.py`."""


def _job_config(own_code: bool) -> JobConfig:
    config = JobConfig()
    in_checkout = own_code and (_HERE / "pyproject.toml").exists()  # a checkout need not be installed
    config._py_driver_sys_path = _SearchPath([str(_HERE)] if in_checkout else [])
    return config


@contextmanager
def _own_signals() -> Iterator[None]:
    """Restores our handler of SIGTERM: Ray sets one that exits with its own code."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.getsignal(signal.SIGTERM)
    try:
        yield
    except SystemExit:
        raise KeyboardInterrupt from None
    finally:
        signal.signal(signal.SIGTERM, before)


def _start(common: dict[str, Any]) -> None:
    """Starts a local Ray, again where it timed out: a busy machine may exceed Ray's limit of half a minute."""
    folder = limits.ray_folder()
    limits.check_file_size(_STORE)
    limits.check_threads()
    limits.raise_open_files()
    for left in reversed(range(_TRIES)):
        try:
            ray.init(
                address="local",
                _temp_dir=folder,
                num_cpus=len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count(),
                include_dashboard=False,
                object_store_memory=_STORE,
                _node_ip_address="127.0.0.1",
                # the workers that Ray prestarts for each core lack the variables that Tune gives its actors
                _system_config={"prestart_worker_first_driver": False},
                **common,
            )
            return
        except Exception as error:
            ray.shutdown()
            if isinstance(error, OSError) and error.filename:  # Ray cannot write its token to ~/.ray
                raise InputError(
                    f"{error.filename}: {error.strerror}; Ray writes there: set HOME to a folder of yours"
                ) from error
            if low := limits.low():
                raise SweepFailed(f"Ray did not start on this machine, where a process may have {low}; raise that") from error
            if "timed out" not in str(error):
                raise
            if not left:
                raise SweepFailed(
                    f"Ray did not start on this machine in {_TRIES} tries: it may be too busy, or other Rays run on it; "
                    "the same command again goes on"
                ) from error


_VERSIONS = re.compile(
    r"The cluster was started with:\s+Ray: (\S+)\s+Python: (\S+).*with:\s+Ray: (\S+)\s+Python: (\S+)", re.DOTALL
)


def unreachable(address: str, error: object) -> InputError:
    """The error for an --address that does not answer, refuses this command, or runs other versions of Ray or Python."""
    address, text = without_passwords(address), str(error)
    if "Traceback (most recent call last)" in text:  # of a server behind the address: its last line is the cause
        text = text.rstrip().splitlines()[-1]
    reason = one_line(text)[:160]
    if versions := _VERSIONS.search(str(error)):
        theirs, their_python, ours, our_python = versions.groups()
        return InputError(
            f"--address {address}: the cluster has Ray {theirs} and Python {their_python}, this command Ray {ours} and Python "
            f"{our_python}; both sides need the same. slimsweep submit needs only Ray {MINIMUM} and Python 3.11 to 3.13 there"
        )
    if os.environ.get("RAY_AUTH_MODE") != "token":
        reason += " (a cluster that asks for a token needs RAY_AUTH_MODE=token and RAY_AUTH_TOKEN or ~/.ray/auth_token)"
    return InputError(f"--address {address}: no Ray cluster answers there: {reason}")


def check_job_server(address: str, client: Any) -> None:
    """InputError where the Ray of a job server is too old. Its Python is unknown here; the job itself checks it."""
    theirs = client._server_ray_version
    if theirs is not None and tuple(map(int, theirs.split(".")[:2])) < tuple(map(int, MINIMUM.split("."))):
        raise InputError(
            f"--address {without_passwords(address)}: the cluster has Ray {theirs}; a sweep needs Ray {MINIMUM} or later and "
            f"Python 3.11 to 3.13 on its nodes (here: Ray {ray.__version__}, Python {platform.python_version()})"
        )
