"""The state of a sweep: an Optuna study and the ledger. Hands out the next trial to run and tells the study what became of it.

Every start is a resume. Trials that the study holds as running and that nobody runs any more keep their number and parameters
and come first; whatever has a record in the ledger is told and not run again.
"""

import math
import threading
import warnings
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import optuna
import yaml
from optuna.trial import Trial, TrialState

from analysis.metrics import parse_constraint, trial_metrics
from orchestrator.config import Categorical, Int, SweepConfig, resolved
from orchestrator.errors import SweepFailed
from trials.errors import InputError
from trials.record import Failure, Ledger, TrialRecord, write_json, write_text
from trials.spec import TrialSpec

_VIOLATED = 1e6  # a constraint on an undefined metric; Optuna's storages take no infinity
_HOPELESS = 3  # that many failures with nothing finished in between at the start: the next ones will fail too
_MAY_CHANGE = {"resources", "storage", "hub_mirror"}  # beside search.trials: what a sweep that goes on may change


@dataclass(frozen=True)
class Job:
    """A trial to run; `number` is its place in the study, None for a baseline."""

    spec: TrialSpec
    number: int | None
    params: dict[str, Any] = field(default_factory=dict)


def sampler(config: SweepConfig, asked: int) -> optuna.samplers.BaseSampler:
    """Seeded anew at every start, or a resumed sampler would repeat its first draws."""
    seed = config.search.seed + asked
    if config.search.sampler == "tpe":
        return optuna.samplers.TPESampler(seed=seed, n_startup_trials=min(10, max(4, config.budget // 3)))
    return optuna.samplers.RandomSampler(seed=seed)  # the grid's points are queued; its sampler is never asked


class Sweep:
    """Safe to use from several threads; each method is short."""

    def __init__(self, config: SweepConfig, storage: Path, on_change: Callable[[], None] = lambda: None):
        self.config = config
        self.folder = storage / config.name
        self.ledger = Ledger(storage)
        self.on_change = on_change
        self.failed: SweepFailed | None = None
        self.running: dict[str, Job] = {}
        self.finished: list[tuple[Job, TrialRecord]] = []
        self._constraints = [parse_constraint(text) for text in config.search.constraints]
        self._followers: dict[str, list[Job]] = {}
        self._waiting: list[Job] = []
        self._lock = threading.RLock()
        self._claim_folder()
        self.study = self._open_study()
        self._manifest: dict[int, dict[str, Any]] = {}
        self._baselines = [spec for spec in config.baseline_specs() if self.ledger.complete(spec.key) is None]
        self._left = self.config.budget
        self._orphans: list[int] = []
        self._reconcile()

    # ------------------------------------------------------------------ opening

    def _claim_folder(self) -> None:
        """Writes sweep.yaml, or refuses a folder that holds another sweep of the same name."""
        path = self.folder / "sweep.yaml"
        if path.exists():
            before, now = (_identity(text) for text in (path.read_text(encoding="utf-8"), resolved(self.config)))
            if changed := sorted(name for name in {*before, *now} if before.get(name) != now.get(name)):
                raise InputError(
                    f"{path}: holds a sweep of this name with another {', '.join(changed)}; "
                    "give this one another `name` or --storage"
                )
        write_text(path, resolved(self.config))

    def _open_study(self) -> optuna.Study:
        optuna.logging.set_verbosity(optuna.logging.ERROR)
        storage = optuna.storages.RDBStorage(f"sqlite:///{self.folder / 'study.db'}")
        study = optuna.create_study(
            study_name=self.config.name,
            storage=storage,
            directions=[objective.direction for objective in self.config.search.objectives],
            load_if_exists=True,
        )
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
            study.set_metric_names([objective.metric for objective in self.config.search.objectives])
        study.sampler = sampler(self.config, len(study.get_trials(deepcopy=False)))
        if self.config.search.sampler == "grid":
            queued = [trial.system_attrs.get("fixed_params") for trial in study.get_trials(deepcopy=False)]
            for _, point in zip(range(self.config.budget), self.config.grid(), strict=False):
                if point not in queued:
                    study.enqueue_trial(point)
        return study

    def _reconcile(self) -> None:
        for frozen in self.study.get_trials(deepcopy=False):
            if frozen.state == TrialState.WAITING:
                continue
            self._left -= 1
            if frozen.state == TrialState.RUNNING:
                self._orphans.append(frozen.number)
            elif "key" in frozen.user_attrs:
                self.ledger.read(frozen.user_attrs["key"])  # raises where it is not whole, before anything is written
                self._note(Job(self.config.spec(frozen.params), frozen.number, frozen.params))
        self._left = max(self._left, 0)
        self._write_manifest()

    # ------------------------------------------------------------------ asking

    def next_job(self) -> Job | None:
        """The next trial to run; None when there is none left. What the ledger has already is told on the way."""
        with self._lock:
            while self.failed is None:
                job: Job | None
                if self._baselines:
                    job = Job(self._baselines.pop(0), None)
                elif self._orphans:
                    job = self._job(self._orphans.pop(0))
                elif self._left > 0:
                    self._left -= 1
                    job = self._job(self.study.ask().number)
                else:
                    return None
                if job is None:
                    continue
                if job.number is not None:
                    self._note(job)
                    self._write_manifest()
                    if job.spec.key in self.running:
                        self._followers.setdefault(job.spec.key, []).append(job)
                        continue
                    if self.ledger.complete(job.spec.key) is not None:
                        self._settle(job)
                        continue
                self.running[job.spec.key] = job
                self.on_change()
                return job
            return None

    def _job(self, number: int) -> Job | None:
        """The trial at the point that the study proposes; None, told as failed, where the point is no valid trial."""
        trial = self._trial(number)
        params = {}
        for path, parameter in self.config.space.items():
            if isinstance(parameter, Categorical):
                params[path] = trial.suggest_categorical(path, parameter.choices)
            elif isinstance(parameter, Int):
                params[path] = trial.suggest_int(
                    path, parameter.low, parameter.high, step=parameter.step or 1, log=parameter.log
                )
            else:
                params[path] = trial.suggest_float(path, parameter.low, parameter.high, step=parameter.step, log=parameter.log)
        try:
            spec = self.config.spec(params)
        except ValueError:  # two settings that are each valid and contradict each other
            self.study.tell(number, state=TrialState.FAIL)
            return None
        trial.set_user_attr("key", spec.key)
        return Job(spec, number, params)

    def _trial(self, number: int) -> Trial:
        return Trial(self.study, self.study.get_trials(deepcopy=False)[number]._trial_id)

    # ------------------------------------------------------------------ telling

    def finish(self, key: str, died: str | None = None) -> None:
        """The trial of this key has ended; `died` says why when its process left no record."""
        with self._lock:
            job = self.running.pop(key)
            record = self.ledger.read(key)
            if record is None:
                failure = Failure(kind="WorkerDied", message=died or "the worker left no record", traceback="")
                record = TrialRecord(key=key, state="failed", spec=job.spec, failure=failure)
                self.ledger.write(record)
            self.finished.append((job, record))
            self._judge(job, record)
            if job.number is None:
                waiting, self._waiting = self._waiting, []
                for held in waiting:
                    self._settle(held)
            else:
                self._settle(job)
            for follower in self._followers.pop(key, []):
                self._settle(follower)
            self.on_change()

    def _judge(self, job: Job, record: TrialRecord) -> None:
        """Stops a sweep in which nothing can succeed."""
        if record.failure is None:
            return
        cause = f"{record.failure.kind}: {' '.join(record.failure.message.split())[:300]}"
        where = self.ledger.folder(record.key) / "record.json"
        states = [finished.state for _, finished in self.finished]
        if job.number is None:
            self.failed = SweepFailed(f"a baseline failed, and forgetting is measured against it: {cause} ({where})")
        elif len(states) >= _HOPELESS and "complete" not in states[-_HOPELESS:] and not self._any_complete():
            self.failed = SweepFailed(f"the first {_HOPELESS} trials all failed; the last one with {cause} ({where})")

    def _any_complete(self) -> bool:
        return any(trial.state == TrialState.COMPLETE for trial in self.study.get_trials(deepcopy=False))

    def _settle(self, job: Job) -> None:
        """Tells the study; waits where the baseline still runs."""
        assert job.number is not None
        record = self.ledger.read(job.spec.key)
        if record is None or record.state == "failed":
            self.study.tell(job.number, state=TrialState.FAIL)
            return
        baseline = self.ledger.complete(job.spec.baseline().key)
        if baseline is None:
            self._waiting.append(job)
            return
        metrics = {
            name: found.value if found else None for name, found in trial_metrics(record.scores, baseline.scores).items()
        }
        values = [metrics[objective.metric] for objective in self.config.search.objectives]
        if any(value is None or not math.isfinite(value) for value in values):
            self.study.tell(job.number, state=TrialState.FAIL)
            return
        trial = self._trial(job.number)
        for constraint in self._constraints:
            trial.set_constraint(str(constraint), min(constraint.violation(metrics[constraint.metric]), _VIOLATED))
        self.study.tell(job.number, [float(value) for value in values if value is not None])

    # ------------------------------------------------------------------ the manifest

    def _note(self, job: Job) -> None:
        assert job.number is not None
        self._manifest[job.number] = {
            "number": job.number,
            "key": job.spec.key,
            "baseline": job.spec.baseline().key,
            "params": job.params,
        }

    def _write_manifest(self) -> None:
        write_json(
            self.folder / "manifest.json",
            {
                "schema": 1,
                "name": self.config.name,
                "objectives": [objective.model_dump() for objective in self.config.search.objectives],
                "constraints": list(self.config.search.constraints),
                "space": list(self.config.space),
                "trials": [self._manifest[number] for number in sorted(self._manifest)],
                "baselines": [spec.key for spec in self.config.baseline_specs()],
                "budget": self.config.budget,
            },
        )

    # ------------------------------------------------------------------ what the progress table shows

    @property
    def unfinished(self) -> int:
        """Trials and baselines still to run or running."""
        return len(self._baselines) + len(self._orphans) + self._left + len(self.running)

    def counts(self) -> dict[str, int]:
        """Trials (not baselines) by state, as the study has them."""
        states = [trial.state for trial in self.study.get_trials(deepcopy=False)]
        done, failed = states.count(TrialState.COMPLETE), states.count(TrialState.FAIL)
        return {"budget": self.config.budget, "done": done, "failed": failed, "running": len(self.running)}


def _identity(text: str) -> dict[str, Any]:
    """The parts of a resolved config that make it this sweep."""
    parts = yaml.safe_load(text)
    search = {name: value for name, value in parts.pop("search").items() if name != "trials"}
    return {name: value for name, value in parts.items() if name not in _MAY_CHANGE} | {
        f"search.{name}": value for name, value in search.items()
    }
