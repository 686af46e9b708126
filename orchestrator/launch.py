"""Runs a sweep's trials on Ray: one worker process per slot, with its GPU or its share of the CPU, kept from trial to trial."""

import os
import shutil
import signal
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cached_property
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Any

# Ray reads these when it is imported or starts its processes.
os.environ.setdefault("RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER", "0")  # a local Ray would listen on every interface
os.environ.setdefault("RAY_CHDIR_TO_TRIAL_DIR", "0")
os.environ.setdefault("RAY_AIR_NEW_OUTPUT", "0")
os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
os.environ.setdefault("TUNE_PRINT_ALL_TRIAL_ERRORS", "0")
os.environ.setdefault("TUNE_DISABLE_AUTO_CALLBACK_LOGGERS", "1")
os.environ.setdefault("TUNE_DISABLE_SIGINT_HANDLER", "1")  # it kills what runs; see `interruptible`

import ray
from ray import tune

from orchestrator.config import Resources
from orchestrator.errors import SweepFailed
from orchestrator.search import StudySearcher
from orchestrator.sweep import Sweep
from trials.errors import InputError, StorageFailed
from trials.spec import TrialSpec

if TYPE_CHECKING:
    from trials.trial import Worker

_TRIES = 3  # to start a Ray of this machine's own
_ATTEMPTS = 3  # of a trial whose worker or node dies
_MANY = 100_000  # the searcher limits what runs at once, by what the cluster has at that moment
_LOOK_AGAIN = 2.0  # seconds between two looks at the cluster's nodes


class TrialActor(tune.Trainable):
    """A worker process: the base, the tasks and their data stay in it while it runs one spec after the other."""

    def setup(
        self, config: dict[str, Any], storage: str = "", mirror: str | None = None, threads: int = 1, gpus: float = 0
    ) -> None:
        """Returns at once. Tune gives a trial that waits for a worker to start the next one that is free and drops the
        starting one, so where trials end often a node that joins would never get a worker that takes long to start."""
        self._arguments = (storage, mirror, threads, gpus)
        self.reset_config(config)

    @cached_property
    def worker(self) -> "Worker":
        storage, mirror, threads, gpus = self._arguments
        if not gpus:
            os.environ["CUDA_VISIBLE_DEVICES"] = ""  # Ray leaves all of them visible to a worker that asked for none
        import torch

        from trials.hub import Hub
        from trials.record import Ledger
        from trials.storage import root
        from trials.trial import Worker

        torch.set_num_threads(threads)
        return Worker(Ledger(root(storage)), Hub(mirror))

    def reset_config(self, new_config: dict[str, Any]) -> bool:
        self.spec = TrialSpec.model_validate_json(new_config["spec"])
        self.keep: list[int] = new_config["keep"]
        return True

    def step(self) -> dict[str, Any]:
        try:
            worker = self.worker
        except Exception as error:  # noqa: BLE001  # it becomes the trial's failed record; Tune would hide what it was
            return {"end": "died", "reason": f"the worker cannot start: {type(error).__name__}: {error}", "done": True}
        from trials.trial import HeldElsewhere

        end, reason, began = "record", "", time.monotonic()
        try:
            worker.run(self.spec, self.keep)
        except HeldElsewhere:
            end = "held"
        except StorageFailed as error:
            end, reason = "storage", str(error)
        return {"end": end, "reason": reason, "seconds": time.monotonic() - began, "done": True}


def environment(resources: Resources) -> dict[str, str]:
    """What every process of the sweep finds in its environment."""
    return {
        "OMP_NUM_THREADS": str(resources.cpus_per_trial),
        "TOKENIZERS_PARALLELISM": "false",
        "HF_DATASETS_DISABLE_PROGRESS_BARS": "1",
        "RAY_CHDIR_TO_TRIAL_DIR": "0",
    }


@contextmanager
def cluster(address: str | None, resources: Resources, runtime_env: dict[str, Any]) -> Iterator[None]:
    """A connection to the cluster at `address`, or a Ray of this machine's own that listens on loopback alone.

    Inside a task of a cluster that connection is there already, and stays.
    """
    if ray.is_initialized():
        yield
        return
    runtime_env = {**runtime_env, "env_vars": runtime_env.get("env_vars", {}) | environment(resources)}
    common: dict[str, Any] = {"log_to_driver": False, "logging_level": "ERROR", "runtime_env": runtime_env}
    if address is None:
        _start(common)
    else:
        try:
            ray.init(address=address, **common)
        except (ConnectionError, ValueError, RuntimeError) as error:
            raise unreachable(address, error) from error
    try:
        yield
    finally:
        ray.shutdown()


def _start(common: dict[str, Any]) -> None:
    """A Ray of this machine's own. It gives itself half a minute, which a busy machine may exceed: that is tried again."""
    for left in reversed(range(_TRIES)):
        try:
            ray.init(
                address="local",
                num_cpus=len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count(),
                include_dashboard=False,
                _node_ip_address="127.0.0.1",
                **common,
            )
            return
        except Exception as error:
            ray.shutdown()
            if "timed out" not in str(error):
                raise
            if not left:
                raise SweepFailed(
                    f"Ray did not start on this machine in {_TRIES} tries: it may be too busy, or other Rays run on it; "
                    "the same command again goes on"
                ) from error


def unreachable(address: str, error: Exception) -> InputError:
    """What --address names does not answer, or not to us."""
    reason = " ".join(str(error).split())[:160]
    if os.environ.get("RAY_AUTH_MODE") != "token":
        reason += " (a cluster that asks for a token needs RAY_AUTH_MODE=token and RAY_AUTH_TOKEN or ~/.ray/auth_token)"
    return InputError(f"--address {address}: no Ray cluster answers there: {reason}")


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
def interruptible(sweep: Sweep, say: Callable[[str], None]) -> Iterator[None]:
    """Ctrl-C once lets the running trials finish, twice stops at once, as does SIGTERM; each leaves a state that resumes."""

    def interrupted(signum: int, frame: FrameType | None) -> None:
        if sweep.stopping or signum == signal.SIGTERM:
            raise KeyboardInterrupt
        sweep.stop()
        say(f"stopping: {len(sweep.running)} running to finish; Ctrl-C again stops at once")

    if threading.current_thread() is not threading.main_thread():  # a task of a cluster, which Ray ends by itself
        yield
        return
    before = {signum: signal.signal(signum, interrupted) for signum in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for signum, handler in before.items():
            signal.signal(signum, handler)


def run(sweep: Sweep, storage: str, mirror: str | None, slots: Slots, actor: type[tune.Trainable] = TrialActor) -> None:
    """Runs everything that the sweep still hands out; raises SweepFailed when it cannot go on."""
    mirror = str(Path(mirror).expanduser().resolve()) if mirror else None
    trainable = tune.with_parameters(actor, storage=storage, mirror=mirror, threads=slots.cpus, gpus=slots.gpus)
    scratch = Path(tempfile.mkdtemp(prefix="slimsweep-tune-"))
    searcher = StudySearcher(sweep, slots)
    try:
        tune.Tuner(
            tune.with_resources(trainable, tune.PlacementGroupFactory([slots.request()])),
            tune_config=tune.TuneConfig(search_alg=searcher, num_samples=-1, max_concurrent_trials=_MANY, reuse_actors=True),
            run_config=tune.RunConfig(
                name=sweep.config.name,
                storage_path=str(scratch),
                verbose=0,
                failure_config=tune.FailureConfig(max_failures=_ATTEMPTS - 1),
                # or Tune asks every finished trial for a checkpoint, which kills the worker that would be kept
                checkpoint_config=tune.CheckpointConfig(checkpoint_at_end=False, checkpoint_frequency=0),
            ),
        ).fit()
    finally:
        shutil.rmtree(scratch, ignore_errors=True)
    if searcher.error is not None:
        raise searcher.error
    if sweep.failed:
        raise sweep.failed
