"""A sweep's folder read into one frame of trials: what was asked for, what came of it, and what is on the front."""

import gc
import math
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
import pandas as pd
import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator

from analysis.metrics.names import LEARNING, Constraint, Objective, metric_names, parse_constraint, split_metric
from analysis.stats import pareto
from analysis.stats.bootstrap import Errors
from analysis.stats.estimate import Measured, Setting, empty, measure_all, scores
from analysis.stats.intervals import LEVEL
from analysis.stats.paired_outcomes import ALL
from analysis.stats.posterior import judge
from trials.errors import InputError
from trials.ledger.record import Failure, Key, Ledger, TrialRecord
from trials.ledger.storage import NotAFile, folders_with, is_folder, read_bytes, root
from trials.printable import one_line

_SEARCHED, _REPORTED = "search", "report"


Text = Annotated[str, Field(pattern=r"^[^\x00]*$")]


def _is_setting(value: Any) -> bool:
    if isinstance(value, list):
        return not any(isinstance(one, list) for one in value) and all(map(_is_setting, value))
    if isinstance(value, str):
        return "\0" not in value
    if isinstance(value, int):
        return abs(value) < 2**63
    return value is None or (isinstance(value, float) and math.isfinite(value))


class GivenUp(BaseModel):
    """A trial that was not waited for: the front beat it while it was evaluated."""

    reason: str
    seconds: float = Field(ge=0, allow_inf_nan=False)
    """What its worker was at it."""


class ManifestTrial(BaseModel):
    """A trial that was asked for: one key, or one a replicate (the first is `key`), or none and why there can be none."""

    number: int = Field(ge=0, lt=2**31)
    key: Key | None = None
    keys: list[Key] = []
    baseline: Key | None = None
    params: dict[Text, Any]
    failure: str | None = None
    free: bool = False
    """Derived from the training of another trial, so that the budget does not count it."""
    given_up: GivenUp | None = None

    @model_validator(mode="after")
    def _complete(self) -> "ManifestTrial":
        if self.key is None and self.failure is None:
            raise ValueError("a trial has a key, or a failure that says why not")
        if self.key is not None and self.baseline is None:
            raise ValueError("a trial with a key has a baseline")
        self.keys = self.keys or ([self.key] if self.key is not None else [])
        if self.key is not None and self.keys[0] != self.key:
            raise ValueError("a trial's key is the first of its keys")
        for path, value in self.params.items():
            if not _is_setting(value):
                raise ValueError(f"{path}: a setting is a number, a text, yes or no, or a list of these")
        return self


class Manifest(BaseModel):
    """`manifest.json` as the orchestrator writes it; what it holds beside this is not read here."""

    model_config = ConfigDict(populate_by_name=True)

    schema_number: Literal[1] = Field(alias="schema")
    name: str
    objectives: list[Objective] = Field(min_length=1)
    constraints: list[str] = []
    space: list[Text] = []
    trials: list[ManifestTrial] = []
    baselines: list[Key] = []
    budget: int | None = Field(default=None, ge=0, lt=2**63)
    documents: Literal["half", "all"] = "all"
    """Which the search saw. With `half` the trials' metrics are told on the other half."""
    spent: list[Annotated[float, Field(ge=0, allow_inf_nan=False)]] = []
    """GPU-seconds, and seconds that commands of the sweep have run."""

    @field_validator("name")
    @classmethod
    def _stays_in_its_folder(cls, name: str) -> str:
        if not name or "\0" in name or name.startswith("/") or ".." in name.split("/"):
            raise ValueError("a name is the name of a folder")
        return name

    @model_validator(mode="after")
    def _nothing_twice(self) -> "Manifest":
        if len(self.spent) not in (0, 2):
            raise ValueError("spent is GPU-seconds and seconds")
        for what, named in (
            ("trial", [trial.number for trial in self.trials]),
            ("objective", [objective.metric for objective in self.objectives]),
            ("path", self.space),
        ):
            if twice := [one for one, count in Counter(named).items() if count > 1]:
                raise ValueError(f"{what} {twice[0]} stands there twice")
        return self


@dataclass(frozen=True)
class Outcome:
    """What the ledger holds for one key: a record, a failure (its own, or why it cannot be read), or neither yet."""

    key: str
    record: TrialRecord | None
    failure: Failure | None

    @property
    def state(self) -> str:
        if self.failure is not None:
            return "failed"
        return "pending" if self.record is None else "complete"


@dataclass(frozen=True)
class Asked:
    """A trial of the manifest and what came of it: an outcome a replicate; none where the point was no valid trial."""

    trial: ManifestTrial
    outcomes: tuple[Outcome, ...]

    @property
    def state(self) -> str:
        """Complete when all replicates are, failed as soon as one has."""
        states = {outcome.state for outcome in self.outcomes} or {"failed"}
        if self.trial.given_up is not None and "complete" not in states:  # whatever an earlier attempt failed with
            return "given up"
        return next(state for state in ("failed", "pending", "complete") if state in states)

    @property
    def seconds(self) -> float:
        """Of all phases and replicates; NaN where nothing has ended."""
        given_up = self.trial.given_up
        return given_up.seconds if given_up is not None and self.state == "given up" else _seconds(self.outcomes)

    @property
    def failures(self) -> list[tuple[str, str, Failure]]:
        """(what, key, failure) of each replicate that failed; the key is empty for a point that is no valid trial."""
        what = f"trial {self.trial.number}"
        if self.state == "given up":
            return []
        if not self.outcomes:
            return [(what, "", Failure(kind="InvalidPoint", message=self.trial.failure or "", traceback=""))]
        several = len(self.outcomes) > 1
        named = ((f"{what}, replicate {place}" if several else what, one) for place, one in enumerate(self.outcomes, 1))
        return [(name, one.key, one.failure) for name, one in named if one.failure is not None]


@dataclass(frozen=True)
class Sweep:
    """A sweep as it stands. Metric values are shares (0..1), under "ROLE.KIND", standard errors under "ROLE.KIND_se"."""

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
    half: str | None
    """Which half of the documents the metrics are told on, "report"; None where they are told on all."""
    trials: pd.DataFrame
    """A row per trial by number: number, key (of its first replicate; empty for a point that is no valid trial), replicates,
    baseline, state (complete, failed, given up, pending), the dotted paths, the metrics (means over the replicates, with the
    standard deviation between them under "ROLE.KIND_sd", NaN for a single one; the 95 % interval under "_low" and "_high"; and
    under "_search" as the search saw it, which decides on feasible and front), paired (all its standard errors of differences
    are paired over documents), feasible (complete, and every constraint met), on_front, front_rank (-1: takes no part), p_front
    (probability to be on the front), p_feasible, "p:CONSTRAINT", of each objective "_corrected" with "_corrected_low" and
    "_corrected_high" (without the luck of the best of many; see `shrinkage`), correlation (between the errors of the first two
    objectives), seconds (of all phases and replicates), failure (text, empty where there is none)."""
    baselines: pd.DataFrame
    """A row per baseline: key, state, trials (how many are measured against it), per role ROLE.value, ROLE.value_se and ROLE.n
    (documents), seconds, failure."""
    failures: pd.DataFrame
    """A row per failure: what ("baseline", "trial 3", "trial 3, replicate 2"), key, kind, message, traceback."""
    records: dict[str, TrialRecord]
    """By key: every record that could be read, baselines included."""
    hypervolume: float | None
    """Of the front, as the search saw it, from `reference`; None while there is no front."""
    reference: tuple[float, ...]
    """See front.reference_point; one number per objective."""
    draws: np.ndarray
    """Shape (draws, trials in the frame's order, judged): joint draws of the true values of the metrics `judged`; NaN for a
    trial that has not all of them. Documents weigh the same in the draws of all sweeps."""
    hypervolume_interval: tuple[float, float] | None
    """95 % of the draws' hypervolumes; None where no trial is finished."""

    @property
    def ledger(self) -> Ledger:
        return Ledger(self.folder.parent)

    @property
    def hub_mirror(self) -> str | None:
        """The config's; None where it has none, or where sweep.yaml is damaged (the next run writes it anew)."""
        try:
            found = yaml.safe_load(self.config)
        except (yaml.YAMLError, ValueError, RecursionError):
            return None
        mirror = found.get("hub_mirror") if isinstance(found, dict) else None
        return mirror if isinstance(mirror, str) else None

    @property
    def replicates(self) -> int:
        """Under how many seeds a setting was trained at most; 1 where none was asked for."""
        return max([1, *self.trials["replicates"]])

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
    with _no_collection():
        return _load(root(folder))


def _load(folder: Path) -> Sweep:
    manifest = read_manifest(folder)
    objectives = tuple(manifest.objectives)
    constraints = tuple(parse_constraint(text) for text in manifest.constraints)
    for objective in objectives:
        split_metric(objective.metric)
    ledger = Ledger(folder.parent)
    against = [trial.baseline for trial in manifest.trials if trial.baseline is not None]
    base = list(dict.fromkeys([*manifest.baselines, *against]))
    keys = dict.fromkeys([*base, *(key for trial in manifest.trials for key in trial.keys)])
    outcomes = {key: _outcome(ledger, key) for key in keys}
    half = _REPORTED if manifest.documents == "half" else None
    asked = [
        Asked(trial, tuple(outcomes[key] for key in trial.keys))
        for trial in sorted(manifest.trials, key=lambda trial: trial.number)
    ]
    settings = _settings(asked, outcomes)
    named = [objective.metric for objective in objectives] + [constraint.metric for constraint in constraints]
    judged = tuple(dict.fromkeys(named))
    errors = Errors(len(settings), judged, " ".join(key for one in asked for key in one.trial.keys))
    measured = measure_all(settings, half or ALL, watch=errors.see)
    searched = measure_all(settings, _SEARCHED, errors=False) if half else measured
    records = {key: outcome.record for key, outcome in outcomes.items() if outcome.record is not None}
    roles = list(dict.fromkeys(role for record in records.values() for role in record.scores))
    metrics = tuple(dict.fromkeys([*metric_names(roles), *measured, *named]))
    space = tuple(dict.fromkeys([*manifest.space, *(path for trial in manifest.trials for path in trial.params)]))
    trials = _trial_frame(asked, space, metrics, measured, searched)
    reference = pareto.reference_point(objectives, constraints, _untuned([outcomes[key] for key in base], half))
    volume = _judge(trials, objectives, constraints, reference)
    noise = errors.draws(settings, measured, half or ALL)
    draws, volumes = _judgement(trials, noise, judged, objectives, constraints, reference)
    return Sweep(
        folder=folder,
        name=manifest.name,
        objectives=objectives,
        constraints=constraints,
        space=space,
        budget=manifest.budget,
        config=_config(folder),
        metrics=metrics,
        half=half,
        trials=trials,
        baselines=_baseline_frame([outcomes[key] for key in base], against, roles, half),
        failures=_failure_frame([outcomes[key] for key in base], asked),
        records=records,
        hypervolume=volume,
        reference=tuple(reference.tolist()),
        draws=draws,
        hypervolume_interval=volumes,
    )


def trials(*folders: Path | str) -> pd.DataFrame:
    """`Sweep.trials` of several sweeps below each other, with each sweep's name in the column "sweep", its folder in "folder".

    A folder is a sweep's, or a storage root, which stands for all sweeps in it.
    """
    found = []
    for one in folders:
        place = root(one)
        inside = folders_with(place, "manifest.json") if is_folder(place) else []
        for folder in [place / name for name in inside] or [place]:
            sweep = load(folder)
            frame = sweep.trials.copy()
            frame.insert(0, "sweep", sweep.name)
            frame.insert(1, "folder", str(folder))
            found.append(frame)
    return pd.concat(found, ignore_index=True) if found else pd.DataFrame()


def read_manifest(folder: Path) -> Manifest:
    """`folder/manifest.json`, or an InputError of one line."""
    path = folder / "manifest.json"
    if not is_folder(folder):
        raise InputError(f"{folder}: there is no such folder; name a sweep's folder, STORAGE/SWEEP")
    try:
        return Manifest.model_validate_json(read_bytes(path))
    except NotAFile as error:
        raise InputError(f"{path}: not a whole manifest ({error.strerror}); running the sweep again rewrites it") from None
    except FileNotFoundError:
        inside = folders_with(folder, "manifest.json")
        hint = f"; the sweeps in it are {', '.join(inside[:8])}" if inside else "; name a sweep's folder, STORAGE/SWEEP"
        raise InputError(f"{folder}: no sweep, it holds no manifest.json{hint}") from None
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        where = ".".join(str(part) for part in first["loc"])
        reason = one_line(f"{where}: {first['msg']}".removeprefix(": "))
        raise InputError(f"{path}: not a whole manifest ({reason[:160]}); running the sweep again rewrites it") from None


def _config(folder: Path) -> str:
    try:
        return read_bytes(folder / "sweep.yaml").decode("utf-8", "replace")
    except (FileNotFoundError, NotAFile):
        return ""


def _outcome(ledger: Ledger, key: str) -> Outcome:
    try:
        record = ledger.read(key)
    except InputError as error:
        return Outcome(key, None, Failure(kind="UnreadableRecord", message=str(error), traceback=""))
    if record is None:
        return Outcome(key, None, None)
    if record.state == "failed":
        return Outcome(key, record, record.failure or Failure(kind="Failure", message="it left no reason", traceback=""))
    return Outcome(key, record, None)


@contextmanager
def _no_collection() -> Iterator[None]:
    """Of thousands of new records none is garbage; to look through them again and again would take longer than to read them."""
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if enabled:
            if not gc.get_freeze_count():  # nobody else's: frozen and thawed, the new ones count as looked through
                gc.freeze()
                gc.unfreeze()
            gc.enable()


def _settings(asked: Sequence[Asked], outcomes: dict[str, Outcome]) -> list[Setting]:
    """What can be measured of each trial: no record where it is not complete, no baseline where that is not."""
    found = []
    for one in asked:
        base = outcomes[one.trial.baseline] if one.trial.baseline is not None else None
        records = [outcome.record for outcome in one.outcomes if outcome.record is not None] if one.state == "complete" else []
        found.append(Setting(records, base.record if base is not None and base.state == "complete" else None))
    return found


def _untuned(base: Iterable[Outcome], half: str | None) -> dict[str, float]:
    """ROLE.value of the finished baselines, the lowest of several, on the documents that the search saw."""
    found: dict[str, float] = {}
    for outcome in base:
        if outcome.state == "complete" and outcome.record is not None:
            for role, named in scores(outcome.record, _SEARCHED if half else ALL).items():
                value = named["score"].value
                found[f"{role}.value"] = min(value, found.get(f"{role}.value", value))
    return found


def _trial_frame(
    asked: Sequence[Asked],
    space: Sequence[str],
    metrics: Sequence[str],
    measured: dict[str, Measured],
    searched: dict[str, Measured],
) -> pd.DataFrame:
    """The frame `Sweep.trials` without what `_judge` adds."""
    columns: dict[str, Any] = {
        "number": pd.Series([one.trial.number for one in asked], dtype=int),
        "key": [one.trial.key or "" for one in asked],
        "replicates": pd.Series([len(one.outcomes) for one in asked], dtype=int),
        "baseline": [one.trial.baseline or "" for one in asked],
        "state": pd.Series([one.state for one in asked], dtype=object),
    }
    for path in space:
        columns[path] = pd.Series([one.trial.params.get(path) for one in asked], dtype=object).infer_objects()
    nothing = empty(len(asked))
    for name in metrics:
        found = measured.get(name, nothing)
        columns |= {name: found.value, f"{name}_se": found.stderr, f"{name}_sd": found.sd}
        columns |= {f"{name}_low": found.low, f"{name}_high": found.high}
        columns[f"{name}_search"] = searched.get(name, nothing).value
    gains = [measured[name] for name in measured if name.endswith(".gain") and name != f"{LEARNING}.gain"]
    # a role that a trial has not measured says nothing against the others
    paired = [one.paired | ~one.known for one in gains]
    columns["paired"] = np.logical_and.reduce([*paired, np.any([one.known for one in gains], axis=0)]) if gains else False
    columns["seconds"] = pd.Series([one.seconds for one in asked], dtype=float)
    columns["failure"] = pd.Series(
        ["; ".join(_failure_text(failure) for *_, failure in one.failures) for one in asked], dtype=object
    )
    return pd.DataFrame(columns)


def _judge(
    trials: pd.DataFrame, objectives: Sequence[Objective], constraints: Sequence[Constraint], reference: np.ndarray
) -> float | None:
    """Adds feasible, on_front and front_rank to `trials`; returns the front's hypervolume. What the search saw decides."""
    feasible = (trials["state"] == "complete").to_numpy(dtype=bool)
    for constraint in constraints:
        values = trials[f"{constraint.metric}_search"]
        feasible = feasible & np.array([constraint.violation(value) <= 0 for value in values], dtype=bool)
    seen = [f"{objective.metric}_search" for objective in objectives]
    points = pareto.orient(trials[seen].to_numpy(dtype=float), objectives)
    trials["feasible"] = feasible
    trials["front_rank"] = pareto.ranks(points, feasible)
    trials["on_front"] = trials["front_rank"] == 0
    on_front = trials["on_front"].to_numpy(dtype=bool)
    return pareto.hypervolume(points[on_front], pareto.orient(reference, objectives)) if on_front.any() else None


def _judgement(
    trials: pd.DataFrame,
    noise: np.ndarray,
    judged: Sequence[str],
    objectives: Sequence[Objective],
    constraints: Sequence[Constraint],
    reference: np.ndarray,
) -> tuple[np.ndarray, tuple[float, float] | None]:
    """Adds to `trials` what `noise` (draws, trials, judged) means for each; returns Sweep's draws and hypervolume_interval."""
    values = trials[list(judged)].to_numpy(dtype=float, copy=True)
    # of a metric without an error (what was learnt, from one seed) no probability follows
    values[np.isnan(trials[[f"{name}_se" for name in judged]].to_numpy(dtype=float)).any(axis=1)] = np.nan
    # two trials of one key are one point
    _, first, own = np.unique(trials["key"].to_numpy(dtype=str), return_index=True, return_inverse=True)
    found = judge(values[first], noise[:, first], judged, objectives, constraints, reference).of(own)
    trials["p_front"], trials["p_feasible"] = found.p_front, found.p_feasible
    for constraint, probability in zip(constraints, found.p_constraint, strict=True):
        trials[f"p:{constraint}"] = probability
    tails = [50 * (1 - LEVEL), 50 * (1 + LEVEL)]
    for objective in objectives:
        place = list(judged).index(objective.metric)
        trials[f"{objective.metric}_corrected"] = found.corrected[:, place]
        ends = np.percentile(found.draws[:, :, place], tails, axis=0)
        trials[f"{objective.metric}_corrected_low"], trials[f"{objective.metric}_corrected_high"] = ends
    if len(objectives) > 1:
        trials["correlation"] = _correlation(noise[:, :, 0], noise[:, :, 1])
    known = np.isfinite(found.draws).any()
    ends = np.percentile(found.hypervolumes, tails)
    return found.draws, (float(ends[0]), float(ends[1])) if known else None


def _correlation(one: np.ndarray, other: np.ndarray) -> np.ndarray:
    """Of the columns of two arrays (draws, t) with mean 0; NaN where one does not move."""
    with np.errstate(divide="ignore", invalid="ignore"):
        together: np.ndarray = (one * other).mean(axis=0) / np.sqrt((one**2).mean(axis=0) * (other**2).mean(axis=0))
    return together


def _baseline_frame(base: Iterable[Outcome], asked: Sequence[str], roles: Sequence[str], half: str | None) -> pd.DataFrame:
    """On the documents that the trials' metrics are told on."""
    rows = []
    counts = Counter(asked)
    for outcome in base:
        row: dict[str, Any] = {"key": outcome.key, "state": outcome.state, "trials": counts[outcome.key]}
        named = scores(outcome.record, half or ALL) if outcome.record is not None else {}
        for role in roles:
            score = named[role]["score"] if role in named else None
            row[f"{role}.value"] = score.value if score else np.nan
            row[f"{role}.value_se"] = score.stderr if score else np.nan
            row[f"{role}.n"] = score.n if score else 0
        rows.append(row | {"seconds": _seconds([outcome]), "failure": _failure_text(outcome.failure)})
    return pd.DataFrame(rows, columns=None if rows else ["key", "state", "trials", "seconds", "failure"])


def _failure_frame(base: Iterable[Outcome], asked: Sequence[Asked]) -> pd.DataFrame:
    failed = [("baseline", one.key, one.failure) for one in base if one.failure is not None]
    rows = [
        {"what": what, "key": key, "kind": failure.kind, "message": failure.message, "traceback": failure.traceback}
        for what, key, failure in [*failed, *(found for one in asked for found in one.failures)]
    ]
    return pd.DataFrame(rows, columns=["what", "key", "kind", "message", "traceback"])


def _seconds(outcomes: Iterable[Outcome]) -> float:
    """Of all that left a record; NaN where none has."""
    found = [sum(outcome.record.seconds.values()) for outcome in outcomes if outcome.record is not None]
    return float(sum(found)) if found else math.nan


def _failure_text(failure: Failure | None) -> str:
    return f"{failure.kind}: {failure.message}" if failure is not None else ""
