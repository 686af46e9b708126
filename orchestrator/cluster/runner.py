"""Runs a sweep's trials on Ray: one worker process per slot, with its GPU or its share of the CPU, kept from trial to trial."""

import logging
import shutil
import signal
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType

import ray
from ray import tune
from ray.tune.execution import class_cache

from orchestrator.cluster.deaths import Deaths
from orchestrator.cluster.searcher import StudySearcher
from orchestrator.cluster.worker import TrialActor
from orchestrator.config.model import Resources
from orchestrator.sweep.controller import SweepController
from trials.command import HANGUPS, ignored
from trials.errors import InputError
from trials.ledger.storage import local

_ATTEMPTS = 3  # of a trial whose worker or node dies
_MANY = 100_000  # the searcher limits what runs at once, by what the cluster has at that moment
_LOOK_AGAIN = 2.0  # seconds between two looks at the cluster's nodes

# Tune would copy them into its actors' runtime environment, which Ray writes to logs that everybody may read. Workers have the
# environment of their node's Ray, and on this machine that is this command's.
class_cache.ENV_VARS_TO_PROPAGATE -= {name for name in class_cache.ENV_VARS_TO_PROPAGATE if name.startswith("AWS_")}


class Slots:
    """What a trial gets, and how many fit on the nodes that the cluster has at the moment: nodes come and go."""

    def __init__(self, resources: Resources):
        """Raises InputError when not even one trial fits, and none can be expected to fit later."""
        self._resources = resources
        self._looked, self._fit = -1e9, 0
        have = ray.cluster_resources()
        # a cluster that grows on demand may have no GPU yet; naming the kind says that it will
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
        """How many trials run at once."""
        if time.monotonic() - self._looked > _LOOK_AGAIN:
            self._fit = self._room()
            self._looked = time.monotonic()
        # with max_concurrent the trials that wait for room are what makes such a cluster grow
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
        """The resources of one trial as Ray asks for them."""
        kind = self._resources.accelerator_type
        asked: dict[str, float] = {"CPU": self.cpus} | ({"GPU": self.gpus} if self.gpus else {})
        return asked | ({f"accelerator_type:{kind}": 0.001} if kind else {})

    def __str__(self) -> str:
        device = f"{self.gpus:g} GPU" if self.gpus else f"{self.cpus} CPU core{'s' * (self.cpus > 1)}, no GPU"
        return f"{self()} at a time, {device} each"


@contextmanager
def interruptible(sweep: SweepController, say: Callable[[str], None]) -> Iterator[None]:
    """Ctrl-C once lets the running trials finish; twice stops at once, as do SIGTERM and SIGHUP. Every state resumes."""

    def interrupted(signum: int, frame: FrameType | None) -> None:
        if sweep.stopping or signum != signal.SIGINT:
            raise KeyboardInterrupt
        sweep.stop()
        say(f"stopping: {len(sweep.running)} running to finish; Ctrl-C again stops at once")

    if threading.current_thread() is not threading.main_thread():  # a task of a cluster, which Ray ends by itself
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
    """Runs everything that the sweep still hands out; raises SweepFailed when it cannot go on.

    While other commands run all that is left, this one has no workers: on a full cluster the others need the room.
    """
    folder = local(mirror, "hub_mirror").resolve() if mirror else None
    trainable = tune.with_parameters(actor, storage=storage, mirror=folder, threads=slots.cpus, gpus=slots.gpus)
    placed = tune.with_resources(trainable, tune.PlacementGroupFactory([slots.request()]))
    deaths = Deaths()
    searcher = StudySearcher(sweep, slots, sweep.config.resources.trials_per_pass, deaths.cause)
    _fit(placed, searcher, deaths, sweep.config.name)
    while searcher.wait():
        _fit(placed, searcher, deaths, sweep.config.name)
    if searcher.error is not None:
        raise searcher.error
    if sweep.failed:
        raise sweep.failed


def _fit(trainable: type[tune.Trainable], searcher: StudySearcher, deaths: Deaths, name: str) -> None:
    """Runs what the searcher suggests until it says that it has finished; all workers have ended then."""
    scratch = Path(tempfile.mkdtemp(prefix="slimsweep-tune-"))
    logging.getLogger("ray.tune.tune").setLevel(logging.CRITICAL)  # it lists workers that died; their cause is reported
    try:
        tune.Tuner(
            trainable,
            tune_config=tune.TuneConfig(search_alg=searcher, num_samples=-1, max_concurrent_trials=_MANY, reuse_actors=True),
            run_config=tune.RunConfig(
                name=name,
                storage_path=str(scratch),
                verbose=0,
                callbacks=[deaths],
                failure_config=tune.FailureConfig(max_failures=_ATTEMPTS - 1),
                # or Tune asks every finished trial for a checkpoint, which kills the worker that would be kept
                checkpoint_config=tune.CheckpointConfig(checkpoint_at_end=False, checkpoint_frequency=0),
            ),
        ).fit()
    finally:
        shutil.rmtree(scratch, ignore_errors=True)
