"""A sweep's inputs are checked before it starts."""

import pytest

from orchestrator.config.model import SweepConfig
from orchestrator.preflight import chat_warnings, check_inputs
from tests.factories.own_tasks import DISTANCE, SHOP
from trials.errors import InputError


def test_inputs_are_checked_at_the_corners_of_the_space(parts):
    parts["space"] = {"data.samples": {"type": "categorical", "choices": [16, 5_000]}}
    with pytest.raises(InputError, match="needs 2500 rows"):
        check_inputs(SweepConfig.model_validate(parts))


@pytest.mark.parametrize(
    ("template", "roles", "expected"),
    [
        ("alpaca", {}, []),
        ("chat", {"math", "commonsense"}, []),
        ("chat", {"math"}, ["eval.commonsense does not use the chat template that the training uses"]),
        ("plain", {"math"}, ["eval.math uses the chat template, the training does not (data.template: plain)"]),
    ],
)
def test_chat_template_in_training_or_evaluation_alone_is_a_warning(parts, template, roles, expected):
    parts["data"]["template"] = template
    for role in roles:
        parts["eval"][role]["chat_template"] = True
    found = chat_warnings(SweepConfig.model_validate(parts))
    assert len(found) == len(expected)
    for line, beginning in zip(found, expected, strict=True):
        assert line.startswith(beginning)


def test_searched_chat_template_is_compared_at_every_point(parts):
    parts["space"] = {"eval.math.chat_template": {"type": "categorical", "choices": [True, False]}}
    assert len(chat_warnings(SweepConfig.model_validate(parts))) == 1


def test_search_for_a_larger_error_is_refused(parts):
    parts["eval"]["near"] = {**DISTANCE, "include": str(SHOP)}
    parts["search"]["objectives"] = [{"metric": "near.value", "direction": "maximize"}]
    parts["search"]["constraints"] = []
    with pytest.raises(
        InputError, match=r"distance of eval.near is better when lower; write near.value with direction: minimize"
    ):
        check_inputs(SweepConfig.model_validate(parts))
    parts["search"]["objectives"] = [{"metric": "near.value", "direction": "minimize"}]
    check_inputs(SweepConfig.model_validate(parts))
