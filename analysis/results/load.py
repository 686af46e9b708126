"""Reads a sweep's folder and the records that it names, and judges them."""

import gc
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pandas as pd

from analysis.formatting import labels
from analysis.metrics.definitions import JOINT_KINDS, PAIRED_KINDS
from analysis.metrics.names import Criteria, metric_names, split_metric
from analysis.results import schema as col
from analysis.results.frame import add_front, add_judgement, baseline_frame, failure_frame, trial_frame
from analysis.results.manifest import Manifest, sweeps_in
from analysis.results.outcomes import KeyOutcome, TrialOutcome
from analysis.results.sweep import Sweep
from analysis.stats import pareto
from analysis.stats.bootstrap import Errors, draws_for
from analysis.stats.estimate import Measured, Setting, Watch, empty, measure_all, measure_joint
from analysis.stats.posterior import Judgement, judge
from analysis.stats.untrained import Untrained, untrained, untrained_values, worst_scores
from trials.ledger.outcomes import ALL, REPORT, SEARCH, Split
from trials.ledger.record import Ledger
from trials.ledger.storage import NotAFile, is_folder, read_bytes, root


def load(folder: Path | str) -> Sweep:
    """Reads a sweep's folder and, once each, the records that it names from the ledger beside it."""
    with _no_collection():
        return _load(root(folder))


def _load(folder: Path) -> Sweep:
    manifest = Manifest.read(folder)
    criteria, ledger = manifest.criteria, Ledger(folder.parent)
    keys = dict.fromkeys([*manifest.baseline_keys, *(key for trial in manifest.trials for key in trial.keys)])
    outcomes = {key: KeyOutcome.read(ledger, key) for key in keys}  # once a key: several trials may share it
    baselines = [outcomes[key] for key in manifest.baseline_keys]
    trials = [
        TrialOutcome(trial, tuple(outcomes[key] for key in trial.keys))
        for trial in sorted(manifest.trials, key=lambda trial: trial.number)
    ]
    halves = manifest.documents == "half"
    quoted: Split = REPORT if halves else ALL
    searched: Split = SEARCH if halves else ALL
    settings = [
        Setting(one.records, outcomes[one.trial.baseline].complete if one.trial.baseline is not None else None)
        for one in trials
    ]
    # the draws are collected in the same pass over the outcomes that measures, for unpacking them takes most of the time
    draws = draws_for(len(settings))
    errors = Errors(len(settings), criteria.metrics, draws, " ".join(key for one in trials for key in one.trial.keys))
    whole, measured, seen = _measured(settings, criteria.metrics, halves, errors.add)
    records = {key: outcome.record for key, outcome in outcomes.items() if outcome.record is not None}
    labels.learn_scales(records.values())
    roles = list(dict.fromkeys(role for record in records.values() for role in record.scores))
    metrics = tuple(dict.fromkeys([*metric_names(roles), *measured, *criteria.metrics]))
    untuned = worst_scores((one.complete, searched) for one in baselines if one.complete is not None)
    reference = pareto.reference_point(criteria.objectives, criteria.constraints, untuned)
    frame = trial_frame(trials, manifest.paths, metrics, measured, seen)
    points = _points(baselines, criteria.metrics, quoted, searched)
    base_frame = baseline_frame(baselines, Counter(frame["baseline"]), roles, quoted, points)
    add_front(frame, base_frame, criteria)
    noise = errors.draws(settings, whole, ALL)
    bases = untrained([one.complete for one in baselines], criteria.metrics, ALL, draws)
    judgement = _judge(frame["key"], whole, noise, criteria, bases)
    add_judgement(frame, criteria, judgement, noise, whole)
    base_frame["p_front"] = judgement.p_untrained
    return Sweep(
        folder=folder,
        name=manifest.name,
        objectives=criteria.objectives,
        constraints=criteria.constraints,
        space=manifest.paths,
        budget=manifest.budget,
        config=_config(folder),
        metrics=metrics,
        half=REPORT if halves else None,
        trials=frame,
        baselines=base_frame,
        failures=failure_frame(baselines, trials),
        records=records,
        reference=tuple(reference.tolist()),
        draws=judgement.draws,
        base_draws=bases.draws,
    )


def _measured(
    settings: Sequence[Setting], wanted: Sequence[str], halves: bool, watch: Watch
) -> tuple[dict[str, Measured], dict[str, Measured], dict[str, Measured]]:
    """The metrics on all documents (with `halves` the `wanted` ones alone), on those that are quoted, and on those that the
    search saw, these without errors."""
    if not halves:
        whole = measure_all(settings, watch=watch) | measure_joint(settings, wanted, watch=watch)
        return whole, whole, whole
    whole = measure_all(settings, watch=watch, only=wanted)
    quoted = measure_all(settings, REPORT) | measure_joint(settings, wanted, REPORT)
    seen = measure_all(settings, SEARCH, errors=False)
    if paired := [name for name in wanted if split_metric(name)[1] in (*PAIRED_KINDS, *JOINT_KINDS)]:
        seen |= measure_all(settings, SEARCH, errors=False, only=paired)
    return whole, quoted, seen


def trials(*folders: Path | str) -> pd.DataFrame:
    """`Sweep.trials` of several sweeps below each other, with each sweep's name in the column "sweep", its folder in "folder".

    A folder is a sweep's, or a storage root, which stands for all sweeps in it.
    """
    found = []
    for one in folders:
        place = root(one)
        inside = sweeps_in(place) if is_folder(place) else []
        for folder in [place / name for name in inside] or [place]:
            sweep = load(folder)
            frame = sweep.trials.copy()
            frame.insert(0, "sweep", sweep.name)
            frame.insert(1, "folder", str(folder))
            found.append(frame)
    return pd.concat(found, ignore_index=True) if found else pd.DataFrame()


def _judge(
    keys: pd.Series, measured: Mapping[str, Measured], noise: np.ndarray, criteria: Criteria, bases: Untrained
) -> Judgement:
    found = [measured.get(name, empty(len(keys))) for name in criteria.metrics]
    # a metric without a standard error (what was learnt, from one seed) gives no probability
    values = np.column_stack([np.where(np.isnan(one.stderr), np.nan, one.value) for one in found])
    # two trials of one key are one point
    _, first, own = np.unique(keys.to_numpy(dtype=str), return_index=True, return_inverse=True)
    return judge(values[first], noise[:, first], criteria, bases).of(own)


def _points(baselines: Sequence[KeyOutcome], names: Sequence[str], quoted: Split, searched: Split) -> dict[str, np.ndarray]:
    """The columns of the baselines' frame that make the bases points beside the trials."""
    records = [one.complete for one in baselines]
    columns: dict[str, np.ndarray] = {}
    for split, column in ((quoted, str), (searched, col.searched)):
        columns |= {column(name): values for name, values in zip(names, untrained_values(records, names, split).T, strict=True)}
    return columns


def _config(folder: Path) -> str:
    try:
        return read_bytes(folder / "sweep.yaml").decode("utf-8", "replace")
    except (FileNotFoundError, NotAFile):
        return ""


@contextmanager
def _no_collection() -> Iterator[None]:
    """Pauses the garbage collector: no new record is garbage, and scanning thousands takes longer than reading them."""
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if enabled:
            if not gc.get_freeze_count():  # nobody else's: frozen and thawed, the new ones count as scanned
                gc.freeze()
                gc.unfreeze()
            gc.enable()
