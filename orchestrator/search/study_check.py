"""Checks that an Optuna study holds only what this program writes; otherwise raises DamagedStudy.

A damaged study is rebuilt from manifest.json and the ledger, so nothing here repairs one.
"""

import math
import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Annotated, Any

import optuna
import sqlalchemy.exc
from optuna.distributions import check_distribution_compatibility
from optuna.exceptions import StorageInternalError
from optuna.storages._rdb.models import BaseModel as Tables
from optuna.trial import FrozenTrial, TrialState
from pydantic import BaseModel, Field, TypeAdapter, ValidationError

from analysis.results.manifest import Settings
from orchestrator.config.model import SweepConfig
from orchestrator.search import earlier, optuna_space
from orchestrator.search.evidence import BASE
from orchestrator.search.looks import Look
from trials.errors import InputError
from trials.ledger.record import GivenUp

_ENVIRONMENT = (OSError, sqlite3.OperationalError, sqlalchemy.exc.OperationalError, sqlalchemy.exc.ProgrammingError)
"""A full disk, a lock, an unreachable server: the stored study may be intact."""
_PAIR = TypeAdapter(tuple[float, float])
_NUMBERS = TypeAdapter(list[float])


class DamagedStudy(Exception):
    """The text says what is wrong with the study."""


class _Attributes(BaseModel):
    """The user attributes of a trial that this program reads."""

    key: str | None = None
    settings: Settings = {}
    failure: str | None = None
    driver: str | None = None
    given_up: GivenUp | None = None
    errors: dict[str, Annotated[float, Field(ge=0, allow_inf_nan=False)]] = {}
    looks: list[Look] = []


@contextmanager
def reading() -> Iterator[None]:
    """Wraps reads of a stored study: an unreadable row raises DamagedStudy."""
    try:
        yield
    except (*_ENVIRONMENT, DamagedStudy, InputError, ImportError):
        raise
    except StorageInternalError as error:
        if isinstance(error.__cause__, _ENVIRONMENT):
            raise
        raise DamagedStudy(str(error.__cause__ or error)) from error
    except Exception as error:  # Optuna checks nothing that it reads, so a wrong row may raise anything
        raise DamagedStudy(f"{type(error).__name__}: {error}") from error


def tables_missing(connection: sqlite3.Connection) -> str | None:
    """Names the tables or columns of Optuna that a sqlite file lacks; None where it has all, or no table at all."""
    found = {str(name) for (name,) in connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'")}
    if not found:
        return None
    for table in Tables.metadata.sorted_tables:
        columns = {str(row[1]) for row in connection.execute(f'PRAGMA table_info("{table.name}")')}
        if missing := sorted({column.name for column in table.columns} - columns):
            return f"table {table.name} has no {', '.join(missing)}" if columns else f"there is no table {table.name}"
    return None


def check(study: optuna.Study, config: SweepConfig) -> None:
    """Raises DamagedStudy, or whatever Optuna raises for an unreadable row; call it in `reading`."""
    wanted = [objective.direction for objective in config.search.objectives]
    if [direction.name.lower() for direction in study.directions] != wanted:
        raise DamagedStudy("its directions are not those of search.objectives")
    if not isinstance(study.metric_names, list | None):
        raise DamagedStudy("its metrics' names are no list")
    for name, value in study.user_attrs.items():
        if name.startswith("spent."):
            _spent(name, value)
        if name.startswith(BASE) and not _finite(value, len(wanted)):
            raise DamagedStudy(f"{name} is not a value for each objective")
    if not isinstance(study.user_attrs.get("folder", ""), str):
        raise DamagedStudy("its folder is no text")
    for one in earlier.stored(study.user_attrs):
        if len(one.values) != len(wanted):
            raise DamagedStudy("an earlier trial has not a value for each objective")
        _check_place(earlier.as_trial(one, config), optuna_space.distributions(config))
    trials = study.get_trials(deepcopy=False)
    if [trial.number for trial in trials] != list(range(len(trials))):
        raise DamagedStudy("its trials are not numbered from 0 on")
    distributions = optuna_space.distributions(config)
    for trial in trials:
        try:
            _check_trial(trial, config, distributions)
        except (DamagedStudy, ValueError, TypeError) as error:
            reason = error.errors()[0]["msg"] if isinstance(error, ValidationError) else error
            raise DamagedStudy(f"trial {trial.number}: {reason}") from error


def _finite(values: Any, count: int) -> bool:
    return len(_NUMBERS.validate_python(values)) == count and all(map(math.isfinite, values))


def _spent(name: str, value: Any) -> None:
    if not all(0 <= one < math.inf for one in _PAIR.validate_python(value)):
        raise DamagedStudy(f"{name} is not two times")


def _check_trial(trial: FrozenTrial, config: SweepConfig, distributions: dict[str, Any]) -> None:
    attributes = _Attributes.model_validate(trial.user_attrs)
    if any(len(look.values) != len(config.search.objectives) for look in attributes.looks):
        raise DamagedStudy("a look has not a value for each objective")
    _check_place(trial, distributions)
    if not isinstance(trial.system_attrs.get("fixed_params", {}), dict):
        raise DamagedStudy("its fixed parameters are no mapping")
    if trial.state == TrialState.COMPLETE:
        if attributes.key is None or len(trial.values) != len(config.search.objectives):
            raise DamagedStudy("it is complete without a key and a value for each objective")
        if not all(math.isfinite(value) for value in [*trial.values, *trial.constraints.values()]):
            raise DamagedStudy("a value is not finite")
    if attributes.key is not None and trial.state.is_finished():
        optuna_space.suggest(config, trial)  # raises where an active parameter is missing


def _check_place(trial: FrozenTrial, distributions: dict[str, Any]) -> None:
    for name, value in trial.params.items():
        if name not in distributions:
            raise DamagedStudy(f"the space has no {name}")
        check_distribution_compatibility(distributions[name], trial.distributions[name])
        if not distributions[name]._contains(distributions[name].to_internal_repr(value)):
            raise DamagedStudy(f"{name} is outside the space")
