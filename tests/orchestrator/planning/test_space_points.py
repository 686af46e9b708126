"""Points that stand for a space."""

from orchestrator.config.model import SweepConfig
from orchestrator.planning import space_points


def test_grid_holds_each_trial_once_up_to_the_budget(parts):
    config = SweepConfig.model_validate(parts)
    assert [spec.lora.rank for spec in space_points.grid(config)] == [2, 4]
    parts["search"]["trials"] = 1
    assert len(list(space_points.grid(SweepConfig.model_validate(parts)))) == 1


def test_draws_are_the_same_at_every_call(config):
    assert list(space_points.draws(config)) == list(space_points.draws(config))


def test_corners_hold_the_most_rows(parts):
    parts["space"] = {"data.samples": {"type": "int", "low": 8, "high": 64}, "lora.rank": {"type": "int", "low": 2, "high": 4}}
    parts["search"] |= {"sampler": "random", "trials": 3}
    (corner,) = space_points.corners(SweepConfig.model_validate(parts), ("data.",))
    assert corner[0] == {"data.samples": 64} and corner[1].data.samples == 64
