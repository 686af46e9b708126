"""Finds out why a worker died: from Ray's report, the process's log and the kernel's count of out-of-memory kills."""

import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import ray
from ray import tune
from ray.air.execution._internal.actor_manager import RayActorManager
from ray.exceptions import OutOfMemoryError, RayActorError

from orchestrator.cluster import limits

_LAST_WORDS = re.compile(
    r"^(Fatal Python error: .*|\*\*\* SIG[A-Z]+ received .*|terminate called .*|\w*(?:Error|Exit): .*)$", re.M
)
_PID = re.compile(r"\bpid[:=] ?(\d+)")
_DETAIL = re.compile(r"Worker exit detail: (.*)")
_USED = re.compile(r"was (\S+ used / \S+) limit")
_LONGEST = 300


@contextmanager
def out_of_memory_as_death() -> Iterator[None]:
    """Within the context, Tune takes a worker that Ray kills for lack of memory for one that died, and tries its trial again.

    By itself it ends the whole run: such a worker's task raises an OutOfMemoryError, and Tune knows RayActorError alone.
    """
    own = RayActorManager._actor_task_failed

    def failed(manager: RayActorManager, tracked_actor_task: Any, exception: Exception) -> None:
        if isinstance(exception, OutOfMemoryError):
            exception = RayActorError(error_msg=_without_memory(exception))
        own(manager, tracked_actor_task, exception)

    RayActorManager._actor_task_failed = failed  # type: ignore[method-assign, assignment]
    try:
        yield
    finally:
        RayActorManager._actor_task_failed = own  # type: ignore[method-assign]


def _without_memory(error: Exception) -> str:
    used = _USED.search(str(error))
    return f"killed by Ray, because the machine was out of memory{f' ({used[1]})' if used else ''}"


class Deaths(tune.Callback):
    """Keeps Tune's trials: a searcher learns that a trial failed, but not why."""

    def __init__(self) -> None:
        self._trials: Sequence[Any] = ()
        self._killed = limits.oom_kills()

    def on_step_begin(self, iteration: int, trials: Sequence[Any], **info: Any) -> None:
        self._trials = trials

    def cause(self, trial_id: str) -> str:
        """The cause in one line; empty where it is unknown."""
        error = next((trial.get_pickled_error() for trial in self._trials if trial.trial_id == trial_id), None)
        words = _first_cause(str(error)) if error is not None else ""
        pid = _PID.search(str(error))
        if last := _last_words(pid[1]) if pid else "":
            return last
        if "connection error" in words and limits.oom_kills() > self._killed:
            return "killed by the kernel, which was out of memory"
        return words

    def __getstate__(self) -> dict[str, Any]:
        return {}  # Tune pickles its callbacks into a snapshot that nobody reads


def _first_cause(text: str) -> str:
    """The exception in the worker or the end of its process, from Ray's report."""
    if raised := re.findall(r"^\s*(\w[\w.]*(?:Error|Exception|Exit|Interrupt)\b: .*)$", text, re.M):
        return str(raised[-1])[:_LONGEST]
    if detail := _DETAIL.search(text):
        return detail[1].partition(" Some common causes")[0][:_LONGEST]
    return " ".join(text.split())[:_LONGEST]


def _last_words(pid: str) -> str:
    """The last line about a crash in a local worker's log."""
    node = ray._private.worker._global_node
    if node is None:
        return ""
    for log in Path(node.get_logs_dir_path()).glob(f"worker-*-{pid}.err"):
        if found := _LAST_WORDS.findall(log.read_text(encoding="utf-8", errors="replace")):
            return str(found[-1])[:_LONGEST]
    return ""
