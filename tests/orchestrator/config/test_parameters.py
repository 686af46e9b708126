"""Parameters hold their values and no others."""

import pytest
from pydantic import TypeAdapter, ValidationError

from orchestrator.config.load import load
from orchestrator.config.parameters import Float, Int, Parameter


def test_wide_range_of_integers_is_not_enumerated(parts, write):
    parts["search"].update(sampler="tpe", trials=3)
    parts["space"]["train.seed"] = {"type": "int", "low": 0, "high": 2**31}
    assert load(write(parts)).budget == 3


def test_float_step_snaps_to_its_values():
    stepped = Float(type="float", low=0.0, high=0.3, step=0.1)
    assert stepped.values() == (0.0, 0.1, 0.2, 0.3)
    assert stepped.nearest(0.30000000000000004) == 0.3
    assert stepped.holds(0.2) and not stepped.holds(0.25)


def test_boolean_is_no_number():
    assert Int(type="int", low=0, high=3).holds(1) and not Int(type="int", low=0, high=3).holds(True)


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ({"type": "int", "low": 4, "high": 2}, "low 4 is above high 2"),
        ({"type": "float", "low": 0, "high": 1, "log": True}, "starts above 0"),
        ({"type": "float", "low": 1, "high": 2, "log": True, "step": 0.1}, "a log range has no step"),
        ({"type": "categorical", "choices": [4, 4]}, "a choice stands twice"),
    ],
)
def test_contradictory_parameter_is_refused(given, expected):
    with pytest.raises(ValidationError, match=expected):
        TypeAdapter(Parameter).validate_python(given)


def test_points_hold_plain_settings_only():
    assert TypeAdapter(Parameter).validate_python([{"lora.rank": 4, "lora.layers": [0, 1]}])
    with pytest.raises(ValidationError, match=r"data\.sources: a setting is a number, a text, yes or no, or a list of these"):
        TypeAdapter(Parameter).validate_python([{"data.sources": {"mine": {"dataset": "x"}}}])
