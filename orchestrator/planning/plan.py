"""Plan of a sweep before it runs: trials, records that exist already, time, money, memory, disk."""

import shutil
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from orchestrator import gpu_catalog
from orchestrator.cluster import limits
from orchestrator.config.model import SweepConfig
from orchestrator.planning import row_counts, simulate, space_points
from orchestrator.planning.benchmarks import Benchmark, benchmarks
from orchestrator.planning.cost import GIB
from orchestrator.planning.estimate import Estimate, Memory, Phase
from orchestrator.preflight import (
    INPUTS,
    chat_warnings,
    check_directions,
    check_metrics,
    engine_notes,
    layout_notes,
)
from orchestrator.sweep.earlier_sweeps import earlier_trials, summary
from orchestrator.sweep.pause import RUNGS
from trials.errors import InputError
from trials.ledger.record import Ledger, TrialRecord
from trials.ledger.storage import exists
from trials.models import layout
from trials.spec import TrialSpec

if TYPE_CHECKING:
    from analysis.results.manifest import Manifest


@dataclass(frozen=True)
class Gpus:
    """The GPUs that a sweep is planned for."""

    kind: str | None = None
    """Such as H100; None for this machine's own."""
    price_per_hour: float | None = None
    """Price of one GPU, in any currency."""
    count: int | None = None
    """Simulates the sweep on so many."""
    deaths_per_hour: float = 0.0
    """Deaths of a simulated worker."""


@dataclass(frozen=True)
class Plan:
    name: str
    trials: int | None
    """Without baselines; None for a sweep that hours alone end."""
    trials_in_time: int | None
    """Trials that fit into the limits of hours and GPU-hours; None without such limits."""
    replicates: int
    """Runs of each trial."""
    baselines: int
    trials_done: int
    """Points of a grid with complete records, or proposed trials that have ended, with or without a result."""
    baselines_done: int
    points: int | None
    """Size of the grid; None for any other sampler."""
    phases: dict[str, Phase]
    """Phases of one run, mean over the space."""
    seconds_per_trial: float | None
    """Mean of one run; None if they are neither measured nor countable."""
    hours: float | None
    """Hours of one worker for all runs."""
    hours_left: float | None
    gpu: str | None
    gpu_hours: float | None
    """GPU-hours for all runs; None without a GPU."""
    gpu_hours_left: float | None
    price_per_gpu_hour: float | None
    money: float | None
    money_left: float | None
    memory: Memory | None
    disk_bytes: float | None
    """Bytes that the runs left will write."""
    disk_free: float | None
    """Free bytes at the storage root; None for an object store."""
    simulated: simulate.Simulation | None
    """None without a number of GPUs, or if a trial's seconds are unknown."""
    rows: dict[str, dict[str, int]] = field(default_factory=dict)
    """By local source: rows, used, cut at data.max_length (cut_tokens: tokens that the loss loses by it), duplicates among the
    used, and left out by reason, for the trial that needs most."""
    formats: dict[str, str] = field(default_factory=dict)
    """By local source without templates of its own: its format and the columns that show it."""
    unused: dict[str, dict[str, list[str]]] = field(default_factory=dict)
    """By local source and reason: file and row of the first three rows left out."""
    unusable: dict[str, dict[str, tuple[int, str]]] = field(default_factory=dict)
    """By local source of conversations and reason: number of rows, drawn or not, that no trial can use, file and row of the
    first."""
    unusual: dict[str, dict[str, tuple[int, str]]] = field(default_factory=dict)
    """By local source and by what is unusual in a conversation: number of used rows, file and row of the first."""
    eval: dict[str, Benchmark] = field(default_factory=dict)
    """By role."""
    notes: list[str] = field(default_factory=list)
    """Assumptions and sources of the figures."""
    warnings: list[str] = field(default_factory=list)

    def as_dict(self) -> dict[str, Any]:
        return asdict(self)


def plan(config: SweepConfig, storage: Path, gpus: Gpus = Gpus(), shapes: Mapping[str, dict[str, Any]] | None = None) -> Plan:
    """`shapes`: config.json by model, for models whose file is not at hand."""
    records, over, unreadable = _records(Ledger(storage))
    estimate = Estimate(config, records.values(), gpus.kind, shapes or {})
    corners, tasks = [settings for settings, _ in space_points.corners(config, INPUTS)], estimate.tasks
    specs = [spec for settings in corners for spec in config.specs(settings)]  # a replicate draws other rows
    for spec in specs:
        check_metrics(config, spec, tasks)
        check_directions(config, spec, tasks, [role for role, one in spec.eval.items() if tasks.at_hand(one)])
    rows, uncounted = row_counts.count(specs, estimate.hub, tasks)
    points = list(space_points.grid(config)) if config.search.sampler == "grid" else None
    manifest, damaged = _manifest(storage / config.name)
    baselines = config.baseline_specs()
    missing = [spec for spec in baselines if spec.key not in records]
    done = len({spec.key for spec in points} & records.keys()) if points is not None else _ended(manifest, over)
    space = points or list(space_points.draws(config))
    seconds = estimate.mean(space)
    left = None if config.budget is None else max(config.budget - done, 0)
    hours = _hours(config, estimate, baselines, (config.budget, seconds))
    seconds_left = estimate.mean([spec for spec in points or () if spec.key not in records]) if points and left else seconds
    hours_left = _hours(config, estimate, missing, (left, seconds_left))
    share = config.resources.gpus_per_trial if estimate.gpu else 0.0
    gpu_hours = _gpu_hours(hours, share, config.search.gpu_hours)
    gpu_hours_left = None if hours_left is None else _gpu_hours(hours_left, share, _unspent(config, manifest))
    made = Plan(
        name=config.name,
        trials=config.budget,
        trials_in_time=_in_time(config, seconds, share),
        replicates=config.search.replicates,
        baselines=len(baselines),
        trials_done=done,
        baselines_done=len(baselines) - len(missing),
        points=len(points) if points is not None else None,
        phases=estimate.phases(space),
        seconds_per_trial=seconds,
        hours=hours,
        hours_left=hours_left,
        gpu=estimate.gpu,
        gpu_hours=gpu_hours,
        gpu_hours_left=gpu_hours_left,
        price_per_gpu_hour=gpus.price_per_hour,
        money=None if gpu_hours is None or gpus.price_per_hour is None else gpu_hours * gpus.price_per_hour,
        money_left=None if gpu_hours_left is None or gpus.price_per_hour is None else gpu_hours_left * gpus.price_per_hour,
        memory=estimate.memory(),
        disk_bytes=estimate.disk(space, None if left is None else left * config.search.replicates),
        disk_free=_free(storage),
        simulated=_simulated(config, estimate, space, gpus),
        rows={name: counts.numbers() for name, counts in rows.items()},
        formats={name: counts.format for name, counts in rows.items() if counts.format},
        unused={name: counts.places for name, counts in rows.items() if counts.places},
        unusable={name: counts.unusable for name, counts in rows.items() if counts.unusable},
        unusual={name: counts.unusual for name, counts in rows.items() if counts.unusual},
        eval=benchmarks(specs, tasks, halved=config.search.documents == "half"),
        notes=[*_notes(config, estimate), *uncounted, *unreadable, *damaged],
    )
    if not exists(storage / config.name / "sweep.yaml") and (begins := summary(earlier_trials(config, storage))):
        made.notes.append(begins)
    made.warnings.extend([*chat_warnings(config), *engine_notes(config), *_warnings(made, config), *_folder_of_ray()])
    return made


def _notes(config: SweepConfig, estimate: Estimate) -> Iterator[str]:
    yield from layout_notes(config, estimate.hub, layout.known)
    yield from estimate.notes()
    if config.search.multi_fidelity:
        rungs = ", then ".join(
            f"{rows:.0%} of its training rows and {documents:.0%} of the searched documents" for rows, documents in RUNGS
        )
        yield (
            f"search.multi_fidelity: a trial pauses after {rungs} (the first only where training is longer than evaluation); "
            "one that cannot be on the front goes no further, so times and prices here, of whole trials, are upper bounds"
        )


def _records(ledger: Ledger) -> tuple[dict[str, TrialRecord], set[str], list[str]]:
    """The complete records by key, the keys of these and of failed ones, and a note on unreadable ones."""
    records, over, unreadable = {}, set(), []
    for key in ledger:
        try:
            record = ledger.read(key)
        except InputError as error:  # it may belong to another sweep
            unreadable.append(str(error).partition(";")[0])
            continue
        if record is not None:
            over.add(key)
            if record.state == "complete":
                records[key] = record
    if len(unreadable) > 1:
        return records, over, [f"{len(unreadable)} records are left out, the first because of {unreadable[0]}"]
    return records, over, [f"a record is left out: {reason}" for reason in unreadable]


def _hours(
    config: SweepConfig, estimate: Estimate, baselines: Sequence[TrialSpec], trials: tuple[int | None, float | None]
) -> float | None:
    """Worker-hours of baselines and of `trials` (their number, seconds of one run); None if a part is unknown."""
    (count, seconds), of_baselines = trials, estimate.totals(baselines)
    if count is None or seconds is None or of_baselines is None:
        return None
    return (count * config.search.replicates * seconds + sum(of_baselines)) / 3600


def _gpu_hours(hours: float | None, share: float, limit: float | None) -> float | None:
    """GPU-hours, at most the limit; None without a GPU."""
    if not share:
        return None
    limits = [one for one in (hours and hours * share, limit) if one is not None]
    return min(limits, default=None)


def _simulated(config: SweepConfig, estimate: Estimate, space: list[TrialSpec], gpus: Gpus) -> simulate.Simulation | None:
    """The whole sweep, baselines first, from its beginning; None without a number of GPUs."""
    if gpus.count is None:
        return None
    if config.budget is None:
        raise InputError("--gpus: a sweep that hours alone end cannot be simulated; give search.trials")
    points = [phases for spec in space if (phases := estimate.whole(spec)) is not None]
    if not points:
        return None
    workers = int(gpus.count / (config.resources.gpus_per_trial or 1))
    if config.resources.max_concurrent:
        workers = min(workers, config.resources.max_concurrent)
    trials = config.budget * config.search.replicates + len(config.baseline_specs())
    study, measured = simulate.study_of(config.sampler)
    estimate.note(
        f"simulated: the driver's seconds were measured on one machine with the sampler {measured}; assumed: "
        f"{simulate.START:g} s until a worker runs, storage of {simulate.STORAGE_RATE / 1e9:g} GB a second, "
        f"{gpus.deaths_per_hour:g} deaths an hour"
    )
    written = estimate.disk(space, 1) or 0.0
    cluster = simulate.Cluster(workers, study, deaths_per_hour=gpus.deaths_per_hour, written=written)
    return simulate.simulate(points, trials, cluster)


def _in_time(config: SweepConfig, seconds: float | None, share: float) -> int | None:
    """Trials that fit into the sweep's limits; `hours` count max_concurrent workers, one without it."""
    if not seconds:
        return None
    limits = []
    if config.search.gpu_hours is not None and share:
        limits.append(config.search.gpu_hours / share)
    if config.search.hours is not None:
        limits.append(config.search.hours * (config.resources.max_concurrent or 1))
    return int(min(limits) * 3600 / (seconds * config.search.replicates)) if limits else None


def _free(storage: Path) -> float | None:
    if not isinstance(storage, Path):  # an object store
        return None
    # the folder need not exist yet
    there = next(folder for folder in (storage.absolute(), *storage.absolute().parents) if folder.exists())
    return float(shutil.disk_usage(there).free)


def _warnings(made: Plan, config: SweepConfig) -> Iterator[str]:
    memory = made.memory
    if memory is not None and memory.fits is False and memory.available is not None:
        at = ", ".join(f"{path} {value}" for path, value in memory.settings.items())
        yield (
            f"a trial needs about {memory.total / GIB:.1f} GiB{f' at {at}' if at else ''}; its part of {made.gpu} is "
            f"{memory.available / GIB:.1f} GiB: a smaller train.micro_batch_size, data.max_length or eval batch_size needs less"
        )
    old = made.gpu and gpu_catalog.before_bfloat16(made.gpu)
    if old and any(spec.base.dtype == "bfloat16" for spec in config.baseline_specs()):
        yield f"{made.gpu} has no units for bfloat16, and a trial refuses it there: base.dtype float16, or auto"
    if made.disk_bytes is not None and made.disk_free is not None and made.disk_bytes > made.disk_free:
        yield f"the trials will write about {made.disk_bytes / GIB:.1f} GiB; {made.disk_free / GIB:.1f} GiB are free"
    if made.price_per_gpu_hour is not None and made.gpu is None:
        yield "no GPU here to put a price on: name the kind with --gpu"
    if made.money is None and made.price_per_gpu_hour is not None and made.gpu is not None:
        yield "the price needs a number of hours, which is unknown"


def _folder_of_ray() -> Iterator[str]:
    try:
        limits.check_folder()
    except InputError as error:
        yield f"a run on this machine would be refused: {error}"


def _manifest(folder: Path) -> "tuple[Manifest | None, list[str]]":
    """The sweep's manifest, and a note on one that cannot be read."""
    from analysis.results.manifest import Manifest

    try:
        return (Manifest.read(folder) if exists(folder / "manifest.json") else None), []
    except InputError as error:
        return None, [str(error)]


def _ended(manifest: "Manifest | None", over: Collection[str]) -> int:
    """The trials that the budget counts and that have ended: every replicate's key is `over`, or there is no result."""
    trials = [] if manifest is None else [one for one in manifest.trials if not one.free]
    return sum(one.failure is not None or one.given_up is not None or all(key in over for key in one.keys) for one in trials)


def _unspent(config: SweepConfig, manifest: "Manifest | None") -> float | None:
    """What is left of the sweep's own limit of GPU-hours; None without one."""
    limit = config.search.gpu_hours
    return limit if limit is None or manifest is None or not manifest.spent else max(limit - manifest.spent[0] / 3600, 0.0)
