"""Settings survive the way to Optuna's parameters and back."""

from random import Random

import optuna
import pytest

from orchestrator.config.load import load
from orchestrator.search.optuna_space import distributions, enqueueable, settings

SPACE = {
    "_": [{"lora.rank": 8, "lora.alpha": 16}, {"lora.rank": 16, "lora.alpha": 32}],
    "data.mix": {"type": "simplex", "sources": ["a", "b", "c"]},
    "lora.use_dora": {"type": "categorical", "choices": [True, False]},
    "lora.dropout": {"type": "float", "low": 0.0, "high": 0.2, "step": 0.1, "when": {"lora.use_dora": True}},
}


@pytest.fixture
def config(parts, write):
    parts["space"] = SPACE
    parts["data"] |= {"mix": {"a": 0.5, "b": 0.25, "c": 0.25}}
    parts["data"]["sources"] = {name: {"dataset": "d", "instruction": "i", "response": "r"} for name in "abc"}
    parts["search"].update(sampler="random", trials=4)
    return load(write(parts))


def test_parameters_are_named_after_their_paths(config):
    assert list(distributions(config)) == [
        "lora.rank, lora.alpha",
        "data.mix.a (quantile)",
        "data.mix.b (quantile)",
        "lora.use_dora",
        "lora.dropout",
    ]


def test_settings_survive_the_way_to_optuna_and_back(config):
    random = Random(0)
    for _ in range(50):
        point = config.draw(random)
        params = enqueueable(config, point)
        assert settings(config, params) == pytest.approx(point)
        among = {name: one for name, one in distributions(config).items() if name in params}
        optuna.trial.create_trial(params=params, distributions=among, values=[0.0])  # raises for a value outside
