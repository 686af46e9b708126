"""The front of a running sweep."""

from analysis.metrics.names import Objective
from orchestrator.sweep.running_front import RunningFront

OBJECTIVES = [
    Objective(metric="commonsense.gain", direction="maximize"),
    Objective(metric="math.drop", direction="minimize"),
]


def test_only_a_non_dominated_trial_changes_the_front():
    front = RunningFront(OBJECTIVES)
    assert front.add(0, "a", [0.1, 0.1])
    assert not front.add(1, "b", [0.1, 0.2])
    assert front.add(2, "c", [0.3, 0.3])
    assert front.add(3, "d", [0.2, 0.1])  # dominates the first
    assert [row["number"] for row in front.rows()] == [2, 3]


def test_equal_trials_are_both_on_the_front():
    front = RunningFront(OBJECTIVES)
    assert all(front.add(number, "", [0.1, 0.1]) for number in (1, 0))
    assert [row["number"] for row in front.rows()] == [0, 1]


def test_rows_have_metrics_in_their_own_direction():
    front = RunningFront(OBJECTIVES[::-1])
    front.add(0, "a", [0.2, 0.5])
    front.add(1, "b", [0.1, 0.4])
    assert front.rows()[0] == {"number": 1, "key": "b", "metrics": {"math.drop": 0.1, "commonsense.gain": 0.4}}


def test_trial_that_the_base_dominates_is_not_on_the_front():
    front = RunningFront(OBJECTIVES)
    assert front.add(0, "a", [-0.1, 0.1])
    assert front.add(1, "b", [-0.1, -0.1])
    front.add_base("base", [0.0, 0.0])
    assert [row["number"] for row in front.rows()] == [1]
    assert not front.add(2, "c", [-0.2, 0.0])
    assert front.add(3, "d", [0.1, 0.2])


def test_trial_is_behind_the_base_where_it_is_worse_in_every_objective():
    front = RunningFront(OBJECTIVES)
    assert front.behind_base([-0.1, 0.1]) == 0.0
    front.add_base("base", [0.0, 0.0])
    assert front.behind_base([-0.1, 0.2]) == 0.1
    assert front.behind_base([0.1, 0.2]) == -0.1
    assert front.behind_base([0.0, 0.2]) == 0.0


def test_base_without_a_value_rules_out_nothing():
    front = RunningFront(OBJECTIVES)
    front.add_base("base", [0.0, float("nan")])
    assert front.add(0, "a", [-0.1, 0.1])
