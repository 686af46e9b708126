"""MLflow, on a server or in a file: `mlflow ui --backend-store-uri sqlite:///SWEEP/mlflow.db`."""

import logging
import os
import re
from collections.abc import Collection
from datetime import datetime
from pathlib import Path
from typing import Any

from orchestrator.sweep.events import Event
from orchestrator.trackers.base import Losses, metrics, package, rate, require_local, run_name, settings, tags
from trials.ledger.storage import refuse_link, sqlite_url


class MLflow:
    """Creates a run for each trial in the experiment of the sweep's name, at MLFLOW_TRACKING_URI or in SWEEP/mlflow.db."""

    name = "mlflow"

    @classmethod
    def check(cls, folder: Path) -> None:
        package("mlflow", cls.name)
        if not os.environ.get("MLFLOW_TRACKING_URI"):
            require_local(folder, cls.name, "MLFLOW_TRACKING_URI names a server")

    def __init__(self, sweep: str, folder: Path):
        os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
        self._mlflow = package("mlflow", self.name)
        logging.getLogger("mlflow").setLevel(logging.WARNING)
        address = os.environ.get("MLFLOW_TRACKING_URI")
        if not address:
            folder.mkdir(parents=True, exist_ok=True)
            address = sqlite_url(refuse_link(folder / "mlflow.db"))
        self._client = self._mlflow.MlflowClient(tracking_uri=address)
        self._sweep = sweep
        self._experiment: str | None = None
        self._losses = Losses()
        self._open: dict[str, str] = {}  # ids of the runs of running trials, by name
        self._params: dict[str, Collection[str]] = {}  # by run, those that an earlier command has recorded

    def progress(self, event: Event) -> None:
        run = self._run(event)
        values = self._curves(event)
        if (speed := rate(event)) is not None:
            values.append(
                self._mlflow.entities.Metric("training.tokens_per_second", speed[1], _milliseconds(event.time), speed[0])
            )
        self._log(run, values, [])

    def trial(self, event: Event) -> None:
        end, run = _milliseconds(event.time), self._run(event)
        entities = self._mlflow.entities
        # a run that began with its first progress has the tags of a running trial
        self._client.log_batch(run, tags=[entities.RunTag(name, text[:5000]) for name, text in tags(event).items()])
        params = [entities.Param(allowed_name(path), str(value)[:6000]) for path, value in settings(event).items()]
        params = [one for one in params if one.key not in self._params[run]]  # MLflow refuses another value
        values = [entities.Metric(allowed_name(name), value, end, 0) for name, value in metrics(event).items()]
        self._log(run, values + self._curves(event), params)
        self._client.set_terminated(run, "FAILED" if event.event == "trial_failed" else "FINISHED", end_time=end)
        del self._open[run_name(event)], self._params[run]
        self._losses.end(event)

    def close(self) -> None:
        for run in self._open.values():
            self._client.set_terminated(run, "KILLED")

    def _run(self, event: Event) -> str:
        """The id of the trial's run: one that this command has open, that of an earlier command, or a new one."""
        name = run_name(event)
        if name not in self._open:
            steps: set[int] = set()
            if (known := self._known(event)) is not None:
                run = known.info.run_id
                self._client.update_run(run, status="RUNNING")
                steps = {one.step for one in self._client.get_metric_history(run, "training.loss")}
            else:
                run = self._create(event, name)
            self._open[name], self._params[run] = run, known.data.params if known is not None else ()
            self._losses.begin(event, steps)
        return self._open[name]

    def _known(self, event: Event) -> Any:
        """The run that an earlier command began for this trial; None where there is none."""
        found = tags(event)
        wanted = " and ".join(f"tags.{tag} = '{found[tag]}'" for tag in ("key", "number", "replicate"))
        return next(iter(self._client.search_runs([self._experiment_id()], wanted, max_results=1)), None)

    def _create(self, event: Event, name: str) -> str:
        began = _milliseconds(event.time) - round(1000 * sum(event.seconds.values()))
        named = {tag: text[:5000] for tag, text in tags(event).items()}
        return str(self._client.create_run(self._experiment_id(), run_name=name, start_time=began, tags=named).info.run_id)

    def _curves(self, event: Event) -> list[Any]:
        at = _milliseconds(event.time)
        return [self._mlflow.entities.Metric("training.loss", loss, at, step) for step, loss in self._losses.new(event)]

    def _log(self, run: str, values: list[Any], params: list[Any]) -> None:
        # MLflow's limits for one request
        for start in range(0, len(params), 100):
            self._client.log_batch(run, params=params[start : start + 100])
        for start in range(0, len(values), 1000):
            self._client.log_batch(run, metrics=values[start : start + 1000])

    def _experiment_id(self) -> str:
        if self._experiment is None:
            known = self._client.get_experiment_by_name(self._sweep)
            self._experiment = known.experiment_id if known else self._client.create_experiment(self._sweep)
        return self._experiment


def allowed_name(name: str) -> str:
    """Replaces what MLflow does not take in a name; a source in data.mix may have any characters."""
    return re.sub(r"[^\w\-. :/]", "_", name)


def _milliseconds(time: str) -> int:
    return round(datetime.fromisoformat(time).timestamp() * 1000)
