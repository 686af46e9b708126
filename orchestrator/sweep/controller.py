"""The state of a sweep: an Optuna study and the ledger. Hands out the next trial to run and tells the study what became of it.

Every start is a resume. Trials that the study holds as running and that nobody runs any more keep their number and settings and
come first; whatever has a record in the ledger is told and not run again. Nothing is believed without a whole record behind it.
"""

import math
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import sqlalchemy.exc
import yaml
from optuna.exceptions import StorageInternalError
from optuna.trial import FrozenTrial, Trial, TrialState

from analysis.metrics.definitions import RATES
from analysis.metrics.names import Estimate, parse_constraint, split_metric
from analysis.stats.estimate import ALL, measure
from orchestrator.config.model import SweepConfig, resolved
from orchestrator.errors import SweepFailed
from orchestrator.search import sampler
from orchestrator.search.driver_lease import Drivers
from orchestrator.search.study_storage import open_study, opening
from orchestrator.sweep import begun
from orchestrator.sweep.events import Event, Kind
from orchestrator.sweep.manifest import FREE, GIVEN_UP, Manifest
from orchestrator.sweep.running_front import RunningFront
from trials.errors import InputError
from trials.ledger.record import Failure, Ledger, TrialRecord
from trials.ledger.storage import NotAFile, exists, is_link, read_text, set_aside, write_text
from trials.spec import TrialSpec

_VIOLATED = 1e6  # a constraint on a metric that is undefined or was not waited for; Optuna's storages take no infinity
_HOPELESS = 3  # that many failures at the start with nothing finished: the next ones will fail too
_HOPELESS_SETTINGS = 12  # the same where each failure may be the setting's own fault
_OWN_FAULT = {"NonFiniteLoss", "OutOfMemory"}  # kinds of failure that a setting brings upon itself
_MAY_CHANGE = {
    "resources",
    "storage",
    "hub_mirror",
    "trackers",
    "pins",
}  # what a sweep that goes on may change, beside its budgets
_BUDGETS = {"trials", "gpu_hours", "hours", "study", "racing"}  # of `search`
_CONTRADICTORY = "the settings contradict each other"
_NO_BASELINE = "its baseline failed"
_UNDEFINED = "an objective or a constraint is undefined on its baseline"
_LOOK_AGAIN = 1.0  # seconds between two looks at what other processes run

End = Literal["record", "held", "storage", "died", "given up"]


@dataclass(frozen=True)
class Job:
    """A TrialSpec to run; `number` is its trial's place in the study, None for a baseline."""

    spec: TrialSpec
    number: int | None
    settings: dict[str, Any] = field(default_factory=dict)
    replicate: int = 0


@dataclass
class Asked:
    """A trial that the study was asked for and has not been told about."""

    trial: Trial | None
    """None where the study knows the result and only a record has to be made again."""
    number: int
    settings: dict[str, Any]
    specs: list[TrialSpec]
    """One per replicate."""
    failure: str | None = None
    """The kind of failure of a replicate, or that it is the baseline that failed."""

    @property
    def base(self) -> str:
        """The baseline's key."""
        return self.specs[0].baseline().key

    def jobs(self) -> list[Job]:
        return [Job(spec, self.number, self.settings, i) for i, spec in enumerate(self.specs)]


class Sweep:
    """Safe to use from several threads; each method is short."""

    def __init__(
        self,
        config: SweepConfig,
        storage: Path,
        observe: Callable[[Event], None] = lambda event: None,
        notice: Callable[[str], None] = lambda text: None,
        clock: Callable[[], float] = time.monotonic,
    ):
        """`observe` is called with every event, `notice` with a line for every thing that was not as it should be.

        `clock` counts seconds and never jumps.
        """
        self.config, self.observe, self.notice = config, observe, notice
        self.folder = storage / config.name
        self.ledger = Ledger(storage)
        self.failed: SweepFailed | None = None
        self.stopping = False
        self.running: dict[str, Job] = {}
        self.slots = 1
        self.front = RunningFront(config.search.objectives)
        self.counts = {"done": 0, "failed": 0, "given up": 0}
        self._constraints = [parse_constraint(text) for text in config.search.constraints]
        self._lock = threading.RLock()
        self._clock, self._began = clock, clock()
        self._looked = -math.inf
        self._queue: deque[Job] = deque()
        self._held: list[Job] = []  # their key is being run for another trial, or by another process
        self._open: dict[int, Asked] = {}
        self._doubtful: list[Asked] = []  # failed since the last success: told once it is clear that not everything fails
        self._unannounced: list[tuple[Job, TrialRecord]] = []  # finished before their baseline
        self._failures: dict[int, Failure] = {}  # by trial, since the last success
        self._succeeded = False
        self._dead: dict[str, str] = {}  # baselines on which no trial can be judged, and why; those of other bases are not
        self._manifest = Manifest(config, self.folder, clock)
        self._bases: dict[str, TrialRecord] = {}
        self._half = "search" if config.search.documents == "half" else ALL
        self._exhausted = False
        self._claim_folder()
        self._gpu_seconds = 0.0
        with opening(config, self.folder):
            self.study = open_study(config, self.folder, notice)
            self.drivers = Drivers(self.study, self.folder, shared=config.search.study != "sqlite")
            self._spent_before = self.drivers.spent()
            asked = len(self.study.get_trials(deepcopy=False))
            self.study.sampler = sampler.make_sampler(config, asked, self._manifest.seen)
            with self.drivers.alone():
                self._reconcile()

    # ------------------------------------------------------------------ opening

    def _claim_folder(self) -> None:
        """Writes sweep.yaml, or refuses a folder that holds another sweep of the same name."""
        path, text = self.folder / "sweep.yaml", resolved(self.config)
        if exists(path) or is_link(path):
            try:
                old = read_text(path)
                before, now = _identity(old), _identity(text)
            except (yaml.YAMLError, AttributeError, KeyError, TypeError, ValueError, RecursionError, OSError) as error:
                if isinstance(error, OSError) and not isinstance(error, NotAFile):
                    raise
                aside = set_aside(path)
                self.notice(f"{path}: not the config of a sweep; set aside as {aside.name}, and written anew")
                old, before, now = "", {}, {}
            changed = sorted(name for name in {*before, *now} if before.get(name) != now.get(name))
            if changed and begun.may_start_over(self.config, self.folder, self.ledger):
                self.notice(f"{self.folder}: nothing has finished, so the sweep starts over with another {', '.join(changed)}")
                begun.set_aside(self.folder)
            elif changed:
                raise InputError(
                    f"{path}: holds a sweep of this name with another {', '.join(changed)}; "
                    "give this one another `name` or --storage"
                )
            if old == text:
                return
        write_text(path, text)

    def _reconcile(self) -> None:
        """Sorts what the study and the ledger hold into what is done and what is still to do."""
        for spec in self.config.baseline_specs():
            if (base := self._base(spec.key)) is None:
                self._queue.append(Job(spec, None))
            else:
                self._judge_baseline(base)
        told = self.study.get_trials(deepcopy=False)
        for frozen in told:
            if frozen.state in (TrialState.COMPLETE, TrialState.FAIL, TrialState.PRUNED):
                self._remember(frozen)
        for frozen in self.drivers.adopt(told):
            self._take(self.drivers.trial(frozen))
        self._manifest.count_as_seen(one.user_attrs["key"] for one in told if "key" in one.user_attrs)
        for frozen in told:  # a command may have ended between a trial and what is derived from it
            noted = self._manifest.trials.get(frozen.number, {})
            if frozen.state == TrialState.COMPLETE and noted.get("key"):
                self._derive(noted["params"])
        self._enqueue_what_is_missing(told)
        self._manifest.write(self.spent, at_once=True)

    def _enqueue_what_is_missing(self, told: list[FrozenTrial]) -> None:
        """Queues the manifest's trials that the study does not know, and the points to try first where it is new.

        A study that was set aside, or that lies in another machine's cache, knows less than the manifest.
        """
        try:
            spent = self._manifest.recall({trial.user_attrs.get("key") for trial in told})
            if spent and self._spent_before == (0.0, 0.0):
                self.study.set_user_attr("spent.before", spent)
                self._spent_before = self.drivers.spent()
        except InputError as error:
            aside = set_aside(self.folder / "manifest.json")
            self.notice(f"{str(error).rpartition(';')[0]}; set aside as {aside.name}, and made again from the study")
        points: list[dict[str, Any]] = [trial.params for trial in self._manifest.missing.values()]
        if self.study.user_attrs.get("opened") is None:
            points += [point for point in self.config.search.first if point not in points]
        queued = [trial.system_attrs.get("fixed_params") for trial in told if trial.state == TrialState.WAITING]
        for point in points:
            if (params := sampler.enqueueable(self.config, point)) not in queued:
                self.study.enqueue_trial(params)
        self.study.set_user_attr("opened", True)

    def _remember(self, frozen: FrozenTrial) -> None:
        """A trial that the study has been told about: its place in the manifest; records that are gone are made again."""
        if "key" not in frozen.user_attrs:
            self.counts["failed"] += 1
            self._manifest.note(frozen.number, frozen.user_attrs.get("settings", {}), [], _CONTRADICTORY)
            return
        try:
            asked = self._recall(frozen)
        except ValueError:  # no trial any more: an earlier version of the program took these settings
            self.counts["failed"] += 1
            self._manifest.note(frozen.number, sampler.suggest(self.config, frozen), [], _CONTRADICTORY)
            return
        if frozen.state != TrialState.COMPLETE:
            self.counts["failed" if frozen.state == TrialState.FAIL else "given up"] += 1
            return
        self.counts["done"] += 1
        self._succeeded = True
        if all(value <= 0 for value in frozen.constraints.values()):
            self.front.add(frozen.number, asked.specs[0].key, frozen.values)
        lost = [job for job in asked.jobs() if self._complete(job.spec.key) is None]
        if lost:
            self.notice(f"trial {frozen.number}: its record is gone from {self.ledger.root}; it runs again")
            self._open[frozen.number] = asked
            self._queue.extend(lost)

    def _recall(self, frozen: FrozenTrial) -> Asked:
        """A valid trial as the study knows it, noted."""
        settings = sampler.suggest(self.config, frozen)
        asked = Asked(None, frozen.number, settings, self.config.specs(settings))
        told = frozen.user_attrs
        self._manifest.note(
            asked.number, settings, asked.specs, told.get("failure"), free=FREE in told, given_up=told.get(GIVEN_UP)
        )
        return asked

    # ------------------------------------------------------------------ asking

    def next_job(self) -> Job | None:
        """The next trial to run; None when there is none now (see `over`). What the ledger has is told on the way."""
        with self._lock:
            self._look_at_held()
            while self.failed is None and not self.stopping:
                if not self._queue and not self._ask():
                    break
                if not self._queue:
                    continue
                job = self._queue.popleft()
                if job.number is not None and job.number not in self._open:
                    continue  # another replicate of it has failed
                if job.spec.key in self.running:
                    self._held.append(job)
                elif (record := self._complete(job.spec.key)) is not None:
                    self._arrived(job, record, ran=False)
                elif self.ledger.held(job.spec.key):
                    self._held.append(job)
                else:
                    self.running[job.spec.key] = job
                    self._emit("trial_started", job)
                    return job
            self._manifest.write(self.spent)
            return None

    @property
    def over(self) -> bool:
        """Nothing will be handed out any more, whatever the running trials do."""
        with self._lock:
            if self.failed is not None or self.stopping:
                return True
            if self._queue or self._held or self.running or self._open or not (self._exhausted or not self._may_ask()):
                return False
            return self.drivers.last()

    @property
    def waits_for_others(self) -> bool:
        """Other commands run all that is left, beside what this one runs: `next_job` has nothing until they are done."""
        with self._lock:
            if self._queue or (not self._exhausted and self._may_ask()):
                return False
            return any(job.spec.key not in self.running for job in self._held) or not self.drivers.last()

    def _look_at_held(self) -> None:
        """Takes up what others were running: their record is there, or they have died."""
        if self._clock() - self._looked < _LOOK_AGAIN:
            return
        self._looked = self._clock()
        held, self._held = self._held, []
        for job in held:
            if job.spec.key in self.running:
                self._held.append(job)
            elif (record := self._complete(job.spec.key)) is not None:
                self._arrived(job, record, ran=False)
            elif self.ledger.reclaim(job.spec.key):
                self._queue.appendleft(job)
            else:
                self._held.append(job)
        if self.drivers.shared:
            for frozen in self.drivers.adopt(self.study.get_trials(deepcopy=False)):
                self._take(self.drivers.trial(frozen))

    def _ask(self) -> bool:
        """Queues the trials of the next point; False when the budget or the space has no more."""
        if self._exhausted or not self._may_ask():
            return False
        with self.drivers.alone():
            if self.drivers.shared:
                self._learn_from_others()
                if not self._may_ask():
                    return False
            trial = sampler.ask(self.study, self.config, self._manifest.seen)
            if trial is None:
                self._exhausted = True
                return False
            self.drivers.claim(trial)
            self._take(trial)
        return True

    def _may_ask(self) -> bool:
        if self._manifest.missing:  # they count already, and most have their records
            return True
        search, budget = self.config.search, self.config.budget
        gpu_seconds, seconds = self.spent
        return (
            (budget is None or self._manifest.counted < budget)
            and (search.gpu_hours is None or gpu_seconds < search.gpu_hours * 3600)
            and (search.hours is None or seconds < search.hours * 3600)
        )

    @property
    def expected(self) -> int | None:
        """Trials that there will be, with what is derived from those that are done; None where only time limits them."""
        budget = self.config.budget
        return None if budget is None else budget + len(self._manifest.trials) - self._manifest.counted

    @property
    def spent(self) -> tuple[float, float]:
        """GPU-seconds (a CPU worker counts as one GPU) and seconds that commands of this sweep have run, in all."""
        gpu_seconds, seconds = self._spent_before
        return gpu_seconds + self._gpu_seconds, seconds + self._clock() - self._began

    def _learn_from_others(self) -> None:
        self._spent_before = (self.drivers.spent()[0], self._spent_before[1])
        for frozen in self.study.get_trials(deepcopy=False):
            if frozen.state == TrialState.WAITING or "key" not in frozen.user_attrs:
                continue
            noted = self._manifest.trials.get(frozen.number)
            if noted is None or any(noted.get(end) != frozen.user_attrs.get(end) for end in ("failure", GIVEN_UP)):
                self._recall(frozen)

    def _derive(self, settings: dict[str, Any]) -> None:
        """Takes up the other points that the training at `settings` gives; they count as no trials."""
        for point in self.config.siblings(settings):
            if not self._manifest.seen(point):
                self._take(self.drivers.trial(sampler.begin(self.study, self.config, point, {FREE: True})))

    def _take(self, trial: Trial) -> None:
        """Queues the trials at the point of `trial`; a point that is no valid trial is told as failed."""
        settings = sampler.suggest(self.config, trial)
        try:
            specs = self.config.specs(settings)
        except ValueError:  # settings that are each valid and contradict each other
            trial.set_user_attr("settings", settings)
            self.study.tell(trial, state=TrialState.FAIL, skip_if_finished=True)
            self.counts["failed"] += 1
            self._manifest.note(trial.number, settings, [], _CONTRADICTORY)
            return
        trial.set_user_attr("key", specs[0].key)
        asked = Asked(trial, trial.number, settings, specs)
        self._manifest.note(asked.number, settings, specs, free=FREE in trial.user_attrs)
        self._open[asked.number] = asked
        if asked.base in self._dead:
            asked.failure = self._dead[asked.base]
            self._settle(asked)
            return
        self._queue.extend(asked.jobs())

    def judged(self, job: Job) -> bool:
        """Whether the study waits for the outcome: not of a baseline, nor where only a record has to be made again."""
        with self._lock:
            asked = self._open.get(job.number) if job.number is not None else None
            return asked is not None and asked.trial is not None

    def write_manifest(self) -> None:
        """Writes the entries that are not in manifest.json yet, so that `status` shows what runs."""
        with self._lock:
            if self._manifest.unwritten:
                self._manifest.write(self.spent)

    def give_back(self, key: str) -> None:
        """A trial that was handed out and is not run after all; the next one to be handed out, unless its record is there."""
        with self._lock:
            self._queue.appendleft(self.running.pop(key))

    # ------------------------------------------------------------------ telling

    def finish(self, key: str, end: End = "record", reason: str = "", seconds: float | None = None) -> None:
        """The trial of this key has ended: with a record, because another process runs it, because the storage takes no more,
        with its process, which left no record, or because the front beats it; `reason` says more about the last three.

        `seconds` is what the worker was at it, where it tells: more than the record's phases where it ran the parent too.
        """
        with self._lock:
            job = self.running.pop(key)
            if end == "held":
                self._held.append(job)
                return
            if end == "storage":
                self.failed = self.failed or SweepFailed(f"{reason}; what was done is kept, and the same command goes on")
                return
            if end == "given up":
                self._gave_up(job, reason, seconds or 0.0)
                return
            record = self._complete(key) if end == "died" else self._read(key)  # not an earlier attempt's failure
            if record is None:
                failure = Failure(kind="WorkerDied", message=reason or "the worker left no record", traceback="")
                record = TrialRecord(key=key, state="failed", spec=job.spec, failure=failure)
                self.ledger.write(record)
            self._spend(record, seconds)
            self._arrived(job, record)
            for held in [held for held in self._held if held.spec.key == key]:
                self._held.remove(held)
                self._arrived(held, record, ran=False)
            self._manifest.write(self.spent)

    def _gave_up(self, job: Job, reason: str, seconds: float) -> None:
        """The study is told that the trial was pruned: it has no values, and is no failure."""
        base = self._base(job.spec.baseline().key)
        if base is not None:
            self._spend(base, seconds)  # on the same kind of machine
        self._emit("trial_given_up", job, reason=reason)
        self._failures.clear()  # it was trained, and scored in part
        self._succeeded = True
        asked = self._open.pop(job.number, None) if job.number is not None else None
        if asked is None or asked.trial is None or self._taken_over():
            return
        told = {"reason": reason, "seconds": round(seconds, 3)}
        asked.trial.set_user_attr(GIVEN_UP, told)
        self._manifest.note(asked.number, asked.settings, asked.specs, given_up=told)
        for constraint in self._constraints:  # or TPE takes it for a better one than any that breaks a constraint
            asked.trial.set_constraint(str(constraint), _VIOLATED)
        self.study.tell(asked.trial, state=TrialState.PRUNED, skip_if_finished=True)
        self.counts["given up"] += 1
        self.tell_failed()
        self._manifest.write(self.spent)

    def _spend(self, record: TrialRecord, seconds: float | None) -> None:
        gpus = self.config.resources.gpus_per_trial if record.hardware.get("gpu") else 1.0
        self._gpu_seconds += (sum(record.seconds.values()) if seconds is None else seconds) * gpus
        self.drivers.spend(self._gpu_seconds, self.spent[1])

    def _arrived(self, job: Job, record: TrialRecord, ran: bool = True) -> None:
        """A record is there for this job, made just now or found."""
        if record.failure is not None:
            self._emit("trial_failed", job, record)
            self._judge(job, record)
            if job.number in self._open:
                self._open[job.number].failure = record.failure.kind
                self._settle(self._open[job.number])
            self._settle_dead()
            return
        if job.number is None:
            self._emit("trial_finished", job, record)
            self._judge_baseline(record)
            self._settle_dead()
            waiting, self._unannounced = self._unannounced, []
            for early, found in waiting:
                self._announce(early, found)
            for asked in list(self._open.values()):
                self._settle(asked)
            return
        if ran:
            self._failures.clear()
            self._succeeded = True
        self._announce(job, record)
        if job.number in self._open:
            self._settle(self._open[job.number])

    def _announce(self, job: Job, record: TrialRecord) -> None:
        base = self._base(job.spec.baseline().key)
        if base is None:
            self._unannounced.append((job, record))
            return
        self._emit("trial_finished", job, record, self._metrics(record, base))

    def _judge(self, job: Job, record: TrialRecord) -> None:
        """Stops a sweep in which nothing can succeed."""
        assert record.failure is not None
        cause = f"{record.failure.kind}: {' '.join(record.failure.message.split())[:300]}"
        where = self.ledger.folder(record.key) / "record.json"
        if job.number is None:
            self._dead[job.spec.key] = _NO_BASELINE
            if self._no_base_is_left():
                self.failed = SweepFailed(f"a baseline failed, and forgetting is measured against it: {cause} ({where})")
            return
        self._failures[job.number] = record.failure
        count, last = len(self._failures), list(self._failures.values())
        own = all(failure.kind in _OWN_FAULT for failure in last)
        if not self._succeeded and count >= (_HOPELESS_SETTINGS if own else _HOPELESS):
            self.failed = SweepFailed(f"the first {count} trials all failed; the last one with {cause} ({where})")
        alike = {(failure.kind, failure.message[:60]) for failure in last}
        if count >= max(2 * _HOPELESS, 2 * self.slots) and len(alike) == 1 and not own:
            self.failed = SweepFailed(f"the last {count} trials all failed with {cause} ({where})")

    def _judge_baseline(self, base: TrialRecord) -> None:
        """Says what is undefined on a baseline that scores 0, and runs no trial on it: none could be on the front."""
        search, metrics = self.config.search, self._metrics(base, base)
        named = [objective.metric for objective in search.objectives] + [one.metric for one in self._constraints]
        undefined = [name for name in dict.fromkeys(named) if split_metric(name)[1] in RATES and metrics.get(name) is None]
        if not undefined:
            return
        roles = dict.fromkeys(split_metric(name)[0] for name in undefined)
        instead = " or ".join(f"{role}.{kind}" for role in roles for kind in ("drop", "gold_bpb_delta"))
        reason = (
            f"{', '.join(undefined)}: undefined, since {base.spec.base.model} scores 0 on {', '.join(roles)} before any "
            f"training (baseline {base.key}) and this is a share of that score; use {instead}"
        )
        self._dead[base.key] = _UNDEFINED
        if self._no_base_is_left():
            self.failed = SweepFailed(reason)
        else:
            self.notice(f"{reason}; no trial runs on this base")

    def _no_base_is_left(self) -> bool:
        return self._dead.keys() >= {spec.key for spec in self.config.baseline_specs()}

    def _settle_dead(self) -> None:
        """Ends the trials whose baseline cannot be measured against."""
        for asked in [asked for asked in self._open.values() if asked.base in self._dead]:
            asked.failure = self._dead[asked.base]
            self._settle(asked)

    def _settle(self, asked: Asked) -> None:
        """Tells the study once every replicate and the baseline are there."""
        if asked.failure is not None:
            del self._open[asked.number]
            self._doubtful.append(asked)
            # what the same training would give has failed with it, and is not asked for
            self._manifest.count_as_seen(self.config.spec(point).key for point in self.config.siblings(asked.settings))
            if asked.failure in _OWN_FAULT:
                self.tell_failed()
            return
        records = [self._complete(spec.key) for spec in asked.specs]
        bases = [self._base(spec.baseline().key) for spec in asked.specs]
        if any(record is None for record in records) or any(base is None for base in bases):
            busy = {*self.running, *(job.spec.key for job in [*self._queue, *self._held])}
            lost = [job for job, record in zip(asked.jobs(), records, strict=True) if record is None]
            self._queue.extend(job for job in lost if job.spec.key not in busy)  # a record that was whole a moment ago
            return
        del self._open[asked.number]
        if asked.trial is None:
            return
        found = [
            self._metrics(record, base)
            for record, base in zip(records, bases, strict=True)
            if record is not None and base is not None
        ]
        self._tell(asked, {name: _mean([metrics.get(name) for metrics in found]) for name in found[0]})

    def _tell(self, asked: Asked, metrics: dict[str, float | None]) -> None:
        assert asked.trial is not None
        if self._taken_over():
            return
        values = [metrics.get(objective.metric) for objective in self.config.search.objectives]
        defined = [float(value) for value in values if value is not None and math.isfinite(value)]
        if len(defined) < len(values):
            self._doubtful.append(asked)
        else:
            violations = [constraint.violation(metrics.get(constraint.metric)) for constraint in self._constraints]
            for constraint, violation in zip(self._constraints, violations, strict=True):
                asked.trial.set_constraint(str(constraint), min(violation, _VIOLATED))
            if self._constraints:  # optuna-dashboard shows attributes, and constraints by a badge alone
                named = zip(self._constraints, violations, strict=True)
                words = [f"{name} is {'kept' if by <= 0 else 'violated'}, by {abs(by):.3g}" for name, by in named]
                asked.trial.set_user_attr("constraints", "; ".join(words))
            self.study.tell(asked.trial, defined, skip_if_finished=True)
            self.counts["done"] += 1
            if all(violation <= 0 for violation in violations) and self.front.add(asked.number, asked.specs[0].key, defined):
                self._emit("front_changed")
            self._derive(asked.settings)
        self.tell_failed()

    def _taken_over(self) -> bool:
        """The running trials are no longer this command's to tell."""
        if self.drivers.lost:
            self.failed = SweepFailed("this command was taken for dead (was it suspended?), and another has its trials now")
        return self.drivers.lost

    def tell_failed(self) -> None:
        """Tells the study of the failed trials; they wait for a success, since a fault of the machine is no verdict on them."""
        with self._lock:
            if self._taken_over():
                return
            doubtful, self._doubtful = self._doubtful, []
            for asked in doubtful:
                if asked.trial is not None and asked.failure in (_NO_BASELINE, _UNDEFINED):
                    asked.trial.set_user_attr("failure", asked.failure)
                    self._manifest.note(
                        asked.number, asked.settings, asked.specs, asked.failure, FREE in asked.trial.user_attrs
                    )
                if asked.trial is not None:
                    self.study.tell(asked.trial, state=TrialState.FAIL, skip_if_finished=True)
                self.counts["failed"] += 1

    # ------------------------------------------------------------------ ending

    def stop(self) -> None:
        """Hands out nothing more; what runs may finish."""
        self.stopping = True

    @contextmanager
    def going(self) -> Iterator[None]:
        """Around the run: says when it begins and ends, and leaves study and manifest complete, whatever ends it."""
        self._emit("sweep_started")
        try:
            yield
        finally:
            over = self._at_the_end(lambda: self.over)
            done = over and self.failed is None and not self.stopping
            if done:
                self._at_the_end(self.tell_failed)
            self._at_the_end(lambda: self.drivers.spend(self._gpu_seconds, self.spent[1]))
            self._at_the_end(lambda: self._manifest.write(self.spent, at_once=True))
            self._emit("sweep_finished", reason=str(self.failed) if self.failed else "done" if done else "stopped")
            self.drivers.leave()

    def _at_the_end(self, call: Callable[[], Any]) -> Any:
        """What ends the sweep may be that nothing can be written; that is told already, and must not be covered up."""
        try:
            return call()
        except (StorageInternalError, sqlalchemy.exc.OperationalError, OSError) as error:
            self.notice(f"at the end: {' '.join(str(error).split())[:200]}")
            return None

    # ------------------------------------------------------------------ records

    def _read(self, key: str) -> TrialRecord | None:
        """The record; one that is not whole is set aside, and counts as none."""
        try:
            return self.ledger.read(key)
        except InputError as error:
            try:
                aside = self.ledger.set_aside(key)
            except FileNotFoundError:  # another command has done it
                return None
            self.notice(f"{str(error).partition(';')[0]}; set aside as {aside.name}, the trial runs again")
            return None

    def _complete(self, key: str) -> TrialRecord | None:
        record = self._read(key)
        return record if record is not None and record.state == "complete" else None

    def _base(self, baseline: str) -> TrialRecord | None:
        """A complete baseline."""
        if baseline not in self._bases and (record := self._complete(baseline)) is not None:
            self._bases[baseline] = record
        return self._bases.get(baseline)

    def _metrics(self, record: TrialRecord, base: TrialRecord) -> dict[str, float | None]:
        """On the documents that the search sees."""
        return _values(measure([record], base, half=self._half))

    # ------------------------------------------------------------------ what others see of it

    def _emit(
        self,
        event: Kind,
        job: Job | None = None,
        record: TrialRecord | None = None,
        metrics: dict[str, float | None] | None = None,
        reason: str | None = None,
    ) -> None:
        failure = record.failure if record is not None else None
        self.observe(
            Event(
                event=event,
                sweep=self.config.name,
                number=job.number if job else None,
                key=job.spec.key if job else None,
                replicate=job.replicate if job else 0,
                settings=job.settings if job else {},
                metrics=metrics or {},
                seconds=record.seconds if record is not None else {},
                failure={"kind": failure.kind, "message": failure.message} if failure else None,
                front=self.front.rows() if event == "front_changed" else [],
                reason=reason,
                record=record,
            )
        )

    def untold(self, number: int | None) -> bool:
        """Whether the study waits to be told of the trial."""
        with self._lock:
            return number in self._open

    @property
    def baselines_left(self) -> int:
        """Baselines still to run or running."""
        return sum(job.number is None for job in [*self._queue, *self._held, *self.running.values()])

    @property
    def unfinished(self) -> int | None:
        """Trials and baselines still to run or running; None where no number of trials was set."""
        if self.config.budget is None:
            return None
        replicates = self.config.search.replicates
        left = 0 if self._exhausted or not self._may_ask() else max(self.config.budget - self._manifest.counted, 0)
        return left * replicates + len(self._queue) + len(self.running) + len(self._held) + len(self._doubtful)


def _values(metrics: dict[str, Estimate | None]) -> dict[str, float | None]:
    return {name: found.value if found else None for name, found in metrics.items()}


def _mean(values: list[float | None]) -> float | None:
    """None where any of them is undefined."""
    known = [value for value in values if value is not None]
    return sum(known) / len(known) if known and len(known) == len(values) else None


def _identity(text: str) -> dict[str, Any]:
    """The parts of a resolved config that make it this sweep; a setting that is newer than the file is at its default."""
    parts = SweepConfig.model_validate(yaml.safe_load(text)).model_dump(mode="json")
    search = {name: value for name, value in parts.pop("search").items() if name not in _BUDGETS}
    return {name: value for name, value in parts.items() if name not in _MAY_CHANGE} | {
        f"search.{name}": value for name, value in search.items()
    }
