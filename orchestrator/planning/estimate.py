"""Seconds, memory and disk of a config's trials on one kind of machine.

A phase's seconds come from records of the same base on the same hardware, and are counted (cost.py) without such records.
"""

import os
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from orchestrator import gpu_catalog
from orchestrator.config.model import SweepConfig
from orchestrator.planning import cost
from orchestrator.planning.benchmark_lengths import Lengths, unknown_tasks
from orchestrator.planning.cost import GIB, Machine
from orchestrator.planning.model_shape import Shape, read_shape, shape_of
from orchestrator.planning.row_lengths import CHARACTERS, RowLengths, counter, local_tokenizer
from orchestrator.planning.space_points import corners, draws
from orchestrator.planning.task_lengths import own_lengths
from orchestrator.planning.timings import Measured
from trials.errors import InputError
from trials.hub.hub import Hub
from trials.ledger.record import TrialRecord
from trials.spec import Base, Evaluation, TrialSpec
from trials.tasks.tasks import Tasks

_ROW_TOKENS = 210  # of an Alpaca or GSM8K training row under the Alpaca template, mean (SmolLM2's tokenizer)
_MEMORY_PATHS = ("base.", "lora.", "train.micro_batch_size", "train.batch_size", "data.max_length", "eval.")


@dataclass(frozen=True)
class Phase:
    seconds: float
    basis: str
    """measured, counted, or both if the trials' bases differ."""


@dataclass(frozen=True)
class Memory:
    """Bytes on the device at the peak of the largest trial of the space."""

    parts: dict[str, float]
    total: float
    available: float | None
    """A trial's part of the GPU; None without a known GPU."""
    fits: bool | None
    settings: dict[str, Any]
    """Searched settings of that trial."""


class Estimate:
    """Seconds, memory and disk of this config's trials on one kind of machine."""

    def __init__(
        self, config: SweepConfig, records: Iterable[TrialRecord], gpu: str | None, shapes: Mapping[str, dict[str, Any]]
    ):
        self.config, self.hub = config, Hub(config.hub_mirror)
        named = gpu_catalog.find(gpu).name if gpu else gpu_catalog.local()
        self.gpu = named if config.resources.gpus_per_trial else None
        self.kind = gpu_catalog.lookup(self.gpu) if self.gpu else None
        self._measured, self._rows = Measured(records, self.gpu), RowLengths(self.hub)
        self.tasks = Tasks(self.hub)
        self._sizes: dict[tuple[str, str], list[Lengths] | None] = {}
        self._notes: dict[str, None] = {}  # in order, each once
        self._load = os.getloadavg()[0]  # it changes while phases are counted
        self._bases = list(dict.fromkeys(spec.base for spec in config.baseline_specs()))
        self._shapes = {base: shape for base in self._bases if (shape := self._shape(base, shapes.get(base.model)))}

    def _shape(self, base: Base, known: dict[str, Any] | None) -> Shape | None:
        try:
            return shape_of(base.model, known) if known else read_shape(base, self.hub)
        except InputError as error:
            self.note(f"nothing can be counted for this base: {error}")
            return None

    def note(self, text: str) -> None:
        self._notes[text] = None

    @cached_property
    def machine(self) -> Machine | None:
        """None for a GPU that the catalog lacks."""
        if self.gpu is None:
            return Machine.here(self.config.resources.cpus_per_trial)
        return Machine.of(self.kind) if self.kind is not None else None

    def seconds(self, spec: TrialSpec) -> dict[str, Phase] | None:
        """By phase; None if a phase is neither measured nor countable."""
        phases = {phase: Phase(seconds, "measured") for phase, seconds in self._measured.seconds(spec).items()}
        # records of this base without a drift are of points that had none
        trained = [] if spec.is_baseline else ["train"] if "train" in phases else ["train", "drift"]
        for phase in [*trained, *(f"evaluate.{role}" for role in spec.eval)]:
            if phase not in phases:
                shape = self._shapes.get(spec.base)
                if shape is None or self.machine is None:
                    return None
                phases[phase] = Phase(self._counted(phase, shape, spec, self.machine), "counted")
        return phases

    def _counted(self, phase: str, shape: Shape, spec: TrialSpec, machine: Machine) -> float:
        if self.kind is not None:
            how = f"{self.kind.utilization:.0%} of the {self.kind.tflops:g} TFLOP/s of {self.kind.name}"
        else:
            how = f"{machine.rate / 1e9:.0f} GFLOP/s, {cost.CPU_SHARE:.0%} of this machine's rate in a matrix product"
            if self._load > 1:
                self.note(
                    f"seconds are counted for free cores; {self._load:.1f} processes want this machine's {os.cpu_count()} now"
                )
        launch = f"{cost.LAUNCH * 1e6:.0f} µs an operation"
        self.note(f"counted, not measured: {how}, {launch}, typical lengths; right to a factor of a few")
        if phase == "train":
            return cost.train_seconds(shape, spec, self._row_tokens(spec), machine)
        if phase == "drift":
            return cost.drift_seconds(shape, spec, self._row_tokens(spec), machine)
        evaluation = spec.eval[phase.removeprefix("evaluate.")]
        sizes = self._own_lengths(evaluation, spec.base)
        for task in unknown_tasks(evaluation) if sizes is None else ():
            self.note(f"task {task}: unknown lengths, taken to be those of a typical benchmark with its metric")
        return cost.evaluate_seconds(shape, evaluation, spec.base, machine, sizes)

    def _own_lengths(self, evaluation: Evaluation, base: Base) -> list[Lengths] | None:
        known = evaluation.model_dump_json(), base.model
        if known not in self._sizes:
            count = counter(base, self.hub)
            self._sizes[known] = own_lengths(evaluation, self.tasks, lambda text: len(count(text)["input_ids"]))
        if self._sizes[known] is not None:
            self.note(f"task {'+'.join(evaluation.tasks)}: lengths of its documents; a response is as long as it may be")
            self._note_counter(base)
        return self._sizes[known]

    def _note_counter(self, base: Base) -> None:
        if local_tokenizer(base, self.hub) is None:
            self.note(f"no tokenizer of {base.model} here: a token is taken for {CHARACTERS} characters")

    def _row_tokens(self, spec: TrialSpec) -> float:
        if (mean := self._rows.mean(spec)) is not None:
            self._note_counter(spec.base)
            return mean
        self.note(f"no local training rows to count: {_ROW_TOKENS} tokens a row are assumed")
        return min(_ROW_TOKENS, spec.data.max_length)

    def whole(self, spec: TrialSpec) -> dict[str, float] | None:
        """Seconds by phase, with the evaluations of derived points."""
        phases = self.seconds(spec)
        if phases is None:
            return None
        derive = self.config.derive
        again = len(derive.points()[1:]) if not spec.is_baseline and derive.applies(spec) else 0
        return {name: phase.seconds * (1 + again * name.startswith("evaluate.")) for name, phase in phases.items()}

    def by_phase(self) -> dict[bool, dict[str, float]]:
        """Mean seconds by phase of a baseline (True) and of a trial of the space (False); empty where one is unknown."""
        found = {}
        for baseline, specs in ((True, self.config.baseline_specs()), (False, list(draws(self.config)))):
            wholes = [whole for spec in specs if (whole := self.whole(spec)) is not None]
            known = wholes if len(wholes) == len(specs) else []
            found[baseline] = {phase: sum(one.get(phase, 0.0) for one in known) / len(known) for phase in (known or [{}])[0]}
        return found

    def totals(self, specs: Sequence[TrialSpec]) -> list[float] | None:
        """Seconds of each trial in all phases; None if one is unknown."""
        found = [sum(phases.values()) for spec in specs if (phases := self.whole(spec)) is not None]
        return found if len(found) == len(specs) else None

    def mean(self, specs: Sequence[TrialSpec]) -> float | None:
        totals = self.totals(specs)
        return sum(totals) / len(totals) if totals else None

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
        """Memory of the corner of the space that needs most; None if no base can be counted."""
        counted = [
            (cost.memory(self._shapes[spec.base], spec), settings)
            for settings, spec in corners(self.config, _MEMORY_PATHS)
            if spec.base in self._shapes
        ]
        if not counted:
            return None
        parts, settings = max(counted, key=lambda one: cost.peak(one[0]))
        total, available = cost.peak(parts), None
        if self.kind is not None:
            available = self.kind.memory * GIB * cost.FILLED * min(self.config.resources.gpus_per_trial, 1.0)
        return Memory(parts, total, available, None if available is None else total <= available, settings)

    def disk(self, specs: list[TrialSpec], runs: int | None) -> float | None:
        sizes = [cost.disk_bytes(self._shapes[spec.base], spec) for spec in specs if spec.base in self._shapes]
        return runs * sum(sizes) / len(sizes) if sizes and runs is not None else None

    def notes(self) -> list[str]:
        if others := self._measured.left_out(self._bases):
            kinds = ", ".join(sorted(set(others)))
            self.note(f"records of these bases on other hardware are left out: {len(others)} ({kinds})")
        if self.gpu and self.kind is None:
            self.note(f"{self.gpu} is not in the GPU catalog, so nothing is counted for it; --gpu names a kind that is")
        if self.gpu and self.config.resources.gpus_per_trial < 1:
            self.note("trials that share a GPU slow each other down; seconds are counted for a trial alone")
        return list(self._notes)
