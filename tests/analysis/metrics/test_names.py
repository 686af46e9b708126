"""Names of metrics and constraints on them: what is met, and what is refused."""

import math

import pytest

from analysis.metrics.names import Constraint, parse_constraint, split_metric
from trials.errors import InputError


def test_bound_is_feasible_and_undefined_is_not():
    within = parse_constraint(" math.forgetting<=0.10 ")
    assert within == Constraint("math.forgetting", "<=", 0.1)
    assert within.violation(0.1) <= 0 < within.violation(0.11)
    above = parse_constraint("commonsense.gain >= 2e-2")
    assert above.violation(0.02) <= 0 < above.violation(0.01)
    for constraint in (within, above):
        assert constraint.violation(None) > 0
        assert constraint.violation(math.nan) > 0


@pytest.mark.parametrize("documents", [40, 50, 1319, 10042])
def test_rounding_decides_no_constraint(documents):
    for right in range(documents // 2):
        share, base = right / documents, (documents // 2) / documents
        exact = (documents // 2 - right) / (documents // 2)
        assert Constraint("math.forgetting", "<=", exact).violation((base - share) / base) == 0
        assert Constraint("math.drop", ">=", exact).violation((base - share) / base) == 0


@pytest.mark.parametrize("value", [0.1, 1e-7, -0.25, 0.123456789])
def test_written_constraint_reads_back(value):
    constraint = Constraint("math.drop", ">=", value)
    assert parse_constraint(str(constraint)) == constraint


@pytest.mark.parametrize(
    "text",
    ["math.drop<=10%", "math.drop <= 10 %", "0.1 >= math.drop", "math.drop ≤ 0.1", "math.drop =< .1", "math.drop<=.1"],
)
def test_spellings_of_a_constraint_mean_the_same(text):
    assert parse_constraint(text) == Constraint("math.drop", "<=", 0.1)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "math.forgetting",
        "math.forgetting < 0.1",
        "math.forgetting == 0.1",
        "math.forgetting <= ",
        "math.forgetting <= nan",
        "math.forgetting <= inf",
        "0.1 <= math.forgetting <= 0.2",
        "math <= 0.1",
        "a.b.gain <= 1",
        ".gain <= 1",
    ],
)
def test_malformed_constraint_is_refused_with_the_right_form(text):
    with pytest.raises(InputError) as refused:
        parse_constraint(text)
    assert "\n" not in str(refused.value)
    assert "<=" in str(refused.value) or "forgetting, base" in str(refused.value)


def test_misspelt_metric_gets_the_nearest_and_unknown_role_the_known_ones():
    with pytest.raises(InputError, match=r"did you mean math\.forgetting"):
        split_metric("math.forgeting")
    with pytest.raises(InputError, match="the roles are commonsense, math"):
        parse_constraint("knowledge.gain >= 0", roles=["math", "commonsense"])
