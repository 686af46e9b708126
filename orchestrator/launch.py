"""Runs a sweep's trials on Ray: one worker process per slot, with its GPU or its share of the CPU, kept from trial to trial."""

import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

# Ray reads these when it is imported or starts its processes.
os.environ.setdefault("RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER", "0")  # a local Ray would listen on every interface
os.environ.setdefault("RAY_CHDIR_TO_TRIAL_DIR", "0")
os.environ.setdefault("RAY_AIR_NEW_OUTPUT", "0")
os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
os.environ.setdefault("TUNE_PRINT_ALL_TRIAL_ERRORS", "0")
os.environ.setdefault("TUNE_DISABLE_AUTO_CALLBACK_LOGGERS", "1")

import ray
from ray import tune

from orchestrator.config import Resources
from orchestrator.search import StudySearcher
from orchestrator.sweep import Sweep
from trials.errors import InputError
from trials.spec import TrialSpec


@dataclass(frozen=True)
class Slots:
    """How many trials run at once, and what each of them gets."""

    concurrent: int
    cpus: int
    gpus: float


class TrialActor(tune.Trainable):
    """A worker process: the base, the tasks and their data stay in it while it runs one spec after the other."""

    def setup(
        self, config: dict[str, Any], storage: str = "", mirror: str | None = None, threads: int = 1, gpus: float = 0
    ) -> None:
        if not gpus:
            os.environ["CUDA_VISIBLE_DEVICES"] = ""  # Ray leaves all of them visible to a worker that asked for none
        import torch

        from trials.hub import Hub
        from trials.record import Ledger
        from trials.trial import Worker

        torch.set_num_threads(threads)
        self.worker = Worker(Ledger(storage), Hub(mirror))
        self.reset_config(config)

    def reset_config(self, new_config: dict[str, Any]) -> bool:
        self.spec = TrialSpec.model_validate_json(new_config["spec"])
        return True

    def step(self) -> dict[str, Any]:
        record = self.worker.run(self.spec)
        return {"key": record.key, "state": record.state, "done": True}


@contextmanager
def cluster(address: str | None, cpus_per_trial: int) -> Iterator[None]:
    """A connection to the cluster at `address`, or a Ray of this machine's own that listens on loopback alone."""
    environment = {
        "OMP_NUM_THREADS": str(cpus_per_trial),
        "TOKENIZERS_PARALLELISM": "false",
        "HF_DATASETS_DISABLE_PROGRESS_BARS": "1",
    }
    common: dict[str, Any] = {"log_to_driver": False, "logging_level": "ERROR", "runtime_env": {"env_vars": environment}}
    if address is None:
        ray.init(
            address="local",
            num_cpus=len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count(),
            include_dashboard=False,
            _node_ip_address="127.0.0.1",
            **common,
        )
    else:
        try:
            ray.init(address=address, **common)
        except (ConnectionError, ValueError) as error:
            raise InputError(
                f"--address {address}: no Ray cluster answers there: {' '.join(str(error).split())[:160]}"
            ) from error
    try:
        yield
    finally:
        ray.shutdown()


def slots(resources: Resources) -> Slots:
    """One GPU a trial where there are GPUs and one CPU worker where there are none; InputError when not even one trial fits."""
    have = ray.cluster_resources()
    gpus = resources.gpus_per_trial if have.get("GPU", 0) > 0 else 0.0
    fit = int(have.get("CPU", 0) // resources.cpus_per_trial)
    if gpus:
        fit = min(fit, int(have["GPU"] / gpus + 1e-9))
    if fit < 1:
        raise InputError(
            f"resources: a trial asks for {resources.cpus_per_trial} CPUs and {gpus:g} GPUs; "
            f"the cluster has {have.get('CPU', 0):g} and {have.get('GPU', 0):g}"
        )
    return Slots(min(fit, resources.max_concurrent or fit), resources.cpus_per_trial, gpus)


def run(sweep: Sweep, storage: Path, mirror: str | None, slots: Slots) -> None:
    """Runs everything that the sweep still hands out; raises SweepFailed when it cannot go on."""
    mirror = str(Path(mirror).expanduser().resolve()) if mirror else None
    trainable = tune.with_parameters(
        TrialActor, storage=str(storage.resolve()), mirror=mirror, threads=slots.cpus, gpus=slots.gpus
    )
    scratch = Path(tempfile.mkdtemp(prefix="slimsweep-tune-"))
    try:
        tuner = tune.Tuner(
            tune.with_resources(trainable, {"cpu": slots.cpus, "gpu": slots.gpus}),
            tune_config=tune.TuneConfig(
                search_alg=StudySearcher(sweep),
                num_samples=sweep.unfinished,
                max_concurrent_trials=slots.concurrent,
                reuse_actors=True,
            ),
            run_config=tune.RunConfig(
                name=sweep.config.name,
                storage_path=str(scratch),
                verbose=0,
                # or Tune asks every finished trial for a checkpoint, which kills the worker that would be kept
                checkpoint_config=tune.CheckpointConfig(checkpoint_at_end=False, checkpoint_frequency=0),
            ),
        )
        tuner.fit()
    finally:
        shutil.rmtree(scratch, ignore_errors=True)
    if sweep.failed:
        raise sweep.failed
