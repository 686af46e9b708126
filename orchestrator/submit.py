"""Runs a sweep on a cluster from outside it: as a Ray job, or through Ray's client. The same command again is the resume.

The whole driver runs on the cluster, because the study that it holds open cannot be sent there.
"""

import asyncio
import io
import logging
import shlex
import tempfile
import time
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, cast

from orchestrator.cluster import runtime_env as shipping
from orchestrator.config.load import resolved
from orchestrator.config.model import SweepConfig
from orchestrator.console.terminal import Terminal
from orchestrator.errors import SweepFailed
from trials.errors import InputError
from trials.ledger.storage import check_url

_SETTLE_SECONDS = 30  # seconds until Ray reports a terminal state after the log's end
_DETACHED = 130  # exit code after Ctrl-C, which does not stop the job


@dataclass(frozen=True)
class ClusterSweep:
    """A sweep to run on a cluster; InputError for a path that the cluster's nodes would resolve to another place."""

    config: SweepConfig
    storage: str
    events: str | None = None

    def __post_init__(self) -> None:
        check_url(self.storage)
        for name, path in (("storage", self.storage), ("hub_mirror", self.config.hub_mirror), ("--events", self.events)):
            if path is not None and "://" not in path and not Path(path).is_absolute():
                remote = ", or s3://, gs://" if name == "storage" else ""
                raise InputError(f"{name}: {path}: on a cluster this must be an absolute path that all its nodes share{remote}")


def submit(sweep: ClusterSweep, address: str, say: Callable[[str], None]) -> int:
    """Submits `slimsweep run` as a Ray job to the cluster whose dashboard is at `address`.

    Prints the job's log and returns its exit code. Ctrl-C ends the log alone.
    """
    from ray.exceptions import AuthenticationError
    from ray.job_submission import JobSubmissionClient

    from orchestrator.cluster import connect

    logging.disable(logging.INFO)  # Ray logs uploads and closed connections
    try:
        client = JobSubmissionClient(address)
    except (ConnectionError, RuntimeError, ValueError, AuthenticationError) as error:
        raise connect.unreachable(address, error) from None
    connect.check_job_server(address, client)
    job = _submit(client, sweep)
    say(f"{sweep.config.name}: job {job} at {address}")
    try:
        return _follow(client, job, say)
    except KeyboardInterrupt:
        say(f"the job goes on: ray job logs --follow --address {address} {job}; ray job stop --address {address} {job}")
        return _DETACHED


def _submit(client: Any, sweep: ClusterSweep) -> str:
    """The id of the job. Its working directory holds the code and the config."""
    with tempfile.TemporaryDirectory(prefix="slimsweep-job-") as scratch:
        folder = Path(scratch)
        shipping.copy(sweep.config, folder)
        (folder / "sweep.yaml").write_text(resolved(sweep.config), encoding="utf-8")
        command = ["python", "-m", "orchestrator.cli", "run", "sweep.yaml", "--address", "auto", "--storage", sweep.storage]
        command += ["--events", sweep.events] if sweep.events else []
        try:
            # Ray names the job, because every resume is a new one; the metadata's `name` finds a sweep's jobs
            return client.submit_job(
                entrypoint=shlex.join(command),
                runtime_env={"working_dir": str(folder), "env_vars": shipping.revision()},
                metadata={"name": sweep.config.name},
            )
        except RuntimeError as error:
            raise SweepFailed(f"the cluster does not take the job: {_shorten(error)}") from None


def _follow(client: Any, job: str, say: Callable[[str], None]) -> int:
    """The job's exit code, once its log has ended; SweepFailed where Ray stopped it or the connection broke."""
    import aiohttp

    try:
        asyncio.run(_print_log(client, job, say))
        found = client.get_job_info(job)
        for _ in range(_SETTLE_SECONDS):
            if found.status.is_terminal():
                break
            time.sleep(1)
            found = client.get_job_info(job)
    except (RuntimeError, OSError, aiohttp.ClientError) as error:
        raise SweepFailed(f"job {job}: the connection broke, but the job may go on: {_shorten(error)}") from None
    if found.driver_exit_code is not None:
        return int(found.driver_exit_code)
    if found.status != "SUCCEEDED":
        raise SweepFailed(f"job {job}: {found.status.lower()}: {_shorten(found.message)}")
    return 0


async def _print_log(client: Any, job: str, say: Callable[[str], None]) -> None:
    rest = ""
    async for text in client.tail_job_logs(job):
        *lines, rest = (rest + text).split("\n")
        for line in lines:
            say(line)
    if rest:
        say(rest)


def _shorten(text: object) -> str:
    return " ".join(str(text).split())[:300]


def run_through_client(sweep: ClusterSweep, address: str, console: Terminal, show: bool) -> tuple[int | None, dict[str, Any]]:
    """Drives the sweep in a task on the cluster at ray://HOST:PORT; returns what `drive` and `finish` return.

    The task prints to `console`, with `show` the front too. It ends with this process.
    """
    import ray
    from ray._private import client_mode_hook
    from ray.util.queue import Queue

    from orchestrator.cluster import connect

    try:
        with shipping.runtime_env(sweep.config) as shipped, warnings.catch_warnings(action="ignore"):
            variables = shipped.get("env_vars", {}) | connect.environment(sweep.config.resources)
            # Ray raises as well whatever it warns of
            ray.init(address, runtime_env={**shipped, "env_vars": variables}, log_to_driver=False, logging_level=logging.ERROR)
    except (ConnectionError, ImportError, RuntimeError, ValueError) as error:
        # Ray leaves its client switched on, and this process could never start a local Ray
        client_mode_hook._explicitly_disable_client_mode()
        raise connect.unreachable(address, error) from None
    try:
        lines = Queue(actor_options={"num_cpus": 0})
        drive = ray.remote(num_cpus=0)(_drive_on_cluster)
        result = _print_lines(
            drive.remote(sweep.config.model_dump_json(), sweep.storage, sweep.events, show, lines), lines, console
        )
    except ray.exceptions.RayTaskError:  # a bug in the program: keep its traceback
        raise
    except (ray.exceptions.RayError, ConnectionError) as error:
        raise SweepFailed(f"{address}: lost the driver there; the same command goes on: {_shorten(error)}") from None
    finally:
        ray.shutdown()
    if isinstance(result, Exception):
        raise result
    return result


def _print_lines(task: Any, lines: Any, console: Terminal) -> Any:
    """Prints the lines in the queue until the task ends; returns the task's result."""
    import ray

    while True:
        done, _ = ray.wait([task], timeout=0.5)
        while not lines.empty():
            console.out(lines.get(), end="", highlight=False)
        if done:
            return ray.get(task)


class _QueueWriter(io.TextIOBase):
    """A text file that puts what is written into a queue."""

    def __init__(self, queue: Any):
        self._queue = queue

    def write(self, text: str) -> int:
        self._queue.put(text)
        return len(text)


def _drive_on_cluster(
    config: str, storage: str, events: str | None, show: bool, lines: Any
) -> tuple[int | None, dict[str, Any]] | InputError | SweepFailed:
    """Runs on the cluster. Returns an expected error: Ray would wrap a raised one in its own traceback."""
    from orchestrator.finish import finish
    from orchestrator.run import drive
    from orchestrator.sweep.events import event_log

    sweep, console = SweepConfig.model_validate_json(config), Terminal(file=cast(IO[str], _QueueWriter(lines)), width=160)
    try:
        left = drive(sweep, storage, None, console, event_log(events))
        return left, finish(storage, sweep.name, console if show else None)
    except (InputError, SweepFailed) as error:
        return error
    except OSError as error:
        return InputError(f"{error.filename or 'storage'}: {error.strerror or error}")
