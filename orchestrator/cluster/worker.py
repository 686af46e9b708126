"""The worker process of a slot: runs trials one after another, or several at once."""

import gc
import json
import os
import time
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ray import _raylet, tune

from trials.errors import StorageFailed
from trials.printable import printable
from trials.spec import TrialSpec

if TYPE_CHECKING:
    from trials.evaluation.racing import Race
    from trials.ledger.trial_progress import TrialProgress
    from trials.run.worker import Ended, Worker


class TrialActor(tune.Trainable):
    """Keeps the base, the tasks and their data in memory from one trial to the next."""

    def setup(
        self, config: dict[str, Any], storage: str | Path = "", mirror: Path | None = None, threads: int = 1, gpus: float = 0
    ) -> None:
        # Nothing slow here: Tune gives a waiting trial the next free worker and drops the one that starts. If trials
        # end often, a new node would never get a worker that takes long to start.
        self._arguments = (storage, mirror, threads, gpus)
        self.reset_config(config)

    @cached_property
    def worker(self) -> "Worker":
        storage, mirror, threads, gpus = self._arguments
        if not gpus:
            os.environ["CUDA_VISIBLE_DEVICES"] = ""  # Ray leaves all GPUs visible to a worker without one
        gc.disable()  # the imports create a million objects that stay: collections would take a tenth of their time
        try:
            import torch

            from trials.hub.hub import Hub
            from trials.ledger.record import Ledger
            from trials.ledger.storage import root
            from trials.run.worker import Worker
        finally:
            gc.enable()
        gc.freeze()  # saves 0.3 s in the collection after every training
        torch.set_num_threads(threads)
        made = Worker(Ledger(root(storage)), Hub(mirror))
        made.session.observe = self._show
        return made

    def reset_config(self, new_config: dict[str, Any]) -> bool:
        self.specs = [TrialSpec.model_validate_json(job["spec"]) for job in new_config["jobs"]]
        self.names = {spec.key: job["name"] for spec, job in zip(self.specs, new_config["jobs"], strict=True)}
        self.keep = {spec.key: job["keep"] for spec, job in zip(self.specs, new_config["jobs"], strict=True)}
        self.judged = {spec.key for spec, job in zip(self.specs, new_config["jobs"], strict=True) if job["judged"]}
        self.against: dict[str, Any] | None = new_config.get("against")
        self.pauses = {spec.key: job["pause"] for spec, job in zip(self.specs, new_config["jobs"], strict=True) if job["pause"]}
        return True

    def step(self) -> dict[str, Any]:
        """Runs the trials. Returns how each `ends` (controller.End, or "paused") in their order, the `reasons` (of a paused one
        its look, as JSON), and their total `seconds`.

        Lists, because Tune flattens mappings.
        """
        try:
            worker = self.worker
        except Exception as error:  # noqa: BLE001  # becomes the trials' failed record; Tune would hide its text
            return self._ended(0.0, "died", f"the worker cannot start: {type(error).__name__}: {error}")
        began = time.monotonic()
        try:
            found = worker.run_many(self.specs, self.keep, self._early_stopping)
        except StorageFailed as error:
            return self._ended(time.monotonic() - began, "storage", str(error))
        ends, reasons = zip(*map(_end, found), strict=True)
        return {"ends": list(ends), "reasons": list(reasons), "seconds": time.monotonic() - began, "done": True}

    def _early_stopping(self, spec: TrialSpec) -> "Race | None":
        from orchestrator.sweep.pause import pausing
        from orchestrator.sweep.racing import race

        ledger, found = self.worker.session.ledger, None
        if self.against is not None and spec.key in self.judged:
            found = race(self.against, spec, ledger)
        return pausing(self.pauses[spec.key], spec, ledger, found) if spec.key in self.pauses else found

    def _show(self, progress: "TrialProgress") -> None:
        """Names sweep, trial and phase in the title of this process, which `ps` and Ray's dashboard show."""
        # a derived point's parent is no job of its own
        name = self.names.get(progress.key) or next(iter(self.names.values()), progress.key)
        # Ray sets it to the actor's class and method at every call, and offers no other way to name what a worker does
        _raylet.setproctitle(printable(f"ray::slimsweep {name} {progress.phase}"))  # type: ignore[attr-defined]

    def _ended(self, seconds: float, end: str, reason: str) -> dict[str, Any]:
        """The result where all trials end in the same way."""
        count = len(self.specs)
        return {"ends": [end] * count, "reasons": [reason] * count, "seconds": seconds, "done": True}


def _end(one: "Ended") -> tuple[str, str]:
    """(how a trial ended, the reason)"""
    from trials.evaluation.racing import Paused, StoppedEarly

    if isinstance(one, Paused):
        return "paused", json.dumps(one.look)
    if isinstance(one, StoppedEarly):
        return "given up", str(one)
    return ("held" if one is None else "record"), ""
