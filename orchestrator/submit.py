"""Runs a sweep on a cluster from outside it: as a Ray job, or through Ray's client. The same command again is the resume.

A searcher that holds the study cannot be sent to a cluster, so the whole driver runs there; what it writes must therefore be
in a place that the cluster reaches.
"""

import asyncio
import io
import logging
import shlex
import tempfile
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import IO, Any, cast

from rich.console import Console

from orchestrator.cluster import runtime_env as shipping
from orchestrator.config.load import resolved
from orchestrator.config.model import SweepConfig
from orchestrator.console.terminal import Terminal
from orchestrator.errors import SweepFailed
from trials.errors import InputError
from trials.ledger.storage import check_url

_SETTLES = 30  # seconds between the end of a job's log and its state
_DETACHED = 130  # exit code after Ctrl-C, which says nothing about the job


def submit(config: SweepConfig, storage: str, address: str, say: Callable[[str], None], events: str | None = None) -> int:
    """Submits `slimsweep run` as a Ray job to the cluster whose dashboard is at `address`, follows its log and returns its
    exit code. Ctrl-C ends the following alone."""
    _reachable(config, storage, events)
    from ray.exceptions import AuthenticationError
    from ray.job_submission import JobSubmissionClient

    from orchestrator.cluster import connect

    logging.disable(logging.INFO)  # Ray's, of uploads and closed connections
    try:
        client = JobSubmissionClient(address)
    except (ConnectionError, RuntimeError, ValueError, AuthenticationError) as error:
        raise connect.unreachable(address, error) from None
    job = _submit(client, config, storage, events)
    say(f"{config.name}: job {job} at {address}")
    try:
        return _follow(client, job, say)
    except KeyboardInterrupt:
        say(f"the job goes on: ray job logs --follow --address {address} {job}; ray job stop --address {address} {job}")
        return _DETACHED


def _submit(client: Any, config: SweepConfig, storage: str, events: str | None) -> str:
    """The id of the job, whose working directory holds the code and the config."""
    with tempfile.TemporaryDirectory(prefix="slimsweep-job-") as scratch:
        folder = Path(scratch)
        shipping.copy(folder)
        (folder / "sweep.yaml").write_text(resolved(config), encoding="utf-8")
        command = ["python", "-m", "orchestrator.cli", "run", "sweep.yaml", "--address", "auto", "--storage", storage]
        command += ["--events", events] if events else []
        try:
            # every resume is a job of its own, so Ray names it; `name` finds a sweep's jobs
            return client.submit_job(
                entrypoint=shlex.join(command),
                runtime_env={"working_dir": str(folder), "env_vars": shipping.revision()},
                metadata={"name": config.name},
            )
        except RuntimeError as error:
            raise SweepFailed(f"the cluster does not take the job: {_short(error)}") from None


def _follow(client: Any, job: str, say: Callable[[str], None]) -> int:
    """The job's exit code, once its log has ended; SweepFailed where Ray ended it or nobody knows."""
    import aiohttp

    try:
        asyncio.run(_print_log(client, job, say))
        found = client.get_job_info(job)
        for _ in range(_SETTLES):
            if found.status.is_terminal():
                break
            time.sleep(1)
            found = client.get_job_info(job)
    except (RuntimeError, OSError, aiohttp.ClientError) as error:
        raise SweepFailed(f"job {job}: lost from sight, but it may go on: {_short(error)}") from None
    if found.driver_exit_code is not None:
        return int(found.driver_exit_code)
    if found.status != "SUCCEEDED":
        raise SweepFailed(f"job {job}: {found.status.lower()}: {_short(found.message)}")
    return 0


async def _print_log(client: Any, job: str, say: Callable[[str], None]) -> None:
    rest = ""
    async for text in client.tail_job_logs(job):
        *lines, rest = (rest + text).split("\n")
        for line in lines:
            say(line)
    if rest:
        say(rest)


def _short(what: object) -> str:
    return " ".join(str(what).split())[:300]


def _reachable(config: SweepConfig, storage: str, events: str | None) -> None:
    """Raises InputError for a path that would mean another place on the cluster, or none."""
    check_url(storage)
    for name, path in (("storage", storage), ("hub_mirror", config.hub_mirror), ("--events", events)):
        if path is not None and "://" not in path and not Path(path).is_absolute():
            remote = ", or s3://, gs://" if name == "storage" else ""
            raise InputError(f"{name}: {path}: on a cluster this must be an absolute path that all its nodes share{remote}")


def run_through_client(
    config: SweepConfig, storage: str, address: str, console: Console, events: str | None, *, show: bool
) -> tuple[int | None, dict[str, Any]]:
    """Drives the sweep in a task on the cluster at ray://HOST:PORT; returns what `drive` and `finish` return.

    Its lines come back as it prints them, with `show` the front too. When this process ends, so does the task.
    """
    _reachable(config, storage, events)
    import ray
    from ray.util.queue import Queue

    from orchestrator.cluster import connect

    shipped = shipping.runtime_env()
    runtime_env = {**shipped, "env_vars": shipped.get("env_vars", {}) | connect.environment(config.resources)}
    try:
        with warnings.catch_warnings(action="ignore"):  # what Ray warns of it raises as well
            ray.init(address, runtime_env=runtime_env, log_to_driver=False, logging_level=logging.ERROR)
    except (ConnectionError, ImportError, RuntimeError, ValueError) as error:
        raise connect.unreachable(address, error) from None
    try:
        lines = Queue(actor_options={"num_cpus": 0})
        task = ray.remote(num_cpus=0)(_drive_there)
        kind, text, left, outcome = _print_lines(
            task.remote(config.model_dump_json(), storage, events, show, lines), lines, console
        )
    except ray.exceptions.RayTaskError:  # a mistake in the program, with its traceback
        raise
    except (ray.exceptions.RayError, ConnectionError) as error:
        raise SweepFailed(f"{address}: the driver there is gone; the same command goes on: {_short(error)}") from None
    finally:
        ray.shutdown()
    if kind:
        raise {"input": InputError, "failed": SweepFailed}[kind](text)
    return left, outcome


def _print_lines(answer: Any, lines: Any, console: Console) -> Any:
    """Prints what comes through the queue until the answer is there."""
    import ray

    while True:
        done, _ = ray.wait([answer], timeout=0.5)
        while not lines.empty():
            console.out(lines.get(), end="", highlight=False)
        if done:
            return ray.get(answer)


class _Lines(io.TextIOBase):
    """A file whose text comes out of a queue."""

    def __init__(self, queue: Any):
        self._queue = queue

    def write(self, text: str) -> int:
        self._queue.put(text)
        return len(text)


def _drive_there(
    config: str, storage: str, events: str | None, show: bool, lines: Any
) -> tuple[str, str, int | None, dict[str, Any]]:
    """On the cluster. What goes wrong comes back as words: an exception would come back wrapped in Ray's traceback."""
    from orchestrator.finish import finish
    from orchestrator.run import drive

    sweep, console = SweepConfig.model_validate_json(config), Terminal(file=cast(IO[str], _Lines(lines)), width=160)
    try:
        left = drive(sweep, storage, None, console, events)
        return "", "", left, finish(storage, sweep.name, console if show else None)
    except InputError as error:
        return "input", str(error), None, {}
    except SweepFailed as error:
        return "failed", str(error), None, {}
    except OSError as error:
        return "input", f"{error.filename or 'storage'}: {error.strerror or error}", None, {}
