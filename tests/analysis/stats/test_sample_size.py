"""The number of documents that decides is that of a simulation."""

import numpy as np
import pytest

from analysis.stats.intervals import reach
from analysis.stats.sample_size import POWER, power, sufficient_documents


def test_power_is_the_share_of_intervals_that_exclude_the_bound():
    random = np.random.default_rng(0)
    n, distance, sd = 30, 0.2, 0.4
    drawn = random.normal(distance, sd, (20_000, n))
    half = float(reach(n - 1)) * drawn.std(axis=1, ddof=1) / np.sqrt(n)
    assert power((distance,), sd / np.sqrt(n), n - 1) == pytest.approx((drawn.mean(axis=1) - half > 0).mean(), abs=0.01)


def test_sufficient_number_has_the_power_and_one_less_has_not():
    n = sufficient_documents(0.1, 0.08, 0.0, 40, 1)
    assert n is not None
    assert power((0.1,), 0.08 * np.sqrt(40 / n), n - 1) >= POWER > power((0.1,), 0.08 * np.sqrt(40 / (n - 1)), n - 2)


def test_four_times_as_many_for_half_the_distance():
    near, far = (sufficient_documents(distance, 0.08, 0.0, 40, 1) for distance in (0.025, 0.05))
    assert near / far == pytest.approx(4, rel=0.02)


def test_value_on_the_bound_is_never_settled():
    assert sufficient_documents(0.0, 0.08, 0.0, 40, 1) is None


def test_documents_do_not_shrink_what_seeds_differ_by():
    assert sufficient_documents(0.1, 0.08, 0.07, 40, 3) is None
    assert sufficient_documents(0.1, 0.08, 0.01, 40, 3) is not None
