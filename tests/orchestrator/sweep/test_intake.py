"""Points that become trials, and those that never do."""

from orchestrator.config.model import SweepConfig
from orchestrator.sweep.controller import SweepController
from tests.factories.sweep_state import run_out, states


def test_exhausted_space_ends_the_sweep(parts, tmp_path):
    parts["search"].update(sampler="random", trials=6)
    sweep = SweepController.open(SweepConfig.model_validate(parts), tmp_path)  # two settings, six trials
    assert len(run_out(sweep)) == 3
    assert sweep.over
    assert states(sweep) == ["complete"] * 2


def test_contradictory_settings_are_never_tried(parts, tmp_path):
    parts["space"] = {
        "train.batch_size": {"type": "categorical", "choices": [8, 12]},
        "train.micro_batch_size": {"type": "categorical", "choices": [4, 8]},
    }
    sweep = SweepController.open(SweepConfig.model_validate(parts), tmp_path)
    assert len(run_out(sweep)) == 4  # the baseline and three of four points
    assert states(sweep) == ["complete"] * 3
