"""Drivers of one study: who runs which trial, and who takes over those of a driver that is gone."""

import optuna
import pytest

from orchestrator.search.driver_lease import Drivers


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def study() -> optuna.Study:
    return optuna.create_study()


def ask(study: optuna.Study, driver: Drivers) -> optuna.Trial:
    trial = study.ask()
    driver.claim(trial)
    return trial


def test_trials_of_a_living_driver_stay_its_own(study, tmp_path):
    one, two = (Drivers(study, tmp_path, shared=True) for _ in range(2))
    ask(study, one)
    assert two.adopt(study.trials) == []
    assert one.last()
    assert not two.last()


def test_trials_of_a_driver_that_left_are_adopted_once(study, tmp_path):
    one, two, three = (Drivers(study, tmp_path, shared=True) for _ in range(3))
    trial = ask(study, one)
    one.leave()
    assert [found.number for found in two.adopt(study.trials)] == [trial.number]
    assert three.adopt(study.trials) == []


def test_unsigned_trial_is_adopted_after_a_minute(study, tmp_path):
    clock = Clock()
    driver = Drivers(study, tmp_path, shared=True, clock=clock)
    trial = study.ask()
    assert driver.adopt(study.trials) == []
    clock.now = 61.0
    assert [found.number for found in driver.adopt(study.trials)] == [trial.number]


def test_only_driver_adopts_every_running_trial(study, tmp_path):
    study.ask()
    driver = Drivers(study, tmp_path, shared=False)
    assert len(driver.adopt(study.trials)) == 1
    assert driver.last()


def test_spending_of_other_drivers_is_summed_and_their_hours_run_in_parallel(study, tmp_path):
    one, two, three = (Drivers(study, tmp_path, shared=True) for _ in range(3))
    one.spend(10.0, 60.0)
    two.spend(5.0, 90.0)
    assert three.spent() == (15.0, 90.0)
    assert one.spent() == (5.0, 90.0)
