import numpy as np
import pytest

from analysis.stats import shrinkage
from analysis.stats.shrinkage import posterior, root


def test_best_of_many_alike_shrinks_and_an_outlier_does_not():
    random = np.random.default_rng(1)
    truth = np.zeros((40, 1))
    values = truth + random.normal(0, 0.02, (40, 1))
    errors = random.normal(0, 0.02, (500, 40, 1))
    mean, draws = posterior(values, errors)
    assert values.max() > 0.035
    assert mean.max() < 0.02
    assert np.percentile(draws[:, values.argmax(), 0], 2.5) < 0 < np.percentile(draws[:, values.argmax(), 0], 97.5)
    far, _ = posterior(np.append(values[:-1], [[0.5]], axis=0), errors)
    assert far[-1, 0] == pytest.approx(0.5, abs=0.03)


def test_fewer_than_four_points_are_not_shrunk():
    values, errors = np.array([[0.1], [0.2], [0.9]]), np.random.default_rng(0).normal(0, 0.05, (200, 3, 1))
    mean, draws = posterior(values, errors)
    assert (mean == values).all()
    assert draws.std() > 0


def test_root_times_its_transpose_is_the_matrix():
    covariance = np.array([[2.0, 0.5], [0.5, 1.0]])
    assert root(covariance) @ root(covariance).T == pytest.approx(covariance)


def test_point_that_is_truly_far_keeps_most_of_its_distance(monkeypatch):
    random = np.random.default_rng(2)
    values = np.append(random.normal(0, 0.03, 15), 0.12)[:, None]
    errors = random.normal(0, 0.02, (300, 16, 1))
    mean, _ = posterior(values, errors)
    monkeypatch.setattr(shrinkage, "_TAIL", (1e-9, 1.0))  # a normal tail
    normal, _ = posterior(values, errors)
    assert 0.12 - mean[-1, 0] < 0.6 * (0.12 - normal[-1, 0])
