"""Axes: parents come before children, inactive settings are absent, finite spaces are enumerated once."""

from random import Random

import pytest
from pydantic import TypeAdapter

from orchestrator.config import space
from orchestrator.config.parameters import Parameter

DORA = {"type": "categorical", "choices": [True, False]}
DROPOUT = {"type": "float", "low": 0.0, "high": 0.2, "step": 0.1, "when": {"lora.use_dora": True}}
MIX = {"a": 0.5, "b": 0.3, "c": 0.2}


def axes(parameters, mix=MIX):
    validated = TypeAdapter(dict[str, Parameter]).validate_python(parameters)
    return space.axes(validated, mix)


def test_parents_come_before_children():
    assert [axis.paths[0] for axis in axes({"lora.dropout": DROPOUT, "lora.use_dora": DORA})] == [
        "lora.use_dora",
        "lora.dropout",
    ]


def test_circle_of_conditions_is_refused():
    with pytest.raises(ValueError, match="wait for one another"):
        axes({"lora.dropout": DROPOUT})


def test_inactive_setting_is_in_no_point():
    found = axes({"lora.dropout": DROPOUT, "lora.use_dora": DORA})
    points = list(space.every_point(found))
    assert len(points) == 3 + 1
    drawn = [space.draw(found, random) for random in map(Random, range(20))]
    assert all(("lora.dropout" in point) == point["lora.use_dora"] for point in points + drawn)


def test_lattice_of_a_simplex_is_enumerated_once_and_keeps_its_total():
    (mixture,) = axes({"data.mix": {"type": "simplex", "sources": ["a", "b"], "step": 0.1}})
    points = list(mixture.points())
    assert len(points) == 9
    assert all(sum(point.values()) == pytest.approx(0.8) for point in points)
    assert all(mixture.shares(mixture.quantiles(point)) == point for point in points)


def test_corners_take_the_largest_number_first():
    found = axes({"data.samples": {"type": "int", "low": 8, "high": 64}, "lora.use_dora": DORA})
    assert [point["data.samples"] for point in space.corners(found, {})] == [64, 64, 8, 8]
    assert list(space.corners(found, {"data.samples": 16, "lora.use_dora": True})) == [
        {"data.samples": 16, "lora.use_dora": True}
    ]


def test_distance_is_zero_to_itself_and_one_for_an_axis_active_at_one_point():
    found = axes({"lora.dropout": DROPOUT, "lora.use_dora": DORA})
    plain, dora = {"lora.use_dora": False}, {"lora.use_dora": True, "lora.dropout": 0.2}
    assert space.distance(found, dora, dora) == 0
    assert space.distance(found, plain, dora) == 2
    assert space.distance(found, dora, dora | {"lora.dropout": 0.1}) == pytest.approx(0.5)
