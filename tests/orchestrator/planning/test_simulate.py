"""A simulated sweep takes the time that arithmetic gives, and names its limit."""

import pytest

from orchestrator.planning import simulate
from orchestrator.planning.simulate import START, STORAGE_RATE, STUDIES, Cluster, Cost, Study
from trials.errors import InputError

FREE = Study(Cost(0.0, 0.0, 0.0), Cost(0.0, 0.0, 0.0))
TRIAL = {"train": 60.0, "evaluate.math": 40.0}


def test_free_driver_leaves_rounds_of_work():
    found = simulate.simulate([TRIAL], trials=25, cluster=Cluster(10, FREE, 0.0))
    assert found.hours * 3600 == pytest.approx(START + 3 * 100)
    assert found.limit == "workers"
    assert found.workers_at_most is None
    assert (found.spent["lost"], found.spent["waiting"], found.failed) == (0, 0, 0)


def test_points_stand_for_all_trials_in_turn():
    found = simulate.simulate([TRIAL, {"train": 10.0}], trials=4, cluster=Cluster(1, FREE, 0.0))
    assert found.hours * 3600 == pytest.approx(START + 2 * 100 + 2 * 10)


def test_driver_serves_one_worker_after_the_other():
    study = Study(ask=Cost(2.0, 0.0, 0.0), tell=Cost(1.0, 0.0, 0.0))
    found = simulate.simulate([TRIAL], trials=1000, cluster=Cluster(500, study, 1.0))
    assert found.hours * 3600 == pytest.approx(1000 * 4.0, rel=0.05)  # 3 s of asking, 1 s of telling each
    assert found.limit == "study"
    assert found.busy["study"] == pytest.approx(0.75, abs=0.03)
    assert found.busy["Ray Tune"] == pytest.approx(0.25, abs=0.03)
    assert found.workers_at_most == 25


def test_driver_cost_grows_with_trials():
    growing = Study(ask=Cost(0.0, 0.01, 0.0), tell=FREE.tell)
    found = simulate.simulate([{"train": 0.0}], trials=101, cluster=Cluster(1, growing, 0.0))
    assert found.hours * 3600 == pytest.approx(START + 0.01 * sum(range(101)))
    assert Cost(1.0, 0.1, 0.01).at(10, 100) == pytest.approx(3.0)


def test_ray_is_the_limit_if_its_work_is_largest():
    assert simulate.simulate([TRIAL], 1000, Cluster(500, FREE, 1.0)).limit == "Ray Tune"


def test_storage_takes_one_record_after_the_other():
    found = simulate.simulate([TRIAL], 1000, Cluster(500, FREE, 0.0, written=STORAGE_RATE * 2))
    assert found.limit == "storage"
    assert found.hours * 3600 == pytest.approx(START + 100 + 1000 * 2)
    assert found.spent["storage"] > 0.5


def test_short_trial_does_not_wait_for_a_long_record():
    found = simulate.simulate([{"train": 1000.0}, {"train": 1.0}], 2, Cluster(2, FREE, 0.0, written=STORAGE_RATE))
    assert found.spent["storage"] * (2 * START + 1001 + 2) == pytest.approx(2.0)


def test_deaths_cost_time_and_fail_some_trials():
    calm = simulate.simulate([TRIAL], 2000, Cluster(100, FREE, 0.0))
    rough = simulate.simulate([TRIAL], 2000, Cluster(100, FREE, 0.0, deaths_per_hour=6.0))
    assert rough.hours > calm.hours
    assert rough.spent["lost"] > 0.02
    assert 0 < rough.failed < 0.05 * 2000
    assert sum(rough.spent.values()) == pytest.approx(1.0)
    assert rough == simulate.simulate([TRIAL], 2000, Cluster(100, FREE, 0.0, deaths_per_hour=6.0))


def test_death_loses_training_since_checkpoint():
    long = simulate.simulate([{"train": 36_000.0}], 50, Cluster(50, FREE, 0.0, deaths_per_hour=0.1))
    evaluation = simulate.simulate([{"evaluate.math": 36_000.0}], 50, Cluster(50, FREE, 0.0, deaths_per_hour=0.1))
    assert long.spent["lost"] < 0.01 < 0.2 < evaluation.spent["lost"]


def test_unmeasured_sampler_costs_what_random_does():
    assert simulate.study_of("grid") == (STUDIES["random"], "random")
    assert simulate.study_of("tpe") == (STUDIES["tpe"], "tpe")


def test_empty_simulation_is_refused():
    with pytest.raises(InputError, match="needs trials"):
        simulate.simulate([], 10, Cluster(10, FREE, 0.0))
