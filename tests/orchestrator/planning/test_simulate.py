"""A simulated sweep takes the time that can be reckoned by hand, and names what limits it."""

import pytest

from orchestrator.config.model import SweepConfig
from orchestrator.console.plan_table import lines, table
from orchestrator.planning import simulate
from orchestrator.planning.plan import plan
from orchestrator.planning.simulate import START, STORAGE_RATE, STUDIES, Cost, Study
from trials.errors import InputError

FREE = Study(Cost(0.0, 0.0, 0.0), Cost(0.0, 0.0, 0.0))
TRIAL = {"train": 60.0, "evaluate.math": 40.0}


def test_with_a_driver_that_costs_nothing_the_makespan_is_the_rounds_of_the_workers():
    found = simulate.simulate([TRIAL], trials=25, workers=10, study=FREE, ray_seconds=0.0)
    assert found.hours * 3600 == pytest.approx(START + 3 * 100)
    assert found.limit == "workers"
    assert found.workers_at_most is None
    assert (found.spent["lost"], found.spent["waiting"], found.failed) == (0, 0, 0)


def test_the_points_stand_for_all_trials_in_turn():
    found = simulate.simulate([TRIAL, {"train": 10.0}], trials=4, workers=1, study=FREE, ray_seconds=0.0)
    assert found.hours * 3600 == pytest.approx(START + 2 * 100 + 2 * 10)


def test_a_driver_serves_one_worker_after_the_other():
    study = Study(ask=Cost(2.0, 0.0, 0.0), tell=Cost(1.0, 0.0, 0.0))
    found = simulate.simulate([TRIAL], trials=1000, workers=500, study=study, ray_seconds=1.0)
    assert found.hours * 3600 == pytest.approx(1000 * 4.0, rel=0.05)  # 3 s of asking, 1 s of telling each
    assert found.limit == "study"
    assert found.busy["study"] == pytest.approx(0.75, abs=0.03)
    assert found.busy["Ray Tune"] == pytest.approx(0.25, abs=0.03)
    assert found.workers_at_most == 25


def test_what_a_trial_costs_the_driver_grows_with_those_told_and_those_handed_out():
    growing = Study(ask=Cost(0.0, 0.01, 0.0), tell=FREE.tell)
    found = simulate.simulate([{"train": 0.0}], trials=101, workers=1, study=growing, ray_seconds=0.0)
    assert found.hours * 3600 == pytest.approx(START + 0.01 * sum(range(101)))
    assert Cost(1.0, 0.1, 0.01).at(10, 100) == pytest.approx(3.0)


def test_ray_is_the_limit_where_its_own_work_is_the_largest():
    assert simulate.simulate([TRIAL], 1000, 500, FREE, ray_seconds=1.0).limit == "Ray Tune"


def test_records_go_through_the_storage_one_after_the_other():
    found = simulate.simulate([TRIAL], 1000, 500, FREE, ray_seconds=0.0, written=STORAGE_RATE * 2)
    assert found.limit == "storage"
    assert found.hours * 3600 == pytest.approx(START + 100 + 1000 * 2)
    assert found.spent["storage"] > 0.5


def test_a_short_trial_that_began_late_does_not_wait_for_a_long_ones_record():
    found = simulate.simulate([{"train": 1000.0}, {"train": 1.0}], 2, 2, FREE, ray_seconds=0.0, written=STORAGE_RATE)
    assert found.spent["storage"] * (2 * START + 1001 + 2) == pytest.approx(2.0)


def test_deaths_cost_a_new_worker_and_what_was_not_saved_and_some_trials_fail():
    calm = simulate.simulate([TRIAL], 2000, 100, FREE, ray_seconds=0.0)
    rough = simulate.simulate([TRIAL], 2000, 100, FREE, ray_seconds=0.0, deaths_per_hour=6.0)
    assert rough.hours > calm.hours
    assert rough.spent["lost"] > 0.02
    assert 0 < rough.failed < 0.05 * 2000
    assert sum(rough.spent.values()) == pytest.approx(1.0)
    assert rough == simulate.simulate([TRIAL], 2000, 100, FREE, ray_seconds=0.0, deaths_per_hour=6.0)


def test_training_loses_no_more_than_since_it_was_last_saved():
    long = simulate.simulate([{"train": 36_000.0}], 50, 50, FREE, ray_seconds=0.0, deaths_per_hour=0.1)
    evaluation = simulate.simulate([{"evaluate.math": 36_000.0}], 50, 50, FREE, ray_seconds=0.0, deaths_per_hour=0.1)
    assert long.spent["lost"] < 0.01 < 0.2 < evaluation.spent["lost"]


def test_a_sampler_that_was_not_measured_is_told_as_another():
    assert simulate.study_of("grid") == (STUDIES["random"], "random")
    assert simulate.study_of("tpe") == (STUDIES["tpe"], "tpe")


def test_nothing_to_simulate_is_refused():
    with pytest.raises(InputError, match="needs trials"):
        simulate.simulate([], 10, 10, FREE, 0.0)


# ---------------------------------------------------------------------- in a plan


def test_a_plan_simulates_its_own_trials_replicates_and_baselines_on_the_gpus_that_it_is_given(parts, tmp_path):
    parts["search"] = {**parts["search"], "replicates": 2}
    parts["resources"] = {"gpus_per_trial": 0.5}
    config = SweepConfig.model_validate(parts)
    found = plan(config, tmp_path, gpu="H100", count=2)
    assert found.simulated is not None
    assert found.simulated.trials == 2 * config.budget + 1
    assert found.simulated.workers == min(4, found.simulated.trials)
    shown = "\n".join(cell for column in table(found, config).columns for cell in column._cells)
    assert "the limit: " in shown
    assert any("simulated" in line for line in lines(found))


def test_a_plan_without_a_count_simulates_nothing(parts, tmp_path):
    assert plan(SweepConfig.model_validate(parts), tmp_path, gpu="H100").simulated is None


def test_a_sweep_that_hours_end_is_not_simulated(parts, tmp_path):
    parts["search"] = {key: value for key, value in parts["search"].items() if key != "trials"}
    parts["search"] |= {"sampler": "random", "hours": 2.0}
    parts["space"] = {"train.learning_rate": {"type": "float", "low": 1e-4, "high": 1e-2}}
    with pytest.raises(InputError, match=r"search\.trials"):
        plan(SweepConfig.model_validate(parts), tmp_path, gpu="H100", count=10)
