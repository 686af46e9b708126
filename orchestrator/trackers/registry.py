"""Experiment trackers (`trackers: [tensorboard, mlflow, wandb]`): each finished or failed trial becomes a run there."""

import queue
import sys
import threading
from collections.abc import Sequence
from pathlib import Path

from orchestrator.sweep.events import Event, Observer, warn
from orchestrator.trackers.base import Tracker
from orchestrator.trackers.mlflow import MLflow
from orchestrator.trackers.tensorboard import TensorBoard
from orchestrator.trackers.wandb import WandB

TRACKERS: dict[str, type[Tracker]] = {tracker.name: tracker for tracker in (TensorBoard, MLflow, WandB)}
PATIENCE = 60.0  # seconds that the end of a sweep waits for a tracker to take one trial
_ENDS = ("trial_finished", "trial_failed", "trial_given_up")
_BEHIND = 100  # waiting events, beyond which progress is left out: the server is slow, and a trial's end has all its losses


def check(names: Sequence[str], folder: Path) -> None:
    """Raises InputError where a tracker is not installed or cannot write; writes nothing."""
    for name in names:
        TRACKERS[name].check(folder)


def make(names: Sequence[str], sweep: str, folder: Path) -> list[Observer]:
    """Observers for the trackers, which `check` has passed. `sweep` is the sweep's name, `folder` its folder."""
    return [Background(TRACKERS[name](sweep, folder)) for name in dict.fromkeys(names)]


class Background:
    """Runs a tracker in a thread, because a server may be slow. It gets no more events after the first error."""

    def __init__(self, tracker: Tracker):
        self.name = f"tracker {tracker.name}"
        self._tracker = tracker
        self._queue: queue.SimpleQueue[Event | None] = queue.SimpleQueue()
        self._failed = False
        self._missing = 0  # trials whose end the tracker has not taken
        self._thread = threading.Thread(target=self._work, name=self.name, daemon=True)
        self._thread.start()

    def __call__(self, event: Event) -> None:
        if self._failed:
            return
        if event.event in _ENDS:
            self._missing += 1
            self._queue.put(event)
        elif event.event == "trial_progress" and self._queue.qsize() < _BEHIND:
            self._queue.put(event)

    def _work(self) -> None:
        try:
            while (event := self._queue.get()) is not None:
                if event.event == "trial_progress":
                    self._tracker.progress(event)
                else:
                    self._tracker.trial(event)
                    self._missing -= 1
            self._tracker.close()
        except Exception as error:  # noqa: BLE001  # whatever a tracker's library raises, the sweep goes on
            self._failed = True
            warn(self, error)

    def close(self) -> None:
        """Waits for the queued trials while the tracker makes progress."""
        self._queue.put(None)
        while self._thread.is_alive():
            waiting = self._queue.qsize()
            self._thread.join(PATIENCE)
            if self._thread.is_alive() and self._queue.qsize() == waiting:
                text = f"warning: {self.name}: does not answer; {self._missing} trials are missing there"
                print(text, file=sys.stderr, flush=True)
                return
