"""The searcher of Ray Tune: suggests the sweep's jobs and reports their outcomes to the sweep."""

import functools
import json
import math
import time
from collections.abc import Callable
from typing import Any

from ray.tune.search import Searcher

from orchestrator.errors import SweepFailed
from orchestrator.search.study_storage import STUDY_ERRORS
from orchestrator.sweep.controller import SweepController
from orchestrator.sweep.queue import Job
from orchestrator.sweep.racing import against
from trials.errors import InputError

_POLL = 1.0  # seconds between two requests for a job while there is none


class StudySearcher(Searcher):
    def __init__(
        self,
        sweep: SweepController,
        slots: Callable[[], int],
        together: int = 1,
        cause: Callable[[str], str] = lambda trial_id: "",
    ):
        """`slots` returns how many workers fit on the cluster now, `cause` why the worker of one of Tune's trials died.

        One of Tune's trials runs up to `together` trials of the sweep.
        """
        super().__init__()
        self._sweep, self._slots, self._together, self._cause = sweep, slots, together, cause
        self._batches: dict[str, list[str]] = {}
        self._alone: set[str] = set()
        """Keys of trials that shared a worker which died at every attempt."""
        self._next: list[Job] = []
        self.error: Exception | None = None
        """The error of the study or the storage that ends the sweep."""

    def suggest(self, trial_id: str) -> dict[str, Any] | str | None:  # type: ignore[override]  # Ray leaves FINISHED out
        sweep = self._sweep
        sweep.state.slots = self._slots()
        jobs, self._next = self._next, []
        if not jobs and self.error is None and len(self._batches) < sweep.state.slots:
            self._guard(lambda: self._take(jobs))
        if jobs:
            self._batches[trial_id] = [job.spec.key for job in jobs]
            handed_out = [
                {
                    "spec": job.spec.model_dump_json(),
                    "name": f"{sweep.config.name} {'baseline' if job.number is None else f'trial {job.number}'}",
                    "keep": sweep.config.kept(job.spec),
                    "judged": sweep.judged(job),
                    "pause": sweep.pause_of(job),
                }
                for job in jobs
            ]
            front = [row["key"] for row in sweep.front.rows()]
            return {
                "jobs": handed_out,
                "against": against(sweep.config, front, sweep.front.bases) if sweep.config.search.racing else None,
            }
        self._guard(sweep.write_manifest)
        # Tune keeps idle workers until the search has finished, and another command may need their room
        if self.error is not None or sweep.over or (len(self._batches) < sweep.state.slots and sweep.waits_for_others):
            return Searcher.FINISHED
        return None

    def wait(self) -> bool:
        """Waits without workers for the next job; False where there will be none."""
        while self.error is None and not self._sweep.over:
            self._guard(lambda: self._take(self._next))
            if self._next:
                return True
            time.sleep(_POLL)
        return False

    def _take(self, jobs: list[Job]) -> None:
        """Appends the jobs for one worker. After an error the list keeps those that were appended."""
        most = 1
        while len(jobs) < most and (job := self._sweep.next_job()) is not None:
            if jobs and job.spec.key in self._alone:
                self._sweep.give_back(job.spec.key)
                return
            jobs.append(job)
            if len(jobs) == 1 and job.spec.key not in self._alone:
                most = min(self._together, self._share())

    def _share(self) -> int:
        """An equal share of the waiting jobs for each free worker: none is idle while another has several."""
        state = self._sweep.state
        if state.unfinished is None:
            return self._together
        waiting = state.unfinished - len(self._sweep.running) + 1  # the job that was just taken counts as waiting
        return math.ceil(waiting / max(state.slots - len(self._batches), 1))

    def on_trial_complete(self, trial_id: str, result: dict[str, Any] | None = None, error: bool = False) -> None:
        keys = self._batches.pop(trial_id)
        if error or result is None:
            for key in keys:
                self._guard(functools.partial(self._died, key, self._cause(trial_id), alone=len(keys) == 1))
            return
        seconds = result["seconds"] / max(len(keys) - result["ends"].count("held"), 1)
        for key, end, reason in zip(keys, result["ends"], result["reasons"], strict=True):
            if end == "paused":
                self._guard(functools.partial(self._sweep.pause, key, json.loads(reason), seconds))
            else:
                self._guard(functools.partial(self._sweep.finish, key, end, reason, seconds))

    def _died(self, key: str, cause: str, alone: bool) -> None:
        """The worker died at every attempt. A job that shared it may not be the cause and runs again alone."""
        if alone:
            self._sweep.finish(key, "died", f"the worker process died at every attempt{cause and f': {cause}'}")
        else:
            self._alone.add(key)
            self._sweep.give_back(key)

    def _guard(self, call: Callable[[], Any]) -> Any:
        """Keeps an error of the study or the storage, so that the running trials can end."""
        try:
            return call()
        except STUDY_ERRORS as error:
            cause = error.__cause__ or error
            self.error = self.error or SweepFailed(f"the study cannot be written: {' '.join(str(cause).split())[:200]}")
        except (OSError, InputError) as error:
            self.error = self.error or error

    def __getstate__(self) -> dict[str, Any]:
        return {}  # Tune pickles its searcher into a snapshot that nobody reads; a lock and a database cannot be pickled

    def save(self, checkpoint_path: str) -> None:
        """Does nothing: the study is the state."""

    def restore(self, checkpoint_path: str) -> None:
        """Does nothing: the study is the state."""
