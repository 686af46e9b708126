"""MLflow, on a server or in a file: `mlflow ui --backend-store-uri sqlite:///SWEEP/mlflow.db`."""

import logging
import os
import re
from datetime import datetime
from pathlib import Path

from orchestrator.sweep.events import Event
from orchestrator.trackers.base import losses, metrics, package, require_local, run_name, settings, tags
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

    def trial(self, event: Event) -> None:
        end = _milliseconds(event.time)
        run = self._client.create_run(
            self._experiment_id(),
            run_name=run_name(event),
            start_time=end - round(1000 * sum(event.seconds.values())),
            tags={name: text[:5000] for name, text in tags(event).items()},
        ).info.run_id
        entities = self._mlflow.entities
        params = [entities.Param(allowed_name(path), str(value)[:6000]) for path, value in settings(event).items()]
        values = [entities.Metric(allowed_name(name), value, end, 0) for name, value in metrics(event).items()]
        values += [entities.Metric("training.loss", loss, end, step) for step, loss in losses(event)]
        # MLflow's limits for one request
        for start in range(0, len(params), 100):
            self._client.log_batch(run, params=params[start : start + 100])
        for start in range(0, len(values), 1000):
            self._client.log_batch(run, metrics=values[start : start + 1000])
        self._client.set_terminated(run, "FAILED" if event.event == "trial_failed" else "FINISHED", end_time=end)

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
