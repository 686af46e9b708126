"""Values that make no trial are reported at their place."""

import pytest

from tests.factories.configs import DORA, DROPOUT, PAIRS, RATE, assert_reported, both, in_search, in_space


@pytest.mark.parametrize(
    ("change", "at", "expected"),
    [
        (in_search(first=[{"lora.rang": 4}]), "- lora.rang: 4", "'lora.rang' is not in the space; did you mean 'lora.rank'?"),
        (in_search(first=[{"lora.rank": 3}]), "- lora.rank: 3", "lora.rank = 3 is outside of choices [2, 4]"),
        (in_search(first=[{"lora.rank": True}]), "- lora.rank: true", "lora.rank = True is outside of choices [2, 4]"),
        (
            both(in_space(train__learning_rate=RATE), in_search(first=[{"train.learning_rate": 1}])),
            "- train.learning_rate: 1",
            "train.learning_rate = 1 is outside of low 0.0001, high 0.01",
        ),
        (
            both(in_space(lora__dropout={**DROPOUT, "step": 0.1}), in_search(first=[{"lora.dropout": 0.15}])),
            "- lora.dropout: 0.15",
            "outside of low 0.0, high 0.2, step 0.1",
        ),
        (
            both(
                in_space(lora__use_dora=DORA, lora__dropout={**DROPOUT, "when": {"lora.use_dora": True}}),
                in_search(first=[{"lora.dropout": 0.1}]),
            ),
            "- lora.dropout: 0.1",
            "lora.dropout has a place only in a point in which lora.use_dora is True",
        ),
        (
            both(in_space(_=PAIRS), in_search(first=[{"lora.rank": 8, "lora.alpha": 32}])),
            "- lora.rank: 8",
            "no point of `_` has",
        ),
        (
            both(in_space(_=[*PAIRS, {"lora.rank": 8, "lora.alpha": 8}]), in_search(first=[{"lora.rank": 8}])),
            "- lora.rank: 8",
            "several points of `_` have lora.rank = 8; name lora.alpha too",
        ),
        (
            both(in_space(data__mix={"type": "simplex"}), in_search(first=[{"data.mix.micro/gsm8k": 0.5}])),
            "- data.mix.micro/gsm8k: 0.5",
            "given together; data.mix.micro/alpaca is missing",
        ),
        (
            both(
                in_space(data__mix={"type": "simplex"}),
                in_search(first=[{"data.mix.micro/gsm8k": 0.5, "data.mix.micro/alpaca": 0.4}]),
            ),
            "data.mix.micro/alpaca: 0.4",
            "the shares add up to 0.9, they must add up to 1",
        ),
        (
            both(in_space(train__seed={"type": "int", "low": 0, "high": 3}), in_search(replicates=2)),
            "replicates:",
            "they differ in their seeds, and the space varies train.seed",
        ),
        (
            both(in_space(train__seed={"type": "int", "low": 0, "high": 10_000}), in_search(sampler="grid")),
            "space:",
            "too many points for the grid sampler",
        ),
        (
            in_space(_=[*PAIRS, {"lora.rank": 0, "lora.alpha": 1}]),
            "- lora.rank: 0",
            "lora.rank = 0, lora.alpha = 1: lora.rank: expected",
        ),
        (
            in_space(lora__dropout={**DROPOUT, "when": {"lora.rank": 8, "lora.alpha": 32}}, _=PAIRS),
            "when:",
            "its conditions are never all met",
        ),
        (
            both(in_space(data__mix={"type": "simplex"}), in_search(sampler="grid")),
            "data.mix:",
            "choices or a step for data.mix",
        ),
    ],
)
def test_mistake_is_reported_at_its_place(parts, write, change, at, expected):
    assert_reported(parts, write, (change, at, expected))
