import pytest

from analysis.explore.cost import cost, hours_name, phases
from tests.factories.sweeps import Builder


@pytest.fixture
def builder(tmp_path):
    return Builder(tmp_path).baseline().add((26, 37)).add()


def test_hours_are_those_of_the_commands_and_seconds_those_of_the_records(builder):
    found = cost(builder.load(spent=[7200.0, 1800.0]))
    assert (found["gpu_hours"], found["hours"], found["trials"]) == (2.0, 0.5, 1)
    assert found["trial_hours"] == pytest.approx(2 * 5.5 / 3600)
    assert found["median"] == found["longest"] == 5.5


def test_uncounted_hours_are_unknown(builder):
    found = cost(builder.load())
    assert (found["gpu_hours"], found["hours"]) == (None, None)


def test_longest_phase_comes_first(builder):
    found = phases(builder.load())
    assert [(one["phase"], one["records"], one["together"]) for one in found] == [("evaluate", 2, 7.0), ("train", 2, 4.0)]


def test_hours_without_a_gpu_are_those_of_workers(builder):
    assert hours_name(builder.load()) == "worker-hours"
    assert hours_name(builder.add((24, 40), hardware={"gpu": "A100"}).load()) == "GPU-hours"
