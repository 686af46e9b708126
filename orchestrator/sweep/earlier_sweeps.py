"""What the storage holds of other sweeps, for the sampler of a new one.

A trial of another sweep helps where its searched settings are a point of the new sweep's space and it measures the new sweep's
objectives and constraints on the same tasks. Its other settings may differ: then the sampler trusts it as far as the two agree.
"""

import json
import math
from collections import Counter
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from analysis.metrics.names import roles_of
from analysis.results.manifest import Manifest, ManifestTrial, sweeps_in
from analysis.stats.estimate import measure
from orchestrator.config.model import SweepConfig
from orchestrator.search.design import own_settings
from orchestrator.search.earlier import EarlierTrial
from trials.errors import InputError
from trials.ledger.outcomes import ALL, SEARCH, Split
from trials.ledger.record import Ledger, TrialRecord
from trials.spec import TrialSpec

_READ = 400  # records, each of which takes some hundredths of a second
_MOST = 100  # trials that the sampler gets; the time of a proposal grows with them
_FEWEST = 4  # trials of a context, of which fewer show nothing of how it compares
_SEEDS = ("data.seed", "train.seed")


def earlier_trials(config: SweepConfig, storage: Path) -> list[EarlierTrial]:
    """Trials of the storage's other sweeps, the closest first. Empty for a sampler that learns nothing from them."""
    if config.sampler != "gp" or not config.search.warm_start:
        return []
    found = list(_usable(config, storage))
    counts = Counter(_name(one.context) for one in found)
    kept = [one for one in found if not one.context or counts[_name(one.context)] >= _FEWEST]
    return sorted(kept, key=lambda one: (len(one.context), _name(one.context)))[:_MOST]


def summary(trials: list[EarlierTrial]) -> str:
    """One line on what a sweep begins with; empty for nothing."""
    parts = []
    for context in dict.fromkeys(_name(one.context) for one in trials):
        own = [one for one in trials if _name(one.context) == context]
        differs = ", ".join(own[0].context)
        parts.append(f"{len(own)} with {f'another {differs}' if differs else 'the same settings'}")
    return f"the search begins with {len(trials)} trials of other sweeps: {'; '.join(parts)}" if parts else ""


def _name(context: Mapping[str, Any]) -> str:
    return json.dumps(context, sort_keys=True)


def _usable(config: SweepConfig, storage: Path) -> Iterator[EarlierTrial]:
    ledger, bases = Ledger(storage), dict[str, TrialRecord | None]()
    for trial in _proposed(config, storage)[:_READ]:
        assert trial.key is not None and trial.baseline is not None
        if trial.baseline not in bases:
            bases[trial.baseline] = _complete(ledger, trial.baseline)
        record, base = _complete(ledger, trial.key), bases[trial.baseline]
        if record is not None and base is not None and (usable := _usable_trial(config, record, base)) is not None:
            yield usable


def _proposed(config: SweepConfig, storage: Path) -> list[ManifestTrial]:
    """Trials of the other sweeps, each key once, those on one of the config's baselines first."""
    own = {spec.key for spec in config.baseline_specs()}
    found: dict[str, ManifestTrial] = {}
    for name in sweeps_in(storage):
        if name == config.name:
            continue
        try:
            manifest = Manifest.read(storage / name)
        except InputError:  # a damaged manifest is reported where its own sweep is read
            continue
        if not manifest.imported:
            found |= {trial.key: trial for trial in manifest.trials if trial.key is not None and trial.given_up is None}
    return sorted(found.values(), key=lambda trial: trial.baseline not in own)


def _complete(ledger: Ledger, key: str) -> TrialRecord | None:
    try:
        return ledger.complete(key)
    except InputError:  # a damaged record is set aside by its own sweep
        return None


def _usable_trial(config: SweepConfig, record: TrialRecord, base: TrialRecord) -> EarlierTrial | None:
    settings = own_settings(config, record.spec)
    try:
        same = config.spec(settings)
    except ValueError:  # settings that are missing, or contradict this config's others
        return None
    if not settings.keys() >= {path for axis in config.axes if axis.active(settings) for path in axis.paths}:
        return None
    context = _context(config, same, record.spec)
    if context is None:
        return None
    split: Split = SEARCH if config.search.documents == "half" else ALL
    found = measure([record], base, split, also=config.criteria.metrics)
    known = {name: one for name in config.criteria.metrics if (one := found.get(name)) is not None and math.isfinite(one.value)}
    if len(known) < len(config.criteria.metrics):
        return None
    return EarlierTrial(
        key=record.key,
        settings=settings,
        context=context,
        values=tuple(known[objective.metric].value for objective in config.search.objectives),
        violations={str(one): one.violation(known[one.metric].value) for one in config.criteria.constraints},
        errors={name: one.stderr for name, one in known.items() if one.stderr is not None},
    )


def _context(config: SweepConfig, same: TrialSpec, other: TrialSpec) -> dict[str, Any] | None:
    """The other trial's settings that differ and are not searched; None where its benchmarks are other tasks."""
    roles = set(roles_of(config.criteria.metrics))
    for role in roles:
        here, there = same.eval[role], other.eval.get(role)
        if there is None or (here.tasks, here.metric) != (there.tasks, there.metric):
            return None
    own, its = (dict(_flat(_relevant(spec, roles))) for spec in (same, other))
    paths = sorted(path for path in {*own, *its} if own.get(path) != its.get(path) and path not in _SEEDS)
    return {path: its.get(path) for path in paths}


def _relevant(spec: TrialSpec, roles: set[str]) -> dict[str, Any]:
    parts = spec.canonical()
    return parts | {"eval": {role: parts["eval"][role] for role in roles}}


def _flat(parts: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for name, value in parts.items():
        if isinstance(value, Mapping) and value:
            yield from _flat(value, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}", value
