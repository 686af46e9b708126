"""What errors mean for the front: probabilities, the luck of the best, and what two sweeps share."""

import numpy as np
import pytest

from analysis.metrics.names import Constraint, Criteria, Objective
from analysis.stats.posterior import judge
from analysis.stats.untrained import Untrained
from tests.factories.sweeps import Builder

OBJECTIVES = (
    Objective(metric="commonsense.gain", direction="maximize"),
    Objective(metric="math.forgetting", direction="minimize"),
)


def judged(values, errors, constraints=(), bases=None):
    criteria = Criteria(OBJECTIVES, tuple(constraints))
    bases = Untrained.none(len(errors), values.shape[1]) if bases is None else bases
    return judge(values, errors, criteria, bases)


def test_without_errors_the_front_is_certain():
    values = np.array([[0.02, 0.1], [0.01, 0.05], [0.0, 0.2]])
    found = judged(values, np.zeros((100, 3, 2)), [Constraint("math.forgetting", "<=", 0.08)])
    assert found.p_front.tolist() == [0, 1, 0]
    assert found.p_feasible.tolist() == found.p_constraint[0].tolist() == [0, 1, 0]


def test_too_few_points_are_not_corrected():
    values = np.array([[0.01 * n, 0.1] for n in range(4)])
    errors = np.random.default_rng(0).normal(0, 0.01, (100, 4, 2))
    assert np.isnan(judged(values[:3], errors[:, :3]).corrected).all()
    assert np.isfinite(judged(values, errors).corrected).all()


def test_undefined_point_takes_no_part():
    values = np.array([[0.02, np.nan], [0.01, 0.05]])
    found = judged(values, np.zeros((100, 2, 2)))
    assert np.isnan(found.p_front[0]) and np.isnan(found.draws[:, 0]).all()
    assert found.p_front[1] == 1


def test_shared_errors_cancel_between_points():
    """A base that was lucky on these documents makes all gains uncertain and no order of theirs."""
    random = np.random.default_rng(0)
    values = np.array([[0.03, 0.1], [0.02, 0.2], [0.01, 0.3]])
    shared = np.broadcast_to(random.normal(0, 0.05, (400, 1, 2)), (400, 3, 2))
    found = judged(values, shared)
    assert found.p_front.tolist() == [1, 0, 0]
    assert found.draws[:, 0, 0].std() == pytest.approx(0.05, rel=0.15)


def test_two_trials_of_one_key_are_one_point(tmp_path):
    builder = Builder(tmp_path).baseline().add((30, 38)).add((22, 30)).add((21, 31)).add((20, 30))
    once = builder.load(constraints=[]).trials["p_front"].tolist()
    builder.trials.append({**builder.trials[0], "number": 4})
    twice = builder.load(constraints=[]).trials["p_front"].tolist()
    assert twice[4] == twice[0] == pytest.approx(once[0], abs=0.1)


def test_metric_without_an_error_gives_no_probability(tmp_path):
    builder = Builder(tmp_path).baseline()
    for kl in (0.0499, 0.0501):
        learnt = {"a": {"tokens": 9.0, "loss": 1.0, "base_loss": 2.0, "kl": kl, "reverse_kl": 0.1}}
        builder.add((30, 30), learning=learnt)
    sweep = builder.load(constraints=["learning.kl <= 0.05"])
    assert sweep.trials["feasible"].tolist() == [True, False]
    assert sweep.trials["p_feasible"].isna().all()


def test_base_competes_and_its_probability_counts_what_dominates_it():
    base = Untrained(np.zeros((1, 2)), np.zeros((100, 1, 2)))
    worse, dearer, better = [-0.02, 0.01], [0.02, 0.05], [0.01, -0.01]
    found = judged(np.array([worse, dearer]), np.zeros((100, 2, 2)), bases=base)
    assert found.p_front.tolist() == [0, 1]
    assert found.p_untrained.tolist() == [1]
    found = judged(np.array([worse, dearer, better]), np.zeros((100, 3, 2)), bases=base)
    assert found.p_front.tolist() == [0, 1, 1]
    assert found.p_untrained.tolist() == [0]


def test_base_that_breaks_a_constraint_does_not_compete():
    base = Untrained(np.zeros((1, 2)), np.zeros((100, 1, 2)))
    found = judged(np.array([[-0.02, 0.01]]), np.zeros((100, 1, 2)), [Constraint("commonsense.gain", "<=", -0.01)], base)
    assert found.p_front.tolist() == [1]
    assert found.p_untrained.tolist() == [0]
