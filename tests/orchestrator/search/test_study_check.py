"""A study that this program did not write as it is raises DamagedStudy."""

import sqlite3

import optuna
import pytest
from optuna.distributions import CategoricalDistribution
from optuna.exceptions import StorageInternalError
from optuna.trial import TrialState, create_trial

from orchestrator.config.model import SweepConfig
from orchestrator.search.earlier import EARLIER
from orchestrator.search.study_check import DamagedStudy, check, reading, tables_missing

RANK = {"lora.rank": CategoricalDistribution((2, 4))}


@pytest.fixture
def config(parts) -> SweepConfig:
    return SweepConfig.model_validate(parts)


def study(*trials, directions=("maximize", "minimize")) -> optuna.Study:
    made = optuna.create_study(directions=directions)
    made.add_trials(trials)
    return made


def complete(key: str | None = "0" * 16, values=(0.1, 0.2), **attributes):
    attributes |= {} if key is None else {"key": key}
    return create_trial(values=values, params={"lora.rank": 2}, distributions=RANK, user_attrs=attributes)


def test_whole_study_passes(config):
    pruned = {"reason": "beaten", "seconds": 1.0}
    check(study(complete(), create_trial(state=TrialState.PRUNED, user_attrs={"given_up": pruned})), config)


EARLIER_TRIAL = {
    "key": "a" * 16,
    "settings": {"lora.rank": 2},
    "context": {"train.epochs": 3},
    "values": [0.1, 0.2],
    "violations": {},
    "errors": {"math.drop": 0.1},
}


def with_earlier(**damage) -> optuna.Study:
    made = study()
    made.set_user_attr(EARLIER, [EARLIER_TRIAL | damage])
    return made


def test_trials_of_other_sweeps_pass(config):
    check(with_earlier(), config)


@pytest.mark.parametrize(
    "damage",
    [{"values": [0.1]}, {"values": ["x", 0]}, {"settings": {"lora.rank": 7}}, {"settings": 1}, {"errors": {"math.drop": -1}}],
    ids=str,
)
def test_damage_of_a_trial_of_another_sweep_is_damage(config, damage):
    with pytest.raises(DamagedStudy), reading():
        check(with_earlier(**damage), config)


@pytest.mark.parametrize(
    ("damaged", "problem"),
    [
        (lambda: study(directions=["maximize"]), "directions"),
        (lambda: study(complete(key=None)), "trial 0: it is complete without a key"),
        (lambda: study(complete(), complete(given_up={"reason": "beaten", "seconds": -1.0})), "trial 1: .* greater than"),
        (lambda: study(complete(values=(float("inf"), 0.0))), "trial 0: a value is not finite"),
        (lambda: study(create_trial(values=(0, 0), params={"x": 2}, distributions={"x": RANK["lora.rank"]})), "has no x"),
    ],
)
def test_damage_is_named(config, damaged, problem):
    with pytest.raises(DamagedStudy, match=problem):
        check(damaged(), config)


def test_unreadable_row_is_damage_and_a_lock_is_not():
    with pytest.raises(DamagedStudy, match="KeyError"), reading():
        raise KeyError("state")
    with pytest.raises(StorageInternalError), reading():
        raise StorageInternalError from sqlite3.OperationalError("database is locked")


def test_missing_tables_are_named(tmp_path):
    optuna.create_study(storage=f"sqlite:///{tmp_path}/study.db")
    with sqlite3.connect(tmp_path / "study.db") as connection:
        assert tables_missing(connection) is None
        connection.execute("DROP TABLE trial_values")
        assert tables_missing(connection) == "there is no table trial_values"
