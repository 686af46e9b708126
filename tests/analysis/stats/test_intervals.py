import math

import numpy as np
import pytest

from analysis.stats.intervals import interval, mcnemar, reach, share_interval


def test_no_flip_is_no_certainty():
    low, high = interval(np.zeros(1), np.zeros(1), reach(np.array([199.0])), np.ones(1), np.array([200.0]))
    assert low < -0.005 and high > 0.005


def test_mcnemar_is_the_binomial_of_the_flips():
    tuned, base = np.array([0] * 8 + [1] * 2 + [1] * 5), np.array([1] * 8 + [0] * 2 + [1] * 5)
    tail = sum(math.comb(10, k) for k in range(3)) / 2**10
    assert mcnemar(tuned, base) == (8, 2, pytest.approx(2 * tail))
    assert mcnemar(base, base) == (0, 0, 1.0)


def test_reach_is_students_quantile_and_widens_with_several():
    assert reach(np.array([1e6, 4.0])) == pytest.approx([1.96, 2.776], abs=1e-3)
    assert reach(10.0, of=5) > reach(10.0)


def test_share_interval_stays_within_0_and_1():
    low, high = share_interval(np.array([0.0, 1.0]), np.zeros(2), np.full(2, 1.96), np.full(2, 20.0))
    assert (low >= 0).all() and (high <= 1).all()
    assert high[0] > 0.1 and low[1] < 0.9
