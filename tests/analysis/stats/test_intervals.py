import math

import numpy as np
import pytest

from analysis.stats.intervals import interval, reach, share_interval, sign_test, skewed, skewed_interval, skewness, symmetric


def test_no_flip_is_no_certainty():
    low, high = interval(np.zeros(1), np.zeros(1), reach(np.array([199.0])), np.ones(1), np.array([200.0]))
    assert low < -0.005 and high > 0.005


def test_sign_test_is_the_binomial_of_the_clusters_that_change():
    tail = sum(math.comb(10, k) for k in range(3)) / 2**10
    for changes in ([-1] * 8 + [1] * 2 + [0] * 5, [-3] * 8 + [2] * 2):
        assert sign_test(np.array(changes)) == pytest.approx(2 * tail)
        assert sign_test(-np.array(changes)) == sign_test(np.array(changes))
    assert sign_test(np.zeros(3)) == sign_test(np.array([-1, 1])) == 1.0


def test_skewed_interval_reaches_farther_where_the_tail_is():
    moved = np.random.default_rng(0).exponential(1, (1, 1, 60)) ** 2
    moved -= moved.mean()
    variance = np.array([moved.var(ddof=1) / 60])
    skew = skewness(moved, variance)
    assert skewness(-moved, variance) == -skew < 0
    low, high = (float(end[0]) for end in skewed_interval(np.zeros(1), variance, np.full(1, 2.0), skew))
    assert high > 2.1 * np.sqrt(variance[0]) > -low == pytest.approx(2 * np.sqrt(variance[0]))
    assert symmetric(skewed(np.array([-2.0, 0.0, 2.0]), skew), skew) == pytest.approx([-2.0, 0.0, 2.0])
    even = skewed_interval(np.zeros(1), np.ones(1), np.full(1, 2.0), np.zeros(1))
    assert np.concatenate(even) == pytest.approx([-2.0, 2.0], abs=1e-5)


def test_reach_is_students_quantile_and_widens_with_several():
    assert reach(np.array([1e6, 4.0])) == pytest.approx([1.96, 2.776], abs=1e-3)
    assert reach(10.0, of=5) > reach(10.0)


def test_share_interval_stays_within_0_and_1():
    low, high = share_interval(np.array([0.0, 1.0]), np.zeros(2), np.full(2, 1.96), np.full(2, 20.0))
    assert (low >= 0).all() and (high <= 1).all()
    assert high[0] > 0.1 and low[1] < 0.9
