"""Runs a sweep's trials on Ray: a worker process for each slot, with its GPU or CPU cores, kept from trial to trial."""

import logging
import math
import shutil
import signal
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import Any

import ray
from ray import tune
from ray.tune.execution import class_cache

from orchestrator.cluster.deaths import Deaths, out_of_memory_as_death
from orchestrator.cluster.searcher import StudySearcher
from orchestrator.cluster.worker import TrialActor
from orchestrator.config.model import Resources
from orchestrator.sweep.controller import SweepController
from trials.command import HANGUPS, ignored
from trials.errors import InputError
from trials.ledger.storage import local

_ATTEMPTS = 3  # attempts of a trial whose worker or node dies
_NO_LIMIT = 100_000  # the searcher limits concurrent trials by the cluster's current size
_POLL = 2.0  # seconds between two reads of the cluster's nodes

# Tune would copy keys into its actors' runtime environment, which Ray writes to logs that everybody can read. Workers have them
# from their node's Ray, which on this machine has this command's environment.
class_cache.ENV_VARS_TO_PROPAGATE -= {name for name in class_cache.ENV_VARS_TO_PROPAGATE if name.startswith("AWS_")}


class Slots:
    """The resources of a trial, and how many trials fit on the cluster's current nodes."""

    def __init__(self, resources: Resources):
        """InputError where no trial fits, now or later."""
        self._resources = resources
        self._polled, self._fit = -math.inf, 0
        have = ray.cluster_resources()
        # a cluster that grows on demand may have no GPU yet; a config that names the kind expects one
        wants_gpu = have.get("GPU", 0) > 0 or resources.accelerator_type is not None
        self.cpus = resources.cpus_per_trial
        self.gpus = resources.gpus_per_trial if wants_gpu else 0.0
        if self._room() < 1 and resources.max_concurrent is None:
            kind = f" of kind {resources.accelerator_type}" if resources.accelerator_type else ""
            raise InputError(
                f"resources: a trial asks for {self.cpus} CPUs and {self.gpus:g} GPUs{kind} on one node; the cluster has "
                f"{have.get('CPU', 0):g} and {have.get('GPU', 0):g} (a cluster that grows on demand needs max_concurrent)"
            )

    def __call__(self) -> int:
        """The number of trials that run at once."""
        if time.monotonic() - self._polled > _POLL:
            self._fit = self._room()
            self._polled = time.monotonic()
        # a cluster that grows on demand grows because trials wait: max_concurrent must exceed what fits
        return self._resources.max_concurrent or max(self._fit, 1)

    def _room(self) -> int:
        return sum(self._on_node(node["Resources"]) for node in ray.nodes() if node["Alive"])

    def _on_node(self, has: dict[str, float]) -> int:
        kind = self._resources.accelerator_type
        if kind is not None and f"accelerator_type:{kind}" not in has:
            return 0
        fit = int(has.get("CPU", 0) // self.cpus)
        return min(fit, int(has.get("GPU", 0) / self.gpus + 1e-9)) if self.gpus else fit

    def request(self) -> dict[str, float]:
        """Ray's resource request for a trial."""
        kind = self._resources.accelerator_type
        request: dict[str, float] = {"CPU": self.cpus} | ({"GPU": self.gpus} if self.gpus else {})
        return request | ({f"accelerator_type:{kind}": 0.001} if kind else {})

    def __str__(self) -> str:
        device = f"{self.gpus:g} GPU" if self.gpus else f"{self.cpus} CPU core{'s' * (self.cpus > 1)}, no GPU"
        return f"{self()} at a time, {device} each"


class _Silent(tune.ProgressReporter):
    """Reports nothing. Tune's own reporter, which has nothing to say here, clears the output of a notebook's cell."""

    def should_report(self, trials: list[Any], done: bool = False) -> bool:
        return False

    def report(self, trials: list[Any], done: bool, *sys_info: Any) -> None:
        """Never called."""


@contextmanager
def interruptible(sweep: SweepController, say: Callable[[str], None], left: Callable[[], str]) -> Iterator[None]:
    """Ctrl-C once lets the running trials finish; a second one, SIGTERM and SIGHUP stop at once. Every state resumes.

    `left` says how long the running trials take once the sweep is stopping.
    """

    def interrupted(signum: int, frame: FrameType | None) -> None:
        if sweep.stopping or signum != signal.SIGINT:
            raise KeyboardInterrupt
        sweep.stop()
        running = len(sweep.running)
        say(f"stopping: {running} running to finish{f' ({left()})' if running else ''}; Ctrl-C again stops at once")

    if threading.current_thread() is not threading.main_thread():  # in a task of a cluster: Ray ends it
        yield
        return
    handled = [signal.SIGINT, *(signum for signum in HANGUPS if not ignored(signum))]
    before = {signum: signal.signal(signum, interrupted) for signum in handled}
    try:
        yield
    finally:
        for signum, handler in before.items():
            signal.signal(signum, handler)


def run(
    sweep: SweepController, storage: str | Path, mirror: str | None, slots: Slots, actor: type[tune.Trainable] = TrialActor
) -> None:
    """Runs every job of the sweep; raises SweepFailed where it cannot go on."""
    folder = local(mirror, "hub_mirror").resolve() if mirror else None
    trainable = tune.with_parameters(actor, storage=storage, mirror=folder, threads=slots.cpus, gpus=slots.gpus)
    placed = tune.with_resources(trainable, tune.PlacementGroupFactory([slots.request()]))
    deaths = Deaths()
    searcher = StudySearcher(sweep, slots, sweep.config.resources.trials_per_pass, deaths.cause)
    _fit(placed, searcher, deaths, sweep.config.name)
    # while other commands run everything that is left, this one has no workers: a full cluster needs the room
    while searcher.wait():
        _fit(placed, searcher, deaths, sweep.config.name)
    if searcher.error is not None:
        raise searcher.error
    if sweep.failed:
        raise sweep.failed


def _fit(trainable: type[tune.Trainable], searcher: StudySearcher, deaths: Deaths, name: str) -> None:
    """Runs the searcher's suggestions until it finishes; all workers have ended then."""
    scratch = Path(tempfile.mkdtemp(prefix="slimsweep-tune-"))
    logging.getLogger("ray.tune.tune").setLevel(logging.CRITICAL)  # it lists workers that died; their records have the cause
    try:
        with out_of_memory_as_death():
            tune.Tuner(
                trainable,
                tune_config=tune.TuneConfig(
                    search_alg=searcher, num_samples=-1, max_concurrent_trials=_NO_LIMIT, reuse_actors=True
                ),
                run_config=tune.RunConfig(
                    name=name,
                    storage_path=str(scratch),
                    verbose=0,
                    progress_reporter=_Silent(),
                    callbacks=[deaths],
                    failure_config=tune.FailureConfig(max_failures=_ATTEMPTS - 1),
                    # a checkpoint of a finished trial would kill the worker that is to be reused
                    checkpoint_config=tune.CheckpointConfig(checkpoint_at_end=False, checkpoint_frequency=0),
                ),
            ).fit()
    finally:
        shutil.rmtree(scratch, ignore_errors=True)
