"""Mistakes in `search` are reported at their place."""

import pytest

from orchestrator.config.load import load
from tests.factories.configs import assert_reported, both, in_search


@pytest.mark.parametrize(
    ("change", "at", "expected"),
    [
        (in_search(sampler="tpe"), "search:", "Give trials, gpu_hours or hours; only grid ends by itself, not tpe"),
        (
            in_search(objectives=[{"metric": "math.drop", "direction": "minimize"}] * 2),
            "metric:",
            "'math.drop' stands here twice",
        ),
        (
            both(
                in_search(constraints=["math.skill_forgetting <= 0.1"]),
                lambda parts: parts["eval"]["math"].update(marker="####", flexible="strict-match"),
            ),
            "- math.skill",
            "'math.skill_forgetting' needs eval.math.flexible to be a laxer filter than eval.math.filter; both are strict",
        ),
        (
            in_search(constraints=["math.lost <= 3"]),
            "- math.lost",
            "'math.lost <= 3.0' holds for every trial: lost is a share; for 3 % write \"math.lost <= 3%\"",
        ),
        (
            in_search(objectives=[{"metric": "math.won", "direction": "minimize"}]),
            "direction:",
            "math.won is better when larger",
        ),
        (
            in_search(constraints=["commonsense+math.worst_forgetting <= 10"]),
            "- commonsense+math",
            "'commonsense+math.worst_forgetting <= 10.0' holds for every trial: worst_forgetting is a share; for 10 %",
        ),
        (
            in_search(constraints=["knowlege+math.worst_forgetting <= 10%"]),
            "- knowlege+math",
            "knowlege+math.worst_forgetting: no benchmark has the role 'knowlege'",
        ),
        (
            in_search(objectives=[{"metric": "math.won_adjusted", "direction": "minimize"}]),
            "direction:",
            "math.won_adjusted is better when larger",
        ),
        (
            in_search(objectives=[{"metric": "math.gain", "direction": "minimize"}]),
            "direction:",
            "math.gain is better when larger, whatever its task measures; write direction: maximize",
        ),
        (
            in_search(objectives=[{"metric": "learning.kl", "direction": "maximize"}]),
            "direction:",
            "learning.kl is better when smaller",
        ),
        (
            in_search(
                sampler="gp",
                trials=9,
                objectives=[
                    {"metric": f"{role}.{kind}", "direction": "maximize"}
                    for role in ("math", "commonsense")
                    for kind in ("gain", "value", "base")
                ][:5],
            ),
            "sampler:",
            "gp is too slow for more than 4 objectives",
        ),
    ],
)
def test_mistake_is_reported_at_its_place(parts, write, change, at, expected):
    assert_reported(parts, write, (change, at, expected))


@pytest.mark.parametrize("direction", ["maximize", "minimize"])
@pytest.mark.parametrize("kind", ["value", "base"])
def test_direction_of_a_score_is_the_task_s(parts, write, kind, direction):
    in_search(objectives=[{"metric": f"math.{kind}", "direction": direction}])(parts)
    load(write(parts))
