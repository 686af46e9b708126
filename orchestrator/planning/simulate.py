"""Simulation of a sweep on many GPUs: its makespan, how the workers spend their time, and the limit.

One driver hands out trials and takes results, one after the other. A worker waits for the driver, runs its trial's phases, may
die in one of them and be replaced, writes its record through the shared storage, and waits for the driver again. The driver's
seconds were measured (tests.benchmarks.growth, tests.benchmarks.driver); a trial's seconds are the plan's.
"""

import heapq
import itertools
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from random import Random

from trials.errors import InputError

START = 20.0
"""Seconds until a new worker has finished its imports; assumed."""
SAVED = 30.0
"""Seconds between checkpoints of a training, the most that a death loses of it. An evaluation of a role is lost whole."""
STORAGE_RATE = 1e9
"""Bytes a second that the storage takes from all workers together; assumed."""
ATTEMPTS = 3
"""Runs of a trial whose worker dies, at most."""
_WAITING = 0.05  # share of the workers' time; with less waiting the workers themselves are the limit


@dataclass(frozen=True)
class Cost:
    """Seconds of the driver for one call: `seconds`, and more for each known and each running trial."""

    seconds: float
    per_known: float
    per_running: float

    def at(self, known: int, running: int) -> float:
        return self.seconds + self.per_known * known + self.per_running * running


@dataclass(frozen=True)
class Study:
    """The driver's cost of a sampler and of the sweep's own state."""

    ask: Cost
    tell: Cost


# python -m tests.benchmarks.growth --sampler NAME: CPU seconds on one core of a small machine, sqlite on its own disk
STUDIES: dict[str, Study] = {
    "random": Study(Cost(0.0075, 0.0, 2.8e-6), Cost(0.0127, 0.0, 1.6e-6)),
    "nsga2": Study(Cost(0.0089, 3.8e-6, 5.3e-6), Cost(0.0118, 1.3e-6, 0.0)),
    # it learns from 250 trials at most and 100 running ones, which this has as a quarter of a second
    "gp": Study(Cost(0.25, 2.9e-3, 0.0), Cost(0.0131, 4.4e-7, 2.4e-6)),
    "tpe": Study(Cost(0.0099, 1.21e-5, 8.7e-6), Cost(0.0131, 4.4e-7, 2.4e-6)),
}
RAY_SECONDS = 0.027
"""Ray Tune's part of a trial: `python -m tests.benchmarks.driver --trials 800 --sampler random`, 2 workers, less the study."""


@dataclass(frozen=True)
class Simulation:
    workers: int
    trials: int
    failed: int
    """Trials whose worker died at every attempt."""
    hours: float
    """From the first trial handed out to the last result."""
    spent: dict[str, float]
    """Shares of the workers' time, summing to 1: work, waiting (for the driver), storage, lost (to deaths, with the start of
    the new workers), start (of the first workers)."""
    busy: dict[str, float]
    """Shares of the makespan in which study, Ray Tune and storage were busy."""
    limit: str
    """The part of the program that is busiest; "workers" if they hardly wait."""
    workers_at_most: int | None
    """Workers that the driver keeps busy towards the end; None for a driver without cost."""


def study_of(sampler: str) -> tuple[Study, str]:
    """The driver's cost with a sampler, and the sampler that was measured: random for one that was not."""
    return (STUDIES[sampler], sampler) if sampler in STUDIES else (STUDIES["random"], "random")


@dataclass(frozen=True)
class Cluster:
    """The machines that a sweep is simulated on, and its driver."""

    workers: int
    study: Study
    ray_seconds: float = RAY_SECONDS
    """Ray Tune's part of a trial."""
    deaths_per_hour: float = 0.0
    """Deaths of one worker."""
    written: float = 0.0
    """Bytes that a trial writes to the storage."""


def simulate(points: Sequence[Mapping[str, float]], trials: int, cluster: Cluster) -> Simulation:
    """`points`: seconds by phase of trials that stand in turn for all `trials`. Deterministic."""
    if not points or trials < 1 or cluster.workers < 1:
        raise InputError("a simulation needs trials, their seconds and workers")
    return _Run(points, trials, cluster).run()


class _Run:
    def __init__(self, points: Sequence[Mapping[str, float]], trials: int, cluster: Cluster):
        self.points, self.trials, self.cluster = itertools.cycle(points), trials, cluster
        self.mean = sum(map(sum, (point.values() for point in points)), 0.0) / len(points)
        self.random = Random(0)  # a simulation is repeatable
        self.spent = dict.fromkeys(("work", "waiting", "storage", "lost", "start"), 0.0)
        self.busy = dict.fromkeys(("study", "Ray Tune", "storage"), 0.0)
        self.proposed = self.known = self.failed = 0
        self.driver_free = self.storage_free = 0.0

    def run(self) -> Simulation:
        workers = min(self.cluster.workers, self.trials)
        ready = [(0.0, worker, "ask") for worker in range(workers)]  # (time, worker, its request)
        while ready:
            now, worker, wants = heapq.heappop(ready)
            if wants == "write":
                heapq.heappush(ready, (self._write(now), worker, "tell"))
            elif self._serve(now, tell=wants == "tell"):
                end, finished = self._trial(self.driver_free, first=wants == "ask")
                heapq.heappush(ready, (end, worker, "write" if finished else "tell"))
        makespan, whole = self.driver_free, sum(self.spent.values())
        waiting = (self.spent["waiting"] + self.spent["storage"]) / whole
        each = sum(self._service(ask=True, tell=True))
        return Simulation(
            workers=workers,
            trials=self.trials,
            failed=self.failed,
            hours=makespan / 3600,
            spent={name: seconds / whole for name, seconds in self.spent.items()},
            busy={name: seconds / makespan for name, seconds in self.busy.items()},
            limit=max(self.busy, key=lambda name: self.busy[name]) if waiting > _WAITING else "workers",
            workers_at_most=int(self.mean / each) if each else None,
        )

    def _service(self, ask: bool, tell: bool) -> tuple[float, float]:
        """Seconds of study and Ray Tune to take a result, ask for the next trial, or both."""
        running, study = self.proposed - self.known, self.cluster.study
        # a result is known before the next trial is requested
        told = study.tell.at(self.known, running) * tell
        return told + study.ask.at(self.known + tell, running - tell) * ask, self.cluster.ray_seconds * ask

    def _serve(self, now: float, tell: bool) -> bool:
        """The driver takes a worker's result and hands it its next trial; False if none is left."""
        ask = self.proposed < self.trials
        study, ray = self._service(ask, tell)
        self.busy["study"] += study
        self.busy["Ray Tune"] += ray
        self.driver_free = max(now, self.driver_free) + (study + ray)
        self.known += tell
        self.proposed += ask
        if ask:  # a worker that is no longer needed does not wait
            self.spent["waiting"] += self.driver_free - now
        return ask

    def _write(self, now: float) -> float:
        seconds = self.cluster.written / STORAGE_RATE
        self.storage_free = max(now, self.storage_free) + seconds
        self.busy["storage"] += seconds
        self.spent["storage"] += self.storage_free - now
        return self.storage_free

    def _trial(self, begin: float, first: bool) -> tuple[float, bool]:
        """(its end, whether it finished). Deaths are a Poisson process over the worker's time."""
        now = begin
        if first:
            self.spent["start"] += START
            now += START
        attempts, phases = 1, list(next(self.points).items())
        while phases:
            name, seconds = phases[0]
            deaths = self.cluster.deaths_per_hour / 3600
            died = self.random.expovariate(deaths) if deaths else math.inf
            if died >= seconds:
                self.spent["work"] += seconds
                now += seconds
                phases.pop(0)
                continue
            kept = max(died - SAVED, 0.0) if name == "train" else 0.0
            self.spent["work"] += kept
            self.spent["lost"] += died - kept + START
            now += died + START
            attempts += 1
            if attempts > ATTEMPTS:
                self.failed += 1
                return now, False
            phases[0] = (name, seconds - kept)
        return now, True
