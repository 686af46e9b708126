"""Distances between vectors are those that a kernel should see."""

import numpy as np
import pytest

from orchestrator.config.load import load
from orchestrator.search.features import Features


@pytest.fixture
def features(parts, write):
    def made(space: dict, mix: dict | None = None) -> Features:
        parts["space"] = space
        if mix is not None:
            parts["data"]["mix"] = mix
            parts["data"]["sources"] = {name: {"dataset": "d", "instruction": "i", "response": "r"} for name in mix}
        parts["search"].update(sampler="random", trials=4)
        return Features(load(write(parts)))

    return made


def test_any_two_unordered_choices_are_equally_far_apart(features):
    made = features({"train.schedule": {"type": "categorical", "choices": ["constant", "cosine", "wsd"]}})
    rows = made.rows([{"train.schedule": choice} for choice in ("constant", "cosine", "wsd")])
    assert made.groups.tolist() == [0, 0, 0]
    distances = np.linalg.norm(rows[:, None] - rows[None], axis=2)
    assert distances == pytest.approx(1 - np.eye(3))


def test_numeric_choices_are_equidistant_in_their_order(features):
    made = features({"lora.rank": {"type": "categorical", "choices": [8, 2, 32]}})
    assert made.rows([{"lora.rank": rank} for rank in (2, 8, 32)]).ravel().tolist() == [0.0, 0.5, 1.0]


def test_a_log_range_is_equidistant_in_the_logarithm(features):
    made = features({"train.learning_rate": {"type": "float", "low": 1e-4, "high": 1e-2, "log": True}})
    rows = made.rows([{"train.learning_rate": rate} for rate in (1e-4, 1e-3, 1e-2)])
    assert rows.ravel() == pytest.approx([0.0, 0.5, 1.0])


def test_an_inactive_parameter_stands_in_its_middle(features):
    made = features(
        {
            "lora.use_dora": {"type": "categorical", "choices": [True, False]},
            "lora.dropout": {"type": "float", "low": 0.0, "high": 0.2, "when": {"lora.use_dora": True}},
        }
    )
    assert made.rows([{"lora.use_dora": False}]).tolist() == [[1.0, 0.5]]


def test_a_simplex_has_its_shares_and_one_length(features):
    made = features({"data.mix": {"type": "simplex"}}, {"a": 0.5, "b": 0.25, "c": 0.25})
    assert made.groups.tolist() == [0, 0, 0]
    assert made.rows([{"data.mix.a": 0.2, "data.mix.b": 0.3, "data.mix.c": 0.5}]) == pytest.approx(np.array([[0.2, 0.3, 0.5]]))


def test_paired_settings_have_a_column_for_each_that_varies(features):
    made = features({"_": [{"lora.rank": 8, "lora.alpha": 16}, {"lora.rank": 4, "lora.alpha": 16}]})
    assert made.rows([{"lora.rank": 4, "lora.alpha": 16}, {"lora.rank": 8, "lora.alpha": 16}]).tolist() == [[0.0], [1.0]]


def test_paired_lists_are_choices(features):
    """A list of the config is a tuple in a trial's spec."""
    names = (["q_proj", "v_proj"], ["q_proj", "k_proj"])
    made = features({"_": [{"lora.target_modules": one, "lora.rank": rank} for one, rank in zip(names, (4, 8), strict=True)]})
    rows = made.rows([{"lora.target_modules": kind(names[0]), "lora.rank": 4} for kind in (list, tuple)])
    assert rows.tolist() == [[0.0, 0.0]] * 2


def test_a_parameter_of_one_value_has_no_column(features):
    assert features({"lora.rank": {"type": "categorical", "choices": [8]}}).groups.tolist() == []
