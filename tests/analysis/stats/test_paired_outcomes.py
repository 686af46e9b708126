import numpy as np
import pytest

from analysis.metrics.definitions import ALL_KINDS
from analysis.stats.paired_outcomes import Answers, slope, weights


@pytest.fixture
def own():
    random = np.random.default_rng(0)
    tuned, base = (random.random((2, 3, 40)) < 0.6) * 1.0, (random.random(40) < 0.7) * 1.0
    return Answers({"score": tuned}, {"score": base}, np.arange(20), np.arange(0, 40, 2))


def test_document_has_one_weight_whatever_others_there_are():
    one, other = weights(np.array([7, 3]), 5), weights(np.array([3, 1, 7]), 5)
    assert (one[:, 0] == other[:, 2]).all() and (one[:, 1] == other[:, 0]).all()


def test_influence_has_mean_0_over_clusters(own):
    assert own.influence(ALL_KINDS["forgetting"]).mean(axis=2) == pytest.approx(np.zeros((2, 3)))


def test_equal_weights_give_the_metric_itself(own):
    kind = ALL_KINDS["forgetting"]
    assert own.redrawn(kind, np.ones((1, 20)))[0] == pytest.approx(own.value(kind))


def test_slope_of_a_gain_is_1_and_minus_1():
    means = {"score": np.full((1, 1), 0.5)}
    assert [float(slope(ALL_KINDS["gain"], means, means, "score", side)[0, 0]) for side in (0, 1)] == pytest.approx([1, -1])
