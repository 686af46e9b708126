import optuna
import pytest
from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution
from optuna.trial import TrialState

from analysis.explore.optuna_study import distribution, study
from tests.factories.sweeps import Builder, oom


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ([2, 8, None], IntDistribution(2, 8)),
        ([1e-5, 1e-3], FloatDistribution(1e-5, 1e-3, log=True)),
        ([0.0, 1.0], FloatDistribution(0.0, 1.0)),
        (["a", "b", "a"], CategoricalDistribution(["a", "b"])),
        ([["q", "k"], "all"], CategoricalDistribution(['["q", "k"]', "all"])),
        ([None, float("nan")], None),
    ],
)
def test_distribution_holds_the_values(values, expected):
    assert distribution(values) == expected


def test_study_has_the_states_and_constraints_of_the_sweep(tmp_path):
    sweep = Builder(tmp_path).baseline().add((26, 37)).add((40, 10)).add(failure=oom()).add().load()
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    trials = study(sweep).trials
    states = [TrialState.COMPLETE, TrialState.COMPLETE, TrialState.FAIL, TrialState.WAITING]
    assert [trial.state for trial in trials] == states
    (bound,) = trials[1].constraints.values()
    assert bound == pytest.approx(0.75 - 0.10)
