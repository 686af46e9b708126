"""Numbers for readers."""

import math

import pytest

from analysis.formatting import numbers


@pytest.mark.parametrize(
    ("seconds", "shown"),
    [
        (0.04, "0.0 s"),
        (8.24, "8.2 s"),
        (9.97, "10.0 s"),
        (42.4, "42.4 s"),
        (59.7, "59.7 s"),
        (30, "30 s"),
        (59.97, "1 min 00 s"),
        (200, "3 min 20 s"),
        (3599.6, "1 h 00 min"),
        (7500, "2 h 05 min"),
        (math.nan, "–"),
        (None, "–"),
    ],
)
def test_duration_has_two_units_at_most(seconds, shown):
    assert numbers.duration(seconds) == shown


def test_probability_is_not_more_precise_than_its_draws():
    assert [numbers.probability(share) for share in (0.001, 0.62, 0.999, math.nan)] == ["< 1 %", "62 %", "> 99 %", "–"]


def test_p_values_have_three_decimals_where_they_are_small():
    assert [numbers.p_value(p) for p in (0.0001, 0.0312, 0.25)] == ["p < 0.001", "p = 0.031", "p = 0.25"]


def test_sentence_has_the_unit_and_the_interval():
    row = {"math.gain": 0.12, "math.gain_low": 0.03, "math.gain_high": 0.21}
    assert numbers.sentence(row, "math.gain") == "+12.0 points (95 % interval +3.0 to +21.0)"
    assert numbers.sentence(row | {"math.gain_low": math.nan}, "math.gain") == "+12.0 points"


def test_error_of_zero_is_shown_as_the_interval_that_doubts_it():
    row = {"math.forgetting": 0.0, "math.forgetting_se": 0.0, "math.forgetting_sd": math.nan}
    known = row | {"math.forgetting_low": -0.667, "math.forgetting_high": 0.667}
    assert numbers.with_error(known, "math.forgetting") == "0.0 (−66.7 to +66.7)"
    assert numbers.with_error(known | {"math.forgetting_sd": 0.0}, "math.forgetting") == "0.0 (−66.7 to +66.7), sd 0.0"
    assert numbers.with_error(known | {"math.forgetting_se": 0.021}, "math.forgetting") == "0.0 ± 2.1"
    unknown = row | {"math.forgetting_low": math.nan, "math.forgetting_high": math.nan}
    assert numbers.with_error(unknown, "math.forgetting") == "0.0"


def test_memory_is_in_powers_of_ten():
    assert [numbers.memory(size) for size in (812e6, 3.41e9)] == ["812 MB", "3.4 GB"]
