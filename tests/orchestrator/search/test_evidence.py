"""Outcomes become arrays in which more is better."""

import numpy as np
import optuna
import pytest
from optuna.distributions import FloatDistribution
from optuna.trial import TrialState, create_trial

from orchestrator.config.load import load
from orchestrator.search.evidence import BASE, Aim, Evidence


@pytest.fixture
def config(parts, write):
    parts["search"]["constraints"] = ["math.drop <= 0.5", "math.forgetting <= 0.2"]
    return load(write(parts))


def trial(values=None, violations=None, **given):
    made = create_trial(
        state=TrialState.COMPLETE if values else TrialState.FAIL,
        values=values,
        params={"x": 0.5},
        distributions={"x": FloatDistribution(0, 1)},
        user_attrs=given,
    )
    for name, by in (violations or {}).items():
        made.set_constraint(name, by)
    return made


def test_a_constraint_on_an_objective_is_a_bound_on_it(config):
    aim = Aim.of(config)
    assert (aim.metrics, aim.signs.tolist(), aim.least.tolist()) == (
        ("commonsense.gain", "math.drop"),
        [1, -1],
        [-np.inf, -0.5],
    )
    assert (aim.constraints, aim.constrained) == (("math.forgetting <= 0.2",), ("math.forgetting",))


def test_values_are_oriented_and_errors_squared(config):
    done = trial([0.1, 0.2], {"math.forgetting <= 0.2": 0.3}, errors={"commonsense.gain": 0.05, "math.forgetting": 0.1})
    evidence = Evidence.of([done], Aim.of(config))
    assert evidence.values == pytest.approx(np.array([[0.1, -0.2, -0.3]]))
    assert evidence.variances == pytest.approx(np.array([[0.0025, np.nan, 0.01]]), nan_ok=True)


def test_a_trial_without_values_counts_as_a_bad_one(config):
    ended = [trial([gain, 0.1]) for gain in (0.0, 0.1, 0.2, 0.3)]
    evidence = Evidence.of([*ended, trial()], Aim.of(config))
    assert evidence.values[4, 0] == pytest.approx(0.075)
    assert evidence.values[:, -1].tolist() == [1, 1, 1, 1, -1]


def test_a_diverged_trial_does_not_flatten_the_others_and_keeps_its_rank(config):
    ended = [trial([gain, 0.1]) for gain in (0.0, 0.1, 0.2, 0.3, 0.4, -100.0, -200.0)]
    values = Evidence.of(ended, Aim.of(config)).values[:, 0]
    assert values[:5] == pytest.approx([0.0, 0.1, 0.2, 0.3, 0.4])
    assert values[6] < values[5] < values[0]


def test_the_best_and_some_others_stand_for_a_long_study(config):
    aim = Aim.of(config)
    ended = [trial([gain / 100, 0.1]) for gain in range(100)]
    kept = {one.values[0] for one in aim.best(ended, 20)}
    assert len(kept) == 20
    assert set(np.arange(90, 100) / 100) <= kept
    assert min(kept) == 0.0


def test_bases_are_those_that_the_study_notes(config):
    study = optuna.create_study(directions=["maximize", "minimize"])
    aim = Aim.of(config)
    assert aim.bases(study).shape == (0, 2)
    study.set_user_attr(f"{BASE}key", [0.0, 0.1])
    assert aim.bases(study).tolist() == [[0.0, -0.1]]
    assert aim.reference(config, aim.bases(study)).tolist() == [0.0, -0.5]
