"""The figures that the parts of a sweep share."""

from orchestrator.config.model import SweepConfig
from orchestrator.sweep.controller import SweepController
from tests.factories.sweep_state import complete, fail_next, run_out


def test_unfinished_counts_runs_that_have_not_ended(parts, tmp_path):
    parts["search"]["replicates"] = 3
    sweep = SweepController.open(SweepConfig.model_validate(parts), tmp_path)
    assert sweep.state.unfinished == 1 + 2 * 3
    complete(sweep, sweep.next_job())
    complete(sweep, sweep.next_job())
    assert sweep.state.unfinished == 5
    run_out(sweep)
    assert sweep.state.unfinished == 0


def test_failure_that_is_held_back_is_unfinished(config, tmp_path):
    sweep = SweepController.open(config, tmp_path)
    complete(sweep, sweep.next_job())
    fail_next(sweep)
    assert sweep.state.unfinished == 3


def test_without_a_number_of_trials_nothing_is_expected(parts, tmp_path):
    parts["space"] = {"train.learning_rate": {"type": "float", "low": 1e-4, "high": 1e-2, "log": True}}
    parts["search"] |= {"sampler": "random", "hours": 1}
    sweep = SweepController.open(SweepConfig.model_validate(parts), tmp_path)
    assert (sweep.state.unfinished, sweep.state.expected) == (None, None)
