"""A sweep's folder read into one frame of trials: what was asked for, what came of it, and what is on the front."""

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pandas as pd
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from analysis import front
from analysis.metrics import (
    IDENTITY,
    Constraint,
    Estimate,
    Objective,
    metric_names,
    parse_constraint,
    split_metric,
    trial_metrics,
)
from trials.errors import InputError
from trials.record import Failure, Ledger, TrialRecord


class ManifestTrial(BaseModel):
    number: int
    key: str
    baseline: str
    params: dict[str, Any]


class ManifestObjective(BaseModel):
    metric: str
    direction: Literal["maximize", "minimize"]


class Manifest(BaseModel):
    """`manifest.json` as the orchestrator writes it; what it holds beside this is not read here."""

    model_config = ConfigDict(populate_by_name=True)

    schema_number: Literal[1] = Field(alias="schema")
    name: str
    objectives: list[ManifestObjective] = Field(min_length=1)
    constraints: list[str] = []
    space: list[str] = []
    trials: list[ManifestTrial] = []
    baselines: list[str] = []
    budget: int | None = None


@dataclass(frozen=True)
class Outcome:
    """What the ledger holds for one key: a record, a failure (its own, or why it cannot be read), or neither yet."""

    key: str
    record: TrialRecord | None
    failure: Failure | None
    documents: pd.DataFrame | None = None

    @property
    def state(self) -> str:
        if self.failure is not None:
            return "failed"
        return "pending" if self.record is None else "complete"


@dataclass(frozen=True)
class Sweep:
    """A sweep as it stands. Metric values are shares (0..1), under "ROLE.KIND" with the standard error under "ROLE.KIND_se"."""

    folder: Path
    name: str
    objectives: tuple[Objective, ...]
    constraints: tuple[Constraint, ...]
    space: tuple[str, ...]
    """Dotted paths that were searched, in the config's order."""
    budget: int | None
    config: str
    """The text of sweep.yaml; empty where there is none."""
    metrics: tuple[str, ...]
    """Names of all metrics that the trials have."""
    trials: pd.DataFrame
    """A row per trial by number: number, key, baseline, state (complete, failed, pending), the dotted paths, the metrics,
    paired (all its standard errors of differences are paired over documents), feasible (complete, and every constraint met),
    on_front, front_rank (-1: takes no part), seconds (all phases), failure (text, empty where there is none)."""
    baselines: pd.DataFrame
    """A row per baseline: key, state, trials (how many are measured against it), per role ROLE.value, ROLE.value_se and ROLE.n
    (documents), seconds, failure."""
    failures: pd.DataFrame
    """A row per failure: what ("trial 3", "baseline"), key, kind, message, traceback."""
    records: dict[str, TrialRecord]
    """By key: every record that could be read, baselines included."""
    hypervolume: float | None
    """Of the front from `reference`; None while there is no front."""
    reference: tuple[float, ...]
    """See front.reference_point; one number per objective."""

    @property
    def ledger(self) -> Ledger:
        return Ledger(self.folder.parent)

    @property
    def judged(self) -> tuple[str, ...]:
        """The metrics that decide: those of the objectives, then those of the constraints."""
        objectives = [objective.metric for objective in self.objectives]
        return tuple(dict.fromkeys([*objectives, *(constraint.metric for constraint in self.constraints)]))

    @property
    def front(self) -> pd.DataFrame:
        """The rows of `trials` on the front, the best in the first objective first."""
        rows = self.trials[self.trials["on_front"]]
        ascending = self.objectives[0].direction == "minimize"
        return rows.sort_values([self.objectives[0].metric, "number"], ascending=[ascending, True])


def load(folder: Path | str) -> Sweep:
    """Reads a sweep's folder and, once each, the records that it names from the ledger beside it."""
    folder = Path(folder)
    manifest = read_manifest(folder)
    objectives = tuple(Objective(entry.metric, entry.direction) for entry in manifest.objectives)
    constraints = tuple(parse_constraint(text) for text in manifest.constraints)
    for objective in objectives:
        split_metric(objective.metric)
    ledger = Ledger(folder.parent)
    asked = [trial.baseline for trial in manifest.trials]
    base = {key: _outcome(ledger, key) for key in dict.fromkeys([*manifest.baselines, *asked])}
    outcomes: dict[str, Outcome] = dict(base)
    estimates: dict[tuple[str, str], dict[str, Estimate | None]] = {}
    for trial in manifest.trials:
        pair = (trial.key, trial.baseline)
        if pair not in estimates:
            # a trial's documents are let go as soon as it is measured: a sweep's together need not fit in memory
            outcome = outcomes.get(trial.key) or _outcome(ledger, trial.key)
            outcomes[trial.key] = Outcome(outcome.key, outcome.record, outcome.failure)
            estimates[pair] = _measure(outcome, base[trial.baseline])
    records = {key: outcome.record for key, outcome in outcomes.items() if outcome.record is not None}
    roles = list(dict.fromkeys(role for record in records.values() for role in record.scores))
    named = [objective.metric for objective in objectives] + [constraint.metric for constraint in constraints]
    metrics = tuple(dict.fromkeys([*metric_names(roles), *named]))
    space = tuple(dict.fromkeys([*manifest.space, *(path for trial in manifest.trials for path in trial.params)]))
    trials = _trial_frame(manifest.trials, outcomes, estimates, space, metrics)
    reference = front.reference_point(objectives, constraints)
    volume = _judge(trials, objectives, constraints, reference)
    config = folder / "sweep.yaml"
    return Sweep(
        folder=folder,
        name=manifest.name,
        objectives=objectives,
        constraints=constraints,
        space=space,
        budget=manifest.budget,
        config=config.read_text(encoding="utf-8") if config.is_file() else "",
        metrics=metrics,
        trials=trials,
        baselines=_baseline_frame(base.values(), asked, roles),
        failures=_failure_frame(manifest.trials, outcomes, base.values()),
        records=records,
        hypervolume=volume,
        reference=tuple(reference.tolist()),
    )


def read_manifest(folder: Path) -> Manifest:
    """`folder/manifest.json`, or an InputError of one line."""
    path = folder / "manifest.json"
    if not folder.is_dir():
        raise InputError(f"{folder}: there is no such folder; name a sweep's folder, STORAGE/SWEEP")
    try:
        return Manifest.model_validate_json(path.read_bytes())
    except FileNotFoundError:
        inside = sorted(found.parent.name for found in folder.glob("*/manifest.json"))
        hint = f"; the sweeps in it are {', '.join(inside[:8])}" if inside else "; name a sweep's folder, STORAGE/SWEEP"
        raise InputError(f"{folder}: no sweep, it holds no manifest.json{hint}") from None
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        where = ".".join(str(part) for part in first["loc"])
        reason = " ".join(f"{where}: {first['msg']}".removeprefix(": ").split())
        raise InputError(f"{path}: not a whole manifest ({reason[:160]}); running the sweep again rewrites it") from None


def _outcome(ledger: Ledger, key: str) -> Outcome:
    try:
        record = ledger.read(key)
    except InputError as error:
        return Outcome(key, None, Failure(kind="UnreadableRecord", message=str(error), traceback=""))
    if record is None:
        return Outcome(key, None, None)
    if record.state == "failed":
        return Outcome(key, record, record.failure or Failure(kind="Failure", message="it left no reason", traceback=""))
    try:
        documents = ledger.documents(key, ["role", *IDENTITY, "score"])
    except (OSError, ValueError, KeyError):  # not there or not whole: standard errors are then unpaired, and the frame says so
        documents = None
    return Outcome(key, record, None, documents)


def _measure(trial: Outcome, base: Outcome) -> dict[str, Estimate | None]:
    if trial.state != "complete" or trial.record is None:
        return {}
    base_scores = base.record.scores if base.state == "complete" and base.record is not None else None
    return trial_metrics(trial.record.scores, base_scores, trial.documents, base.documents)


def _trial_frame(
    asked: Sequence[ManifestTrial],
    outcomes: dict[str, Outcome],
    estimates: dict[tuple[str, str], dict[str, Estimate | None]],
    space: Sequence[str],
    metrics: Sequence[str],
) -> pd.DataFrame:
    """The frame `Sweep.trials` without what `_judge` adds."""
    asked = sorted(asked, key=lambda trial: trial.number)
    found = [estimates[trial.key, trial.baseline] for trial in asked]
    states = [outcomes[trial.key].state for trial in asked]
    columns: dict[str, Any] = {
        "number": pd.Series([trial.number for trial in asked], dtype=int),
        "key": [trial.key for trial in asked],
        "baseline": [trial.baseline for trial in asked],
        "state": pd.Series(states, dtype=object),
    }
    for path in space:
        columns[path] = pd.Series([trial.params.get(path) for trial in asked], dtype=object).infer_objects()
    for name in metrics:
        values = [estimate.get(name) for estimate in found]
        columns[name] = pd.Series([np.nan if one is None else one.value for one in values], dtype=float)
        errors = [np.nan if one is None or one.stderr is None else one.stderr for one in values]
        columns[f"{name}_se"] = pd.Series(errors, dtype=float)
    columns["paired"] = pd.Series([_is_paired(estimate) for estimate in found], dtype=bool)
    columns["seconds"] = pd.Series([_seconds(outcomes[trial.key]) for trial in asked], dtype=float)
    columns["failure"] = pd.Series([_failure_text(outcomes[trial.key]) for trial in asked], dtype=object)
    return pd.DataFrame(columns)


def _judge(
    trials: pd.DataFrame, objectives: Sequence[Objective], constraints: Sequence[Constraint], reference: np.ndarray
) -> float | None:
    """Adds feasible, on_front and front_rank to `trials`; returns the front's hypervolume."""
    feasible = (trials["state"] == "complete").to_numpy(dtype=bool)
    for constraint in constraints:
        feasible = feasible & np.array([constraint.violation(value) <= 0 for value in trials[constraint.metric]], dtype=bool)
    points = front.orient(trials[[objective.metric for objective in objectives]].to_numpy(dtype=float), objectives)
    trials["feasible"] = feasible
    trials["front_rank"] = front.ranks(points, feasible)
    trials["on_front"] = trials["front_rank"] == 0
    on_front = trials["on_front"].to_numpy(dtype=bool)
    return front.hypervolume(points[on_front], front.orient(reference, objectives)) if on_front.any() else None


def _baseline_frame(base: Iterable[Outcome], asked: Sequence[str], roles: Sequence[str]) -> pd.DataFrame:
    rows = []
    counts = Counter(asked)
    for outcome in base:
        row: dict[str, Any] = {"key": outcome.key, "state": outcome.state, "trials": counts[outcome.key]}
        scores = outcome.record.scores if outcome.record is not None else {}
        for role in roles:
            score = scores.get(role)
            row[f"{role}.value"] = score.value if score else np.nan
            row[f"{role}.value_se"] = score.stderr if score else np.nan
            row[f"{role}.n"] = score.n if score else 0
        rows.append(row | {"seconds": _seconds(outcome), "failure": _failure_text(outcome)})
    return pd.DataFrame(rows, columns=None if rows else ["key", "state", "trials", "seconds", "failure"])


def _failure_frame(asked: Sequence[ManifestTrial], outcomes: dict[str, Outcome], base: Iterable[Outcome]) -> pd.DataFrame:
    failed = [("baseline", outcome) for outcome in base] + [(f"trial {one.number}", outcomes[one.key]) for one in asked]
    rows = [
        {
            "what": what,
            "key": one.key,
            "kind": one.failure.kind,
            "message": one.failure.message,
            "traceback": one.failure.traceback,
        }
        for what, one in failed
        if one.failure is not None
    ]
    return pd.DataFrame(rows, columns=["what", "key", "kind", "message", "traceback"])


def _is_paired(estimates: dict[str, Estimate | None]) -> bool:
    gains = [estimate for name, estimate in estimates.items() if name.endswith(".gain")]
    return bool(gains) and all(gain is not None and gain.paired for gain in gains)


def _seconds(outcome: Outcome) -> float:
    return float(sum(outcome.record.seconds.values())) if outcome.record is not None else np.nan


def _failure_text(outcome: Outcome) -> str:
    return f"{outcome.failure.kind}: {outcome.failure.message}" if outcome.failure is not None else ""
