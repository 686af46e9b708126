"""What a sweep would run, before it does: trials, what the ledger holds of them, time; and whether all of it can be had."""

from collections.abc import Iterator
from contextlib import suppress
from dataclasses import asdict, dataclass
from itertools import product
from pathlib import Path
from typing import Any

from orchestrator.config import SweepConfig
from trials.record import Ledger
from trials.spec import TrialSpec


@dataclass(frozen=True)
class Plan:
    name: str
    trials: int
    """Baselines not counted."""
    baselines: int
    trials_done: int
    """Points of a grid, or trials that the sweep has told, whose records are complete."""
    baselines_done: int
    points: int | None
    """Size of the grid; None where the sampler chooses."""
    seconds_per_trial: float | None
    """Mean of the ledger's complete trials on the same bases; None where it has none."""
    hours: float | None
    """Of one worker, for what is left to run."""

    def as_dict(self) -> dict[str, Any]:
        return asdict(self)


def plan(config: SweepConfig, storage: Path) -> Plan:
    ledger = Ledger(storage)
    baselines = config.baseline_specs()
    done = {key for key in ledger if ledger.complete(key) is not None}
    asked = _grid_keys(config) if config.search.sampler == "grid" else _told_keys(storage / config.name)
    seconds = _seconds(ledger, done, config)
    left = config.budget - min(len(asked & done), config.budget)
    missing = sum(spec.key not in done for spec in baselines)
    return Plan(
        name=config.name,
        trials=config.budget,
        baselines=len(baselines),
        trials_done=len(asked & done),
        baselines_done=len(baselines) - missing,
        points=len(asked) if config.search.sampler == "grid" else None,
        seconds_per_trial=seconds,
        hours=(left + missing) * seconds / 3600 if seconds is not None else None,
    )


def _grid_keys(config: SweepConfig) -> set[str]:
    keys = set()
    for _, point in zip(range(config.budget), config.grid(), strict=False):
        with suppress(ValueError):  # settings that contradict each other; the sweep tells such a point as failed
            keys.add(config.spec(point).key)
    return keys


def _told_keys(folder: Path) -> set[str]:
    from analysis.load import read_manifest

    if not (folder / "manifest.json").exists():
        return set()
    return {trial.key for trial in read_manifest(folder).trials}


def _seconds(ledger: Ledger, done: set[str], config: SweepConfig) -> float | None:
    bases = {spec.base for spec in config.baseline_specs()}
    took = []
    for key in done:
        record = ledger.complete(key)
        if record is not None and record.spec.base in bases and not record.spec.is_baseline:
            took.append(sum(record.seconds.values()))
    return sum(took) / len(took) if took else None


def check_inputs(config: SweepConfig) -> None:
    """Raises InputError when a model, a source, a task or enough rows of a source cannot be had. Reads data, no weights."""
    from trials.evaluate import Tasks
    from trials.hub import Hub
    from trials.trial import check

    hub = Hub(config.hub_mirror)
    tasks = Tasks(hub)
    for spec in _corners(config):
        check(spec, hub, tasks)


def _corners(config: SweepConfig) -> Iterator[TrialSpec]:
    """Few trials that between them need every base and task of the space, and the most rows of every source."""
    varied: dict[str, tuple[Any, ...]] = {}
    for path, parameter in config.space.items():
        if path == "data.samples":
            varied[path] = (max(parameter.extremes()),)
        elif path.startswith(("data.mix.", "base.", "eval.")):
            varied[path] = parameter.extremes()
    seen = set()
    for values in product(*varied.values()):
        spec = config.spec(dict(zip(varied, values, strict=True)))
        if spec.key not in seen:
            seen.add(spec.key)
            yield spec
