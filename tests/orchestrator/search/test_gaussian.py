"""A Gaussian process believes measurements as far as their errors allow."""

import numpy as np
import pytest
from scipy.optimize import approx_fprime

from orchestrator.search.gaussian import Process

ROWS = np.linspace(0, 1, 9)[:, None]
GROUPS = np.array([0])


def test_gradient_is_that_of_the_loss():
    random = np.random.default_rng(0)
    process = Process(random.random((12, 4)), np.array([0, 1, 2, 2]), random.random(12), np.full(12, 0.01))
    theta = np.array([0.1, 0.4, 1.0, 0.3, -0.2])
    assert process._loss(theta)[1] == pytest.approx(approx_fprime(theta, lambda at: process._loss(at)[0], 1e-6), abs=1e-3)


def test_a_noisy_measurement_is_not_trusted_over_precise_ones():
    values, variances = np.zeros(9), np.full(9, 1e-4)
    values[[2, 6]] = 1.0
    variances[2] = 1.0
    process = Process(ROWS, GROUPS, values, variances)
    means = process.means(process.fit(1, np.random.default_rng(0))[0])
    assert means[2] < 0.5 < means[6]


def test_noise_is_estimated_where_it_is_unknown():
    noise = 0.3 * np.random.default_rng(1).standard_normal(40)
    rows = np.linspace(0, 1, 40)[:, None]
    truth = np.sin(3 * rows[:, 0])
    process = Process(rows, GROUPS, truth + noise, np.full(40, np.nan))
    means = process.means(process.fit(1, np.random.default_rng(0))[0])
    assert np.abs(means - truth).mean() < np.abs(noise).mean() / 2


def test_a_known_point_is_certain_and_a_distant_one_is_not():
    process = Process(ROWS[:4], GROUPS, np.array([0.0, 1.0, 0.5, 0.2]), np.full(4, 1e-6))
    theta = process.fit(1, np.random.default_rng(0))[0]
    draw = process.draw(theta, ROWS[8:], np.random.default_rng(0).standard_normal((200, 5)))
    spread = draw.values.std(axis=0)
    assert spread[:4].max() < 0.1 * spread[4]
    mean, sd = draw.at(ROWS[[0, 6, 8]])
    assert mean[:, 2] == pytest.approx(draw.values[:, 4], abs=0.05)  # a pending point keeps the value that was drawn for it
    assert max(sd[0], sd[2]) < 0.1 * sd[1]


def test_equal_values_and_repeated_points_are_no_obstacle():
    process = Process(np.zeros((5, 1)), GROUPS, np.ones(5), np.zeros(5))
    draw = process.draw(process.fit(4, np.random.default_rng(0))[3], np.zeros((2, 1)), np.zeros((1, 7)))
    assert np.isfinite(draw.at(ROWS)[0]).all()
