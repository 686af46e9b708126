"""The data frames of a sweep. `Sweep` says what their columns mean."""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd

from analysis.metrics.names import LEARNING, Criteria
from analysis.results import schema as col
from analysis.results.outcomes import KeyOutcome, TrialOutcome, failure_text, seconds
from analysis.stats import pareto
from analysis.stats.estimate import Measured, empty, scores
from analysis.stats.intervals import TAILS
from analysis.stats.posterior import Judgement
from trials.ledger.outcomes import Split


def trial_frame(
    outcomes: Sequence[TrialOutcome],
    paths: Sequence[str],
    metrics: Sequence[str],
    measured: Mapping[str, Measured],
    searched: Mapping[str, Measured],
) -> pd.DataFrame:
    """`Sweep.trials` without the columns of `add_front` and `add_judgement`."""
    trials = [one.trial for one in outcomes]
    columns: dict[str, Any] = {
        "number": pd.Series([trial.number for trial in trials], dtype=int),
        "key": [trial.key or "" for trial in trials],
        "replicates": pd.Series([len(one.replicates) for one in outcomes], dtype=int),
        "baseline": [trial.baseline or "" for trial in trials],
        "state": pd.Series([one.state for one in outcomes], dtype=object),
    }
    for path in paths:  # numbers become a numeric column, values of several types stay objects
        columns[path] = pd.Series([trial.params.get(path) for trial in trials], dtype=object).infer_objects()
    nothing = empty(len(trials))  # a metric of the criteria that no trial has
    for name in metrics:
        found = measured.get(name, nothing)
        columns |= {name: found.value, col.se(name): found.stderr, col.sd(name): found.sd}
        columns |= {col.low(name): found.low, col.high(name): found.high}
        columns[col.searched(name)] = searched.get(name, nothing).value
    gains = [measured[name] for name in measured if name.endswith(".gain") and name != f"{LEARNING}.gain"]
    # A role that a trial has not measured does not make the others unpaired.
    paired = [one.paired | ~one.known for one in gains]
    columns["paired"] = np.logical_and.reduce([*paired, np.any([one.known for one in gains], axis=0)]) if gains else False
    columns["seconds"] = pd.Series([one.seconds for one in outcomes], dtype=float)
    texts = ["; ".join(failure_text(failure) for *_, failure in one.failures) for one in outcomes]
    columns["failure"] = pd.Series(texts, dtype=object)
    return pd.DataFrame(columns)


def add_front(frame: pd.DataFrame, baselines: pd.DataFrame, criteria: Criteria) -> None:
    """Adds feasible, on_front and front_rank on the documents that the search saw, to the trials and to the baselines, which
    are ranked together."""
    # the search's half decides, the report's half is quoted: so the quoted values are free of selection
    points = np.concatenate([oriented(one, criteria) for one in (frame, baselines)])
    feasible = np.concatenate([_feasible(one, criteria) for one in (frame, baselines)])
    ranks = pareto.ranks(points, feasible)
    for one, part in ((frame, slice(len(frame))), (baselines, slice(len(frame), None))):
        one["feasible"], one["front_rank"], one["on_front"] = feasible[part], ranks[part], ranks[part] == 0


def _feasible(frame: pd.DataFrame, criteria: Criteria) -> np.ndarray:
    feasible = (frame["state"] == "complete").to_numpy(dtype=bool)
    for constraint in criteria.constraints:
        values = frame[col.searched(constraint.metric)]
        feasible = feasible & np.array([constraint.violation(value) <= 0 for value in values], dtype=bool)
    return feasible


def oriented(frame: pd.DataFrame, criteria: Criteria) -> np.ndarray:
    """The objectives as the search saw them, (trials, objectives); less is better."""
    columns = [col.searched(objective.metric) for objective in criteria.objectives]
    return pareto.orient(frame[columns].to_numpy(dtype=float), criteria.objectives)


def add_judgement(
    frame: pd.DataFrame, criteria: Criteria, judgement: Judgement, errors: np.ndarray, measured: Mapping[str, Measured]
) -> None:
    """Adds the probabilities, the corrected objectives and the correlation; `errors` are bootstrap.Errors.draws."""
    frame["p_front"], frame["p_feasible"] = judgement.p_front, judgement.p_feasible
    for constraint, probability in zip(criteria.constraints, judgement.p_constraint, strict=True):
        frame[col.p_kept(constraint)] = probability
    for objective in criteria.objectives:
        place = criteria.metrics.index(objective.metric)
        name = col.corrected(objective.metric)
        frame[name] = judgement.corrected[:, place]
        ends = np.where(np.isnan(frame[name]), np.nan, np.percentile(judgement.draws[:, :, place], TAILS, axis=0))
        if (found := measured.get(objective.metric)) is not None:
            ends = np.clip(ends, found.least, found.most)
        frame[col.low(name)], frame[col.high(name)] = ends
    if len(criteria.objectives) > 1:
        frame["correlation"] = _correlation(errors[:, :, 0], errors[:, :, 1])


def _correlation(one: np.ndarray, other: np.ndarray) -> np.ndarray:
    """Correlation (t,) of the columns of two arrays (draws, t) with mean 0; NaN if one is constant."""
    with np.errstate(divide="ignore", invalid="ignore"):
        together: np.ndarray = (one * other).mean(axis=0) / np.sqrt((one**2).mean(axis=0) * (other**2).mean(axis=0))
    return together


def baseline_frame(
    outcomes: Sequence[KeyOutcome], compared: Counter[str], roles: Sequence[str], split: Split, points: Mapping[str, np.ndarray]
) -> pd.DataFrame:
    """`compared`: trials by the baseline that they are measured against. `points`: further columns, by name."""
    rows = []
    for outcome in outcomes:
        row: dict[str, Any] = {"key": outcome.key, "state": outcome.state, "trials": compared[outcome.key]}
        named = scores(outcome.record, split) if outcome.record is not None else {}
        for role in roles:
            score = named[role]["score"] if role in named else None
            row[f"{role}.value"] = score.value if score else np.nan
            row[col.se(f"{role}.value")] = score.stderr if score else np.nan
            row[f"{role}.n"] = score.n if score else 0
        rows.append(row | {"seconds": seconds([outcome]), "failure": failure_text(outcome.failure)})
    frame = pd.DataFrame(rows, columns=None if rows else ["key", "state", "trials", "seconds", "failure"])
    return frame.assign(**{name: values for name, values in points.items() if name not in frame})


def failure_frame(baselines: Iterable[KeyOutcome], trials: Iterable[TrialOutcome]) -> pd.DataFrame:
    failed = [("baseline", one.key, one.failure) for one in baselines if one.failure is not None]
    rows = [
        {"what": what, "key": key, "kind": failure.kind, "message": failure.message, "traceback": failure.traceback}
        for what, key, failure in [*failed, *(found for one in trials for found in one.failures)]
    ]
    return pd.DataFrame(rows, columns=["what", "key", "kind", "message", "traceback"])
