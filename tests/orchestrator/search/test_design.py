"""Coordinates and parameters are inverse to each other, and a design fills the space."""

import numpy as np
import pytest

from orchestrator.config.load import load
from orchestrator.search.design import Cube, own_settings

SPACE = {
    "lora.rank": {"type": "categorical", "choices": [2, 4, 8]},
    "train.epochs": {"type": "int", "low": 1, "high": 8, "log": True},
    "train.seed": {"type": "int", "low": 8, "high": 32, "step": 8},
    "train.learning_rate": {"type": "float", "low": 1e-4, "high": 1e-2, "log": True},
    "lora.use_dora": {"type": "categorical", "choices": [True, False]},
    "lora.dropout": {"type": "float", "low": 0.0, "high": 0.2, "step": 0.1, "when": {"lora.use_dora": True}},
}


@pytest.fixture
def config(parts, write):
    parts["space"] = SPACE
    parts["search"].update(sampler="random", trials=4)
    return load(write(parts))


def test_coordinates_lead_back_to_their_parameters(config):
    cube, random = Cube(config), np.random.default_rng(0)
    for _ in range(100):
        params, settings = cube.point(random.random(6), {})
        again = cube.point(cube.units(params), {})
        assert again[0] == pytest.approx(params)
        assert again[1] == pytest.approx(settings)


def test_fixed_parameters_stay(config):
    params, settings = Cube(config).point(np.full(6, 0.9), {"lora.use_dora": True, "lora.rank": 4})
    assert (settings["lora.use_dora"], settings["lora.rank"], params["lora.dropout"]) == (True, 4, 0.2)


def test_quarters_of_every_coordinate_hold_a_quarter_of_the_design(config):
    cube = Cube(config)
    points = cube.sobol(3, 16)
    for column in points.T:
        assert np.bincount((column * 4).astype(int), minlength=4).tolist() == [4] * 4
    assert not np.array_equal(points[0], cube.sobol(4, 1)[0])


def test_what_the_config_writes_is_a_guess_where_the_space_has_it(config):
    assert own_settings(config, config) == {
        "lora.rank": 4,
        "train.epochs": 1,
        "train.learning_rate": 2e-3,
        "lora.use_dora": False,
    }
