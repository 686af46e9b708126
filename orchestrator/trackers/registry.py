"""Experiment trackers (`trackers: [tensorboard, mlflow, wandb]`): each finished or failed trial becomes a run there.

One naming scheme in all of them: settings by their dotted paths and metrics by their names, as in the config; `seconds.PHASE`,
`training.loss` over the optimiser's steps, and tags or settings `sweep`, `number`, `key`, `replicate`, `state`. Runs are named
trial-3, trial-3-replicate-1, baseline-KEY. A tracker works in a thread of its own, for a server may be slow.
"""

import importlib
import logging
import os
import queue
import re
import sys
import threading
from collections.abc import Iterable, Iterator, Sequence
from datetime import datetime
from itertools import islice
from pathlib import Path
from typing import Any, Protocol

from orchestrator.sweep.events import Event, Observer, warn
from trials.errors import InputError
from trials.ledger.storage import is_local, refuse_link, sqlite_url

PATIENCE = 60.0  # seconds that the end of a sweep waits for a tracker to take in one trial
_FINISHED = ("trial_finished", "trial_failed")


class Tracker(Protocol):
    name: str

    def trial(self, event: Event) -> None:
        """A trial has finished or failed."""


def check(names: Sequence[str], folder: Path) -> None:
    """Raises InputError where a tracker is unknown, not installed or cannot write; makes nothing."""
    unknown = sorted(set(names) - _TRACKERS.keys())
    if unknown:
        raise InputError(f"trackers: no tracker {unknown[0]!r}; there are {', '.join(_TRACKERS)}")
    for name in names:
        _TRACKERS[name].check(folder)


def make(names: Sequence[str], sweep: str, folder: Path) -> list[Observer]:
    """Observers for the trackers so named, which `check` has passed.

    `sweep` is the sweep's name, `folder` its folder, in which those write that have no server.
    """
    return [Background(_TRACKERS[name](sweep, folder)) for name in dict.fromkeys(names)]


class Background:
    """Hands a tracker its trials in a thread of its own. After the first that it cannot take it is told nothing more."""

    def __init__(self, tracker: Tracker):
        self.name = f"tracker {tracker.name}"
        self._tracker = tracker
        self._queue: queue.SimpleQueue[Event | None] = queue.SimpleQueue()
        self._failed = False
        self._thread = threading.Thread(target=self._work, name=self.name, daemon=True)
        self._thread.start()

    def __call__(self, event: Event) -> None:
        if event.event in _FINISHED and not self._failed:
            self._queue.put(event)

    def _work(self) -> None:
        while (event := self._queue.get()) is not None:
            try:
                self._tracker.trial(event)
            except Exception as error:  # noqa: BLE001  # whatever a tracker's library raises, the sweep goes on
                self._failed = True
                warn(self, error)
                return

    def close(self) -> None:
        """Waits until the tracker has been told everything, for as long as it takes in any."""
        self._queue.put(None)
        while self._thread.is_alive():
            waiting = self._queue.qsize()
            self._thread.join(PATIENCE)
            if self._thread.is_alive() and self._queue.qsize() == waiting:
                print(f"warning: {self.name}: does not answer; {waiting} trials were not told", file=sys.stderr, flush=True)
                return


# ---------------------------------------------------------------------- what a run is


def run_name(event: Event) -> str:
    if event.number is None:
        return f"baseline-{event.key}"
    return f"trial-{event.number}" + (f"-replicate-{event.replicate}" if event.replicate else "")


def settings(event: Event) -> dict[str, Any]:
    """Every setting of the trial by dotted path, searched or not."""
    found = dict(_flat("", event.record.spec.model_dump(mode="json"))) if event.record is not None else {}
    return {**found, **event.settings}


def _flat(prefix: str, value: Any) -> Iterator[tuple[str, Any]]:
    if isinstance(value, dict):
        for name, inner in value.items():
            yield from _flat(f"{prefix}.{name}" if prefix else name, inner)
    else:
        yield prefix, value


def metrics(event: Event) -> dict[str, float]:
    """What is known of the trial's metrics, and its seconds by phase."""
    known = {name: value for name, value in event.metrics.items() if value is not None}
    return known | {f"seconds.{phase}": seconds for phase, seconds in event.seconds.items()}


def losses(event: Event) -> list[tuple[int, float]]:
    """(step, loss)"""
    return event.record.losses if event.record is not None else []


def tags(event: Event) -> dict[str, str]:
    found = {
        "sweep": event.sweep,
        "number": "baseline" if event.number is None else str(event.number),
        "key": event.key or "",
        "replicate": str(event.replicate),
        "state": "failed" if event.event == "trial_failed" else "complete",
    }
    if event.failure is not None:
        found["failure"] = f"{event.failure['kind']}: {event.failure['message']}"
    return found


def _package(module: str, extra: str) -> Any:
    try:
        return importlib.import_module(module)
    except ImportError:
        raise InputError(f"trackers: {extra} is not installed: pip install 'slimsweep[{extra}]'") from None


def _local(folder: Path, name: str, instead: str) -> None:
    if not is_local(folder):
        raise InputError(f"trackers: {name} writes to a folder of this machine, not to {folder}; {instead}")


# ---------------------------------------------------------------------- the trackers


class TensorBoard:
    """Event files in SWEEP/tensorboard, a folder for each run: `tensorboard --logdir SWEEP/tensorboard`.

    The searched settings and the metrics make its HParams page.
    """

    name = "tensorboard"

    @classmethod
    def check(cls, folder: Path) -> None:
        _package("tensorboardX", cls.name)
        _local(folder, cls.name, "mlflow has servers")

    def __init__(self, sweep: str, folder: Path):
        self._writer = _package("tensorboardX", self.name).SummaryWriter
        self._folder = refuse_link(folder / "tensorboard")

    def trial(self, event: Event) -> None:
        values = metrics(event)
        # add_hparams opens a writer of its own, and two of one second would share a file
        with self._writer(logdir=str(self._folder / run_name(event)), filename_suffix=".run") as writer:
            for step, loss in losses(event):
                writer.add_scalar("training.loss", loss, step)
            for name, text in tags(event).items():
                writer.add_text(name, text)
            if event.settings:
                writer.add_hparams({path: _simple(value) for path, value in event.settings.items()}, values, name=".")
            else:
                for name, value in values.items():
                    writer.add_scalar(name, value)


def _simple(value: Any) -> bool | int | float | str:
    return value if isinstance(value, bool | int | float) else str(value)


class MLflow:
    """A run for each trial in the experiment of the sweep's name, on the server that MLFLOW_TRACKING_URI names; without one in
    SWEEP/mlflow.db (`mlflow ui --backend-store-uri sqlite:///SWEEP/mlflow.db`)."""

    name = "mlflow"

    @classmethod
    def check(cls, folder: Path) -> None:
        _package("mlflow", cls.name)
        if not os.environ.get("MLFLOW_TRACKING_URI"):
            _local(folder, cls.name, "MLFLOW_TRACKING_URI names a server")

    def __init__(self, sweep: str, folder: Path):
        os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
        self._mlflow = _package("mlflow", self.name)
        logging.getLogger("mlflow").setLevel(logging.WARNING)
        address = os.environ.get("MLFLOW_TRACKING_URI")
        if not address:
            folder.mkdir(parents=True, exist_ok=True)
            address = sqlite_url(refuse_link(folder / "mlflow.db"))
        self._client = self._mlflow.MlflowClient(tracking_uri=address)
        self._sweep = sweep
        self._experiment: str | None = None

    def trial(self, event: Event) -> None:
        end = _milliseconds(event.time)
        run = self._client.create_run(
            self._experiment_id(),
            run_name=run_name(event),
            start_time=end - round(1000 * sum(event.seconds.values())),
            tags={name: text[:5000] for name, text in tags(event).items()},
        ).info.run_id
        entities = self._mlflow.entities
        params = [entities.Param(_mlflow_name(path), str(value)[:6000]) for path, value in settings(event).items()]
        values = [entities.Metric(_mlflow_name(name), value, end, 0) for name, value in metrics(event).items()]
        values += [entities.Metric("training.loss", loss, end, step) for step, loss in losses(event)]
        for some in _chunks(params, 100):
            self._client.log_batch(run, params=some)
        for some in _chunks(values, 1000):
            self._client.log_batch(run, metrics=some)
        self._client.set_terminated(run, "FAILED" if event.event == "trial_failed" else "FINISHED", end_time=end)

    def _experiment_id(self) -> str:
        if self._experiment is None:
            known = self._client.get_experiment_by_name(self._sweep)
            self._experiment = known.experiment_id if known else self._client.create_experiment(self._sweep)
        return self._experiment


def _mlflow_name(name: str) -> str:
    """MLflow takes letters, digits and `_-. :/` in a name; a source's name in data.mix may hold others."""
    return re.sub(r"[^\w\-. :/]", "_", name)


def _milliseconds(time: str) -> int:
    return round(datetime.fromisoformat(time).timestamp() * 1000)


def _chunks(things: Iterable[Any], size: int) -> Iterator[list[Any]]:
    rest = iter(things)
    while some := list(islice(rest, size)):
        yield some


class WandB:
    """A run for each trial in the group of the sweep's name, of the project WANDB_PROJECT (slimsweep); WANDB_MODE=offline keeps
    them in SWEEP/wandb for `wandb sync`."""

    name = "wandb"

    @classmethod
    def check(cls, folder: Path) -> None:
        wandb = _package("wandb", cls.name)
        _local(folder, cls.name, "storage has to be a folder")
        if os.environ.get("WANDB_MODE", "online") == "online" and not wandb.login(prompt=False, verify=False):
            raise InputError("trackers: wandb has no API key: `wandb login`, or WANDB_MODE=offline")

    def __init__(self, sweep: str, folder: Path):
        self._wandb = _package("wandb", self.name)
        self._sweep = sweep
        self._folder = folder
        self._folder.mkdir(parents=True, exist_ok=True)
        refuse_link(self._folder / "wandb")

    def trial(self, event: Event) -> None:
        run = self._wandb.init(
            project=os.environ.get("WANDB_PROJECT", "slimsweep"),
            group=self._sweep,
            name=run_name(event),
            config={**settings(event), **tags(event)},
            dir=str(self._folder),
            reinit="create_new",
            settings=self._wandb.Settings(console="off", silent=True),
        )
        for step, loss in losses(event):
            run.log({"training.loss": loss}, step=step)
        run.summary.update(metrics(event))
        run.finish(exit_code=1 if event.event == "trial_failed" else 0)


_TRACKERS: dict[str, type[TensorBoard] | type[MLflow] | type[WandB]] = {
    TensorBoard.name: TensorBoard,
    MLflow.name: MLflow,
    WandB.name: WandB,
}
