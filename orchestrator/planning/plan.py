"""What a sweep would run, before it does: trials, what the ledger holds of them, time, money, memory, disk; and whether all of
it can be had.

Seconds come from measured records where the ledger has some of the same base on the same hardware, phase by phase, and are
counted (orchestrator.cost) where it has none; each phase says which.
"""

import shutil
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass, field
from itertools import islice
from pathlib import Path
from random import Random
from typing import Any

from orchestrator import gpu_catalog
from orchestrator.config.model import SweepConfig
from orchestrator.config.parameters import Categorical, Int
from orchestrator.planning import cost, row_counts, simulate
from orchestrator.planning.cost import GIB, Machine, Shape
from orchestrator.planning.timings import Measured
from trials.errors import InputError
from trials.hub.hub import Hub
from trials.ledger.record import Ledger, TrialRecord
from trials.ledger.storage import exists
from trials.models import layout
from trials.spec import Base, TrialSpec

_DRAWS = 200  # points of the space that stand for those which a sampler will choose
_ROW_PATHS = ("data.", "base.", "eval.")
_MEMORY_PATHS = ("base.", "lora.", "train.micro_batch_size", "train.batch_size", "data.max_length", "eval.")


@dataclass(frozen=True)
class Phase:
    seconds: float
    basis: str
    """measured, counted, or both where the trials' bases differ in it."""


@dataclass(frozen=True)
class Memory:
    """Bytes on the device at the peak of the largest trial of the space."""

    parts: dict[str, float]
    total: float
    available: float | None
    """What a trial has of the GPU; None where no GPU is known."""
    fits: bool | None
    settings: dict[str, Any]
    """The searched settings of that trial."""


@dataclass(frozen=True)
class Plan:
    name: str
    trials: int | None
    """Baselines not counted; None where hours alone end the sweep."""
    trials_in_time: int | None
    """How many the limits in GPU-hours and hours leave room for; None without such limits."""
    replicates: int
    """Runs of each trial."""
    baselines: int
    trials_done: int
    """Points of a grid, or trials that the sweep has told, whose records are complete."""
    baselines_done: int
    points: int | None
    """Size of the grid; None where the sampler chooses."""
    phases: dict[str, Phase]
    """Of one run, mean over the space."""
    seconds_per_trial: float | None
    """Of one run; None where neither records nor the model's configuration tell."""
    hours: float | None
    """Of one worker, for everything."""
    hours_left: float | None
    gpu: str | None
    gpu_hours: float | None
    """For everything; None without a GPU."""
    gpu_hours_left: float | None
    price_per_gpu_hour: float | None
    money: float | None
    money_left: float | None
    memory: Memory | None
    disk_bytes: float | None
    """What is left to run will write."""
    disk_free: float | None
    """Of the storage root; None where it is no folder of this machine."""
    simulated: simulate.Simulation | None
    """On the number of GPUs that was asked for; None where none was, or a trial's seconds are not known."""
    rows: dict[str, dict[str, int]] = field(default_factory=dict)
    """By source that is at hand: rows, used, cut at data.max_length and left out by reason, by the trial that needs most."""
    notes: list[str] = field(default_factory=list)
    """What the figures rest on."""
    warnings: list[str] = field(default_factory=list)

    def as_dict(self) -> dict[str, Any]:
        return asdict(self)


def plan(
    config: SweepConfig,
    storage: Path,
    gpu: str | None = None,
    price: float | None = None,
    shapes: Mapping[str, dict[str, Any]] | None = None,
    count: int | None = None,
    deaths_per_hour: float = 0.0,
) -> Plan:
    """`gpu` is a kind's name, this machine's own when left out; `price` of an hour of it, in any currency; `shapes`, by model,
    what its config.json says where that is not at hand. With `count` the sweep is simulated on so many GPUs, whose workers die
    so often."""
    records, unreadable = _records(Ledger(storage))
    estimate = _Estimate(config, records.values(), gpu, shapes or {})
    points = list(_grid(config)) if config.search.sampler == "grid" else None
    asked = {spec.key for spec in points} if points is not None else _told_keys(storage / config.name)
    baselines = config.baseline_specs()
    todo = [spec for spec in baselines if spec.key not in records]
    done = len(asked & records.keys())
    space = points or list(_draws(config))
    open_points = [spec for spec in points if spec.key not in records] if points is not None else space
    seconds = estimate.mean(space)
    left = None if config.budget is None else max(config.budget - done, 0)
    hours, hours_left = _hours(config, estimate, baselines, seconds, config.budget), None
    if left is not None:
        hours_left = _hours(config, estimate, todo, estimate.mean(open_points) if left else seconds, left)
    share = config.resources.gpus_per_trial if estimate.gpu else 0.0
    gpu_hours = _capped(None if hours is None else hours * share, config) if share else None
    gpu_left = _capped(hours_left * share, config) if share and hours_left is not None else None
    disk = estimate.disk(space, None if left is None else left * config.search.replicates)
    rows, uncounted = row_counts.count([spec for _, spec in _corners(config, _ROW_PATHS)], Hub(config.hub_mirror))
    made = Plan(
        name=config.name,
        trials=config.budget,
        trials_in_time=_in_time(config, seconds, share),
        replicates=config.search.replicates,
        baselines=len(baselines),
        trials_done=done,
        baselines_done=len(baselines) - len(todo),
        points=len(asked) if points is not None else None,
        phases=estimate.phases(space),
        seconds_per_trial=seconds,
        hours=hours,
        hours_left=hours_left,
        gpu=estimate.gpu,
        gpu_hours=gpu_hours,
        gpu_hours_left=gpu_left,
        price_per_gpu_hour=price,
        money=gpu_hours * price if gpu_hours is not None and price is not None else None,
        money_left=gpu_left * price if gpu_left is not None and price is not None else None,
        memory=estimate.memory(),
        disk_bytes=disk,
        disk_free=_free(storage),
        simulated=None if count is None else _simulated(config, estimate, space, count, deaths_per_hour),
        rows=rows,
        notes=[*layout_notes(config, Hub(config.hub_mirror), layout.known), *estimate.notes(), *uncounted, *unreadable],
    )
    made.warnings.extend(_warnings(made, config))
    return made


def _records(ledger: Ledger) -> tuple[dict[str, TrialRecord], list[str]]:
    """The complete records by key, and a note on those that cannot be read: a damaged one may belong to any sweep."""
    records, unreadable = {}, []
    for key in ledger:
        try:
            record = ledger.complete(key)
        except InputError as error:
            unreadable.append(str(error).partition(";")[0])
            continue
        if record is not None:
            records[key] = record
    if len(unreadable) > 1:
        return records, [f"{len(unreadable)} records are left out, the first because of {unreadable[0]}"]
    return records, [f"a record is left out: {reason}" for reason in unreadable]


def _hours(
    config: SweepConfig, estimate: "_Estimate", baselines: list[TrialSpec], seconds: float | None, trials: int | None
) -> float | None:
    """Worker-hours of so many trials and these baselines; None where a part is not known."""
    needed = [estimate.total(spec) for spec in baselines]
    if trials is None or seconds is None or None in needed:
        return None
    return (trials * config.search.replicates * seconds + sum(one for one in needed if one is not None)) / 3600


def _simulated(
    config: SweepConfig, estimate: "_Estimate", space: list[TrialSpec], count: int, deaths_per_hour: float
) -> simulate.Simulation | None:
    """The whole sweep, baselines first, from its beginning."""
    if config.budget is None:
        raise InputError("--gpus: a sweep that hours alone end cannot be simulated; give search.trials")
    points = [phases for spec in space if (phases := estimate.whole(spec)) is not None]
    if not points:
        return None
    workers = int(count / (config.resources.gpus_per_trial or 1))
    if config.resources.max_concurrent:
        workers = min(workers, config.resources.max_concurrent)
    trials = config.budget * config.search.replicates + len(config.baseline_specs())
    study, whose = simulate.study_of(config.search.sampler)
    estimate.note(
        f"simulated: a driver's seconds as measured on one machine with the sampler {whose}; assumed are {simulate.START:g} s "
        f"until a worker runs, storage of {simulate.STORAGE_RATE / 1e9:g} GB a second, {deaths_per_hour:g} deaths an hour"
    )
    written = estimate.disk(space, 1) or 0.0
    return simulate.simulate(points, trials, workers, study, simulate.RAY_SECONDS, deaths_per_hour, written)


def _capped(gpu_hours: float | None, config: SweepConfig) -> float | None:
    """The sweep's own limit where that is reached first."""
    limits = [hours for hours in (gpu_hours, config.search.gpu_hours) if hours is not None]
    return min(limits, default=None)


def _in_time(config: SweepConfig, seconds: float | None, share: float) -> int | None:
    """With `hours` as if max_concurrent workers (one where that is left to the machines) ran all the time."""
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
    there = next(folder for folder in (storage.absolute(), *storage.absolute().parents) if folder.exists())
    return float(shutil.disk_usage(there).free)


def _warnings(made: Plan, config: SweepConfig) -> Iterator[str]:
    memory = made.memory
    if memory is not None and memory.fits is False and memory.available is not None:
        at = ", ".join(f"{path} {value}" for path, value in memory.settings.items())
        yield (
            f"a trial needs about {memory.total / GIB:.1f} GiB{f' at {at}' if at else ''}; of {made.gpu} it has "
            f"{memory.available / GIB:.1f} GiB: a smaller train.micro_batch_size, data.max_length or eval batch_size needs less"
        )
    if (
        made.gpu
        and gpu_catalog.before_bfloat16(made.gpu)
        and any(spec.base.dtype == "bfloat16" for spec in config.baseline_specs())
    ):
        yield f"{made.gpu} has no units for bfloat16, and a trial refuses it there: base.dtype float16, or auto"
    if made.disk_bytes is not None and made.disk_free is not None and made.disk_bytes > made.disk_free:
        yield f"the trials will write about {made.disk_bytes / GIB:.1f} GiB; {made.disk_free / GIB:.1f} GiB are free"
    if made.price_per_gpu_hour is not None and made.gpu is None:
        yield "no GPU here to put a price on: name the kind with --gpu"
    if made.money is None and made.price_per_gpu_hour is not None and made.gpu is not None:
        yield "the price needs a number of hours, which is not known"


class _Estimate:
    """Seconds, memory and disk of this config's trials on one kind of machine."""

    def __init__(
        self, config: SweepConfig, records: Iterable[TrialRecord], gpu: str | None, shapes: Mapping[str, dict[str, Any]]
    ):
        self.config = config
        named = gpu_catalog.find(gpu).name if gpu else gpu_catalog.local()
        self.gpu = named if config.resources.gpus_per_trial else None
        self.kind = gpu_catalog.lookup(self.gpu) if self.gpu else None
        self.measured = Measured(records, self.gpu)
        self._shapes: dict[Base, Shape] = {}
        self._notes: dict[str, None] = {}
        hub = Hub(config.hub_mirror)
        self._rows = cost.RowLengths(hub)
        for base in {spec.base: None for spec in config.baseline_specs()}:
            try:
                known = shapes.get(base.model)
                self._shapes[base] = cost.shape_of(base.model, known) if known else cost.read_shape(base, hub)
            except InputError as error:
                self._notes[f"nothing can be counted for this base: {error}"] = None
        self._machine: Machine | None = None

    @property
    def machine(self) -> Machine | None:
        """None for a GPU of a kind that is not known."""
        if self._machine is None and self.kind is not None:
            self._machine = Machine.of(self.kind)
        elif self._machine is None and self.gpu is None:
            self._machine = Machine.here(self.config.resources.cpus_per_trial)
        return self._machine

    def seconds(self, spec: TrialSpec) -> dict[str, Phase] | None:
        """By phase; None where a phase is neither measured nor can be counted."""
        known = self.measured.seconds(spec)
        phases = {phase: Phase(seconds, "measured") for phase, seconds in known.items()}
        wanted = [] if spec.is_baseline else ["train"]
        wanted += [f"evaluate.{role}" for role in spec.eval]
        for phase in wanted:
            if phase not in phases:
                shape = self._shapes.get(spec.base)
                if shape is None or self.machine is None:
                    return None
                phases[phase] = Phase(self._counted(phase, shape, spec, self.machine), "counted")
        return phases

    def _counted(self, phase: str, shape: Shape, spec: TrialSpec, machine: Machine) -> float:
        self._note_assumptions()
        if phase == "train":
            return cost.train_seconds(shape, spec, self._row_tokens(spec), machine)
        evaluation = spec.eval[phase.removeprefix("evaluate.")]
        for task in cost.unknown_tasks(evaluation):
            self._notes[f"task {task}: its lengths are not known, those of a benchmark of its sort are taken"] = None
        return cost.evaluate_seconds(shape, evaluation, spec.base, machine)

    def _row_tokens(self, spec: TrialSpec) -> float:
        if (mean := self._rows.mean(spec)) is not None:
            return mean
        self._notes[f"training rows are not at hand to be counted: {cost.ROW_TOKENS} tokens a row are taken"] = None
        return min(cost.ROW_TOKENS, spec.data.max_length)

    def _note_assumptions(self) -> None:
        if self.kind is not None:
            how = f"{self.kind.utilization:.0%} of the {self.kind.tflops:g} TFLOP/s of {self.kind.name}"
        else:
            assert self.machine is not None
            rate = f"{self.machine.rate / 1e9:.0f} GFLOP/s"
            how = f"{rate}, {cost.CPU_SHARE:.0%} of what this machine's CPU now reaches in a matrix product"
        launch = f"{cost.LAUNCH * 1e6:.0f} µs an operation"
        self._notes[f"counted, not measured: {how}, {launch}, typical lengths; right to a factor of a few"] = None

    def whole(self, spec: TrialSpec) -> dict[str, float] | None:
        """Seconds by phase, those of evaluating what is derived from it included."""
        phases = self.seconds(spec)
        if phases is None:
            return None
        derive = self.config.derive
        again = len(derive.points()[1:]) if not spec.is_baseline and derive.applies(spec) else 0
        return {name: phase.seconds * (1 + again * name.startswith("evaluate.")) for name, phase in phases.items()}

    def total(self, spec: TrialSpec) -> float | None:
        phases = self.whole(spec)
        return None if phases is None else sum(phases.values())

    def mean(self, specs: list[TrialSpec]) -> float | None:
        totals = [total for spec in specs if (total := self.total(spec)) is not None]
        return sum(totals) / len(totals) if totals and len(totals) == len(specs) else None

    def phases(self, specs: list[TrialSpec]) -> dict[str, Phase]:
        found = defaultdict(list)
        for spec in specs:
            for name, phase in (self.seconds(spec) or {}).items():
                found[name].append(phase)
        return {
            name: Phase(sum(one.seconds for one in some) / len(specs), " and ".join(sorted({one.basis for one in some})))
            for name, some in found.items()
        }

    def memory(self) -> Memory | None:
        """Of the corner of the space that needs most; None where no base can be counted."""
        counted = [
            (cost.memory(self._shapes[spec.base], spec), settings)
            for settings, spec in _corners(self.config, _MEMORY_PATHS)
            if spec.base in self._shapes
        ]
        if not counted:
            return None
        largest, settings = max(counted, key=lambda one: one[0].total)
        available = None
        if self.kind is not None:
            available = self.kind.memory * GIB * cost.FILLED * min(self.config.resources.gpus_per_trial, 1.0)
        fits = None if available is None else largest.total <= available
        return Memory(asdict(largest), largest.total, available, fits, settings)

    def disk(self, specs: list[TrialSpec], runs: int | None) -> float | None:
        sizes = [cost.disk_bytes(self._shapes[spec.base], spec) for spec in specs if spec.base in self._shapes]
        return runs * sum(sizes) / len(sizes) if sizes and runs is not None else None

    def note(self, text: str) -> None:
        self._notes[text] = None

    def notes(self) -> list[str]:
        others = self.measured.left_out({spec.base: None for spec in self.config.baseline_specs()})
        if others:
            kinds = ", ".join(sorted(set(others)))
            self._notes[f"records of these bases on other hardware are left out: {len(others)} ({kinds})"] = None
        if self.gpu and self.kind is None:
            self._notes[f"{self.gpu} is not a kind that can be counted for; name one that is with --gpu"] = None
        if self.gpu and self.config.resources.gpus_per_trial < 1:
            self._notes["trials that share a GPU slow each other down; what is counted is a trial by itself"] = None
        return list(self._notes)


# ---------------------------------------------------------------------- points of the space


def _grid(config: SweepConfig) -> Iterator[TrialSpec]:
    seen = set()
    for point in islice(config.grid(), config.budget):
        try:
            spec = config.spec(point)
        except ValueError:  # settings that contradict each other; the sweep tells such a point as failed
            continue
        if spec.key not in seen:
            seen.add(spec.key)
            yield spec


def _draws(config: SweepConfig) -> Iterator[TrialSpec]:
    """Trials at points drawn evenly from the space, always the same ones."""
    random = Random(0)
    for _ in range(_DRAWS):
        try:
            yield config.spec(config.draw(random))
        except ValueError:  # settings that contradict each other
            continue


def _told_keys(folder: Path) -> set[str]:
    from analysis.results.manifest import Manifest

    if not exists(folder / "manifest.json"):
        return set()
    return {key for trial in Manifest.read(folder).trials if not trial.free for key in trial.keys}


def check_inputs(config: SweepConfig) -> list[str]:
    """What should be known before the sweep starts, a line each.

    Raises InputError when a model, a source, a task or enough rows of a source cannot be had, or when a base cannot be trained
    as the config says. Reads data, no weights.
    """
    from trials.data.survey import Survey
    from trials.preflight import check
    from trials.tasks.tasks import Tasks

    hub = Hub(config.hub_mirror)
    notes = layout_notes(config, hub, layout.of)
    tasks, survey = Tasks(hub), Survey(hub)
    for _, spec in _corners(config, _ROW_PATHS):
        check(spec, hub, tasks, survey)
    return notes


def layout_notes(
    config: SweepConfig, hub: Hub, find: Callable[[Base, Hub], tuple[layout.Layout, layout.Tokens] | None]
) -> list[str]:
    """A line each on layers that stay in 16 bits or get no adapter. Bases that `find` does not find are left out.

    Raises InputError when a base cannot be trained as the config says.
    """
    notes: dict[str, None] = {}
    for _, spec in _corners(config, ("base.", "lora.target_modules", "lora.layers", "data.max_length")):
        if found := find(spec.base, hub):
            notes |= dict.fromkeys(layout.check(spec, found))
    return list(notes)


def _corners(config: SweepConfig, prefixes: tuple[str, ...]) -> Iterator[tuple[dict[str, Any], TrialSpec]]:
    """Trials at the extremes of the searched settings under `prefixes`, with these settings.

    Few trials, which between them need every base and task of the space, and the most rows of every source.
    """
    samples = config.space.get("data.samples")
    most = {"data.samples": max(samples.extremes())} if isinstance(samples, Categorical | Int) else {}
    seen = set()
    for settings in config.corners(prefixes, most):
        spec = config.spec(settings)
        if spec.key not in seen:
            seen.add(spec.key)
            yield settings, spec
