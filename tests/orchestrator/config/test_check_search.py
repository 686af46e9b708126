"""Mistakes in `search` are reported at their place."""

import pytest

from tests.factories.configs import assert_reported, in_search


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
