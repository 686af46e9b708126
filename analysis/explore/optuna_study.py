"""A sweep as an Optuna study, for Optuna's importances, plots and dashboard.

Optuna takes a second to import, so other modules import this one in their functions.
"""

import json
import warnings
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import optuna
import pandas as pd
from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution, IntDistribution
from optuna.exceptions import ExperimentalWarning
from optuna.trial import FrozenTrial, TrialState, create_trial

from analysis.export.plain import plain
from analysis.metrics.names import Constraint
from analysis.results import schema as col
from analysis.results.sweep import Sweep
from trials.ledger.storage import sqlite_url

LOG_SPAN = 50  # a positive setting whose highest value is so many times the lowest has a log scale
UNDEFINED = 1e6  # violation of a constraint on an undefined metric; Optuna's storages take no infinity
STATES = {"complete": TrialState.COMPLETE, "failed": TrialState.FAIL, "given up": TrialState.PRUNED}


def study(sweep: Sweep, storage: str | None = None) -> optuna.Study:
    """All trials of the sweep, in memory or in Optuna's `storage` (a URL), under the sweep's name.

    A trial has its settings by dotted path, its objectives and constraints, and as user attributes key, number, failure, and
    metrics ({name: {"value", "stderr"}}).
    """
    made = optuna.create_study(
        storage=storage, study_name=sweep.name, directions=[one.direction for one in sweep.objectives], load_if_exists=False
    )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ExperimentalWarning)  # of set_metric_names, which only labels
        made.set_metric_names([one.metric for one in sweep.objectives])
    among = {path: distribution(sweep.trials[path]) for path in sweep.space}
    made.add_trials([_trial(sweep, row, among) for row in sweep.trials.to_dict("records")])
    return made


def distribution(values: Iterable[Any]) -> BaseDistribution | None:
    """Optuna's distribution that holds these values of one setting; None where there is no value."""
    # Not the config's space: listed points and those of another sweep may lie outside of it.
    known = [one for one in map(plain, values) if one is not None]
    if not known:
        return None
    if not all(isinstance(one, (int, float)) and not isinstance(one, bool) for one in known):
        return CategoricalDistribution(list(dict.fromkeys(map(choice, known))))
    low, high = min(known), max(known)
    log = low > 0 and high / low >= LOG_SPAN
    if all(isinstance(one, int) for one in known):
        return IntDistribution(low, high, log=log)
    return FloatDistribution(low, high, log=log)


def choice(value: Any) -> Any:
    """A setting as a category of Optuna's; a list becomes JSON."""
    return json.dumps(value) if isinstance(value, (list, tuple, dict)) else value


def _trial(sweep: Sweep, row: Mapping[Any, Any], among: Mapping[str, BaseDistribution | None]) -> FrozenTrial:
    values = [float(row[col.searched(one.metric)]) for one in sweep.objectives]
    state = STATES.get(row["state"], TrialState.WAITING)
    if state == TrialState.COMPLETE and not np.isfinite(values).all():
        state = TrialState.FAIL  # Optuna has no undefined values
    params, distributions = {}, {}
    for path, range_ in among.items():
        value = plain(row[path])
        if range_ is not None and value is not None:
            params[path] = choice(value) if isinstance(range_, CategoricalDistribution) else value
            distributions[path] = range_
    metrics = {
        name: {"value": row[name], "stderr": plain(row[col.se(name)])} for name in sweep.metrics if not pd.isna(row[name])
    }
    # One attribute for all metrics: a storage takes milliseconds for each.
    attributes: dict[str, Any] = {"key": row["key"], "number": row["number"], "metrics": metrics}
    done = state == TrialState.COMPLETE
    return create_trial(
        state=state,
        values=values if done else None,
        params=params,
        distributions=distributions,
        user_attrs=attributes | ({"failure": row["failure"]} if row["failure"] else {}),
        constraints={str(one): _beyond(one, row) for one in sweep.constraints} if done else None,
    )


def _beyond(constraint: Constraint, row: Mapping[Any, Any]) -> float:
    return min(constraint.violation(row[col.searched(constraint.metric)]), UNDEFINED)


def write(sweep: Sweep, path: Path) -> None:
    """Writes the study as a sqlite file, which must not exist."""
    with quiet():
        study(sweep, sqlite_url(path))


@contextmanager
def quiet() -> Iterator[None]:
    """Limits Optuna's log to warnings."""
    level = optuna.logging.get_verbosity()
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    try:
        yield
    finally:
        optuna.logging.set_verbosity(level)
