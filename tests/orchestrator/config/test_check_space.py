"""Mistakes in the names and conditions of `space` are reported at their place."""

import pytest

from tests.factories.configs import DORA, DROPOUT, PAIRS, RATE, assert_reported, in_space


@pytest.mark.parametrize(
    ("change", "at", "expected"),
    [
        (in_space(_=[*PAIRS, {"lora.rank": 4}]), "- lora.rank: 4", "name the same settings, here lora.rank, lora.alpha"),
        (in_space(_=[{"lora.rang": 4}]), "- lora.rang: 4", "did you mean 'lora.rank'?"),
        (in_space(_=PAIRS, lora__alpha=DROPOUT), "lora.alpha:", "lora.alpha is varied by `_` already"),
        (in_space(_=[*PAIRS, dict(PAIRS[0])]), "- lora.rank: 8", "the point 8, 16 of `_` stands there twice"),
        (in_space(_=[{}]), "- {}", "at least one setting"),
        (in_space(_=DORA), "_:", "a list of points stands under `_`"),
        (in_space(lora__rank=PAIRS), "lora.rank:", "one parameter under its path, but got 'lora.rank'"),
        (in_space(lora__dropout={**DROPOUT, "when": {"lora.use_dora": True}}), "lora.use_dora:", "there are none"),
        (
            in_space(lora__dropout={**DROPOUT, "when": {"lora.use_dor": True}}, lora__use_dora=DORA),
            "lora.use_dor:",
            "did you mean 'lora.use_dora'?",
        ),
        (
            in_space(lora__dropout={**DROPOUT, "when": {"train.learning_rate": 1}}, train__learning_rate=RATE),
            "train.learning_rate: 1",
            "`when` names a categorical parameter of the space",
        ),
        (
            in_space(lora__dropout={**DROPOUT, "when": {"lora.rank": [8, 9]}}, _=PAIRS),
            "lora.rank:",
            "lora.rank is never 9; its values are 8, 16",
        ),
        (
            in_space(
                lora__use_dora={**DORA, "when": {"train.schedule": "cosine"}},
                train__schedule={"type": "categorical", "choices": ["cosine"], "when": {"lora.use_dora": True}},
            ),
            "when:",
            "the conditions of lora.use_dora, train.schedule lead back to themselves",
        ),
        (in_space(data__mix={"type": "simplex", "sources": ["micro/gsm8k", "x"]}), "sources:", "data.mix has no source 'x'"),
        (in_space(data__mix={"type": "simplex", "step": 0.3}), "step:", "step 0.3 does not divide the share 1"),
        (in_space(data__mix=DROPOUT), "data.mix:", "together by `type: simplex`"),
        (in_space(data__samples={"type": "simplex"}), "data.samples:", "a simplex is the whole of data.mix"),
        (
            in_space(**{"data__mix": {"type": "simplex"}, "data__mix__micro/gsm8k": DROPOUT}),
            "data.mix:",
            "data.mix.micro/gsm8k and the simplex over data.mix both set its shares",
        ),
    ],
)
def test_mistake_is_reported_at_its_place(parts, write, change, at, expected):
    assert_reported(parts, write, (change, at, expected))
