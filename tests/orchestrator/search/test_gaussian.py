"""A Gaussian process believes measurements as far as their errors allow."""

import numpy as np
import pytest
from scipy.optimize import approx_fprime

from orchestrator.search.gaussian import Inputs, Process

ROWS = np.linspace(0, 1, 9)[:, None]


def own(rows):
    return Inputs(rows, np.array([0]), np.zeros(len(rows), int), np.zeros(len(rows), int))


def test_gradient_is_that_of_the_loss():
    random = np.random.default_rng(0)
    inputs = Inputs(random.random((12, 4)), np.array([0, 1, 2, 2]), np.arange(12) % 3, np.arange(12) % 2)
    process = Process(inputs, random.random(12), np.full(12, 0.01))
    theta = np.array([0.1, 0.4, 1.0, 0.2, 0.3, -0.2])
    assert process._loss(theta)[1] == pytest.approx(approx_fprime(theta, lambda at: process._loss(at)[0], 1e-6), abs=1e-3)


def test_a_noisy_measurement_is_not_trusted_over_precise_ones():
    values, variances = np.zeros(9), np.full(9, 1e-4)
    values[[2, 6]] = 1.0
    variances[2] = 1.0
    process = Process(own(ROWS), values, variances)
    means = process.means(process.fit(1, np.random.default_rng(0))[0])
    assert means[2] < 0.5 < means[6]


def test_noise_is_estimated_where_it_is_unknown():
    noise = 0.3 * np.random.default_rng(1).standard_normal(40)
    rows = np.linspace(0, 1, 40)[:, None]
    truth = np.sin(3 * rows[:, 0])
    process = Process(own(rows), truth + noise, np.full(40, np.nan))
    means = process.means(process.fit(1, np.random.default_rng(0))[0])
    assert np.abs(means - truth).mean() < np.abs(noise).mean() / 2


def test_a_known_point_is_certain_and_a_distant_one_is_not():
    process = Process(own(ROWS[:4]), np.array([0.0, 1.0, 0.5, 0.2]), np.full(4, 1e-6))
    theta = process.fit(1, np.random.default_rng(0))[0]
    draw = process.draw(theta, ROWS[8:], np.random.default_rng(0).standard_normal((200, 5)))
    spread = draw.values.std(axis=0)
    assert spread[:4].max() < 0.1 * spread[4]
    mean, sd = draw.at(ROWS[[0, 6, 8]])
    assert mean[:, 2] == pytest.approx(draw.values[:, 4], abs=0.05)  # a pending point keeps the value that was drawn for it
    assert max(sd[0], sd[2]) < 0.1 * sd[1]


def test_equal_values_and_repeated_points_are_no_obstacle():
    process = Process(own(np.zeros((5, 1))), np.ones(5), np.zeros(5))
    draw = process.draw(process.fit(4, np.random.default_rng(0))[3], np.zeros((2, 1)), np.zeros((1, 7)))
    assert np.isfinite(draw.at(ROWS)[0]).all()


def related(shift, scale=1.0):
    """Error of the own function's mean and its spread at 0.3, from four own points and twenty of another context."""
    rows = np.concatenate([[0.0, 0.5, 0.8, 1.0], np.linspace(0, 1, 20)])[:, None]
    contexts = np.array([0] * 4 + [1] * 20)
    values = np.sin(5 * rows[:, 0])
    values[4:] = scale * values[4:] + shift
    process = Process(Inputs(rows, np.array([0]), contexts, 0 * contexts), values, np.full(24, 1e-3))
    random = np.random.default_rng(0)
    found = [
        process.draw(theta, np.empty((0, 1)), random.standard_normal((50, 24))).at(np.array([[0.3]]))
        for theta in process.fit(8, random)
    ]
    mean = np.mean([means.mean() for means, _ in found])
    return abs(mean - np.sin(1.5)), np.mean([sd[0] for _, sd in found])


def test_what_another_context_shows_counts_where_the_two_agree():
    assert related(0.0)[0] < 0.15


def test_another_context_may_differ_by_a_constant():
    assert related(0.6)[0] < 0.3


def test_a_context_that_contradicts_the_own_one_is_trusted_less():
    contradicting = related(0.0, scale=-1.0)
    assert contradicting[1] > 1.5 * related(0.0)[1]


def test_luck_that_all_looks_share_is_no_evidence_against_each():
    """Ten looks on hard documents show little; whole trials nearby show much."""
    rows = np.concatenate([np.linspace(0, 1, 10), np.linspace(0, 1, 4)])[:, None]
    values, variances = np.array([0.0] * 10 + [1.0] * 4), np.array([0.4] * 10 + [0.01] * 4)

    def mean(parts):
        process = Process(Inputs(rows, np.array([0]), np.zeros(14, int), np.array(parts)), values, variances)
        return process.means(process.fit(1, np.random.default_rng(0))[0])[:10].mean()

    assert mean([1] * 10 + [0] * 4) > mean([0] * 14) + 0.02
