"""A sweep on many GPUs, simulated before it runs: its makespan, what the GPUs do meanwhile, and what becomes the limit.

One driver hands out trials and takes their results, one after the other. A worker waits for it, works through its trial's
phases, may die in one of them and be replaced, writes its record through the storage that all share, and waits for the driver
again.
The driver's own seconds were measured (tests.benchmarks.growth, tests.benchmarks.driver); a trial's are the plan's.
"""

import heapq
import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from random import Random
from typing import Literal

from trials.errors import InputError

START = 20.0
"""Seconds until a new worker has imported what it needs; assumed."""
SAVED = 30.0
"""Seconds of training that are lost at most; what an evaluation of a role has done so far is lost."""
STORAGE_RATE = 1e9
"""Bytes a second that a file server or a bucket takes from all workers together; assumed."""
ATTEMPTS = 3
"""Of a trial whose worker dies."""
_MATTERS = 0.05  # of the workers' time spent waiting; below it nothing but the workers is the limit

Limit = Literal["workers", "study", "Ray Tune", "storage"]


@dataclass(frozen=True)
class Cost:
    """Seconds of the driver: `seconds`, and more for each trial told and for each handed out."""

    seconds: float
    per_known: float
    per_running: float

    def at(self, known: int, running: int) -> float:
        return self.seconds + self.per_known * known + self.per_running * running


@dataclass(frozen=True)
class Study:
    """What a sampler and the sweep's own books cost the driver."""

    ask: Cost
    tell: Cost


# python -m tests.benchmarks.growth --sampler NAME: CPU seconds on one core of a small machine, sqlite on its own disk
STUDIES: dict[str, Study] = {
    "random": Study(Cost(0.0075, 0.0, 2.8e-6), Cost(0.0127, 0.0, 1.6e-6)),
    "nsga2": Study(Cost(0.0089, 3.8e-6, 5.3e-6), Cost(0.0118, 1.3e-6, 0.0)),
    "tpe": Study(Cost(0.0099, 1.21e-5, 8.7e-6), Cost(0.0131, 4.4e-7, 2.4e-6)),
}
RAY_SECONDS = 0.027
"""Of Ray Tune for a trial: python -m tests.benchmarks.driver --trials 800 --sampler random on two workers, less the study's."""


@dataclass(frozen=True)
class Simulation:
    workers: int
    trials: int
    failed: int
    """Trials whose worker died at every attempt."""
    hours: float
    """From the first trial handed out to the last one told."""
    spent: dict[str, float]
    """Shares of the workers' time until each had no more to do, summing to 1: work, waiting (for the driver), storage, lost (to
    deaths, with the new workers' start), start (of the first workers)."""
    busy: dict[str, float]
    """Shares of the makespan in which study, Ray Tune and storage were at work."""
    limit: Limit
    workers_at_most: int | None
    """How many the driver would keep busy towards the end; None where it costs nothing."""


def study_of(sampler: str) -> tuple[Study, str]:
    """The driver's seconds with a sampler, and whose they are: of one that was not measured those of a random one."""
    return (STUDIES[sampler], sampler) if sampler in STUDIES else (STUDIES["random"], "random")


def simulate(
    points: Sequence[Mapping[str, float]],
    trials: int,
    workers: int,
    study: Study,
    ray_seconds: float,
    deaths_per_hour: float = 0.0,
    written: float = 0.0,
) -> Simulation:
    """`points` are trials' seconds by phase, which stand for all `trials`; `written` the bytes that one leaves. The same
    arguments give the same result."""
    if not points or trials < 1 or workers < 1:
        raise InputError("a simulation needs trials, their seconds and workers")
    return _Run(points, trials, workers, study, ray_seconds, deaths_per_hour / 3600, written).run()


class _Run:
    def __init__(
        self,
        points: Sequence[Mapping[str, float]],
        trials: int,
        workers: int,
        study: Study,
        ray_seconds: float,
        deaths: float,
        written: float,
    ):
        self.points, self.trials, self.workers = itertools.cycle(points), trials, min(workers, trials)
        self.mean = sum(map(sum, (point.values() for point in points)), 0.0) / len(points)
        self.study, self.ray_seconds, self.deaths, self.written = study, ray_seconds, deaths, written
        self.random = Random(0)
        self.spent = dict.fromkeys(("work", "waiting", "storage", "lost", "start"), 0.0)
        self.busy = dict.fromkeys(("study", "Ray Tune", "storage"), 0.0)
        self.asked = self.told = self.failed = 0
        self.driver_free = self.storage_free = 0.0

    def run(self) -> Simulation:
        ready = [(0.0, worker, "ask") for worker in range(self.workers)]  # (time, worker, what it comes for)
        while ready:
            now, worker, wants = heapq.heappop(ready)
            if wants == "write":
                heapq.heappush(ready, (self._write(now), worker, "tell"))
            elif self._serve(now, tell=wants == "tell"):
                end, finished = self._trial(self.driver_free, first=wants == "ask")
                heapq.heappush(ready, (end, worker, "write" if finished else "tell"))
        makespan = self.driver_free
        whole = sum(self.spent.values())
        busy = {name: seconds / makespan for name, seconds in self.busy.items()}
        waiting = (self.spent["waiting"] + self.spent["storage"]) / whole
        largest: Limit = max(("study", "Ray Tune", "storage"), key=lambda name: busy[name])
        each = self._service(ask=True, tell=True)
        return Simulation(
            workers=self.workers,
            trials=self.trials,
            failed=self.failed,
            hours=makespan / 3600,
            spent={name: seconds / whole for name, seconds in self.spent.items()},
            busy=busy,
            limit=largest if waiting > _MATTERS else "workers",
            workers_at_most=int(self.mean / each) if each else None,
        )

    def _service(self, ask: bool, tell: bool) -> float:
        """What it tells is known to what it asks next."""
        running = self.asked - self.told
        study = self.study.tell.at(self.told, running) * tell + self.study.ask.at(self.told + tell, running - tell) * ask
        return study + self.ray_seconds * ask

    def _serve(self, now: float, tell: bool) -> bool:
        """The driver takes a worker's result and hands it its next trial, if there is one."""
        ask = self.asked < self.trials
        seconds = self._service(ask, tell)
        self.busy["study"] += seconds - self.ray_seconds * ask
        self.busy["Ray Tune"] += self.ray_seconds * ask
        self.driver_free = max(now, self.driver_free) + seconds
        self.told += tell
        self.asked += ask
        if ask:  # else the worker is no longer needed, and waits for nothing
            self.spent["waiting"] += self.driver_free - now
        return ask

    def _write(self, now: float) -> float:
        seconds = self.written / STORAGE_RATE
        self.storage_free = max(now, self.storage_free) + seconds
        self.busy["storage"] += seconds
        self.spent["storage"] += self.storage_free - now
        return self.storage_free

    def _trial(self, begin: float, first: bool) -> tuple[float, bool]:
        """When it ends, and whether it got there; deaths are a Poisson process over the worker's time."""
        now = begin
        if first:
            self.spent["start"] += START
            now += START
        attempts, phases = 1, list(next(self.points).items())
        while phases:
            name, seconds = phases[0]
            died = self.random.expovariate(self.deaths) if self.deaths else float("inf")
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
