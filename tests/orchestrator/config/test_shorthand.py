"""Short spellings have one meaning or are refused."""

import pytest
from pydantic_core import PydanticCustomError

from orchestrator.config import shorthand
from orchestrator.config.load import load


def test_short_spelling_equals_full_one(parts, write):
    full = load(write(parts))
    parts["space"] = {"lora.rank": [2, 4]}
    parts["search"]["objectives"] = ["commonsense.gain", {"math.drop": "min"}]
    parts["search"]["constraints"] = "math.drop <= 0.5"
    assert load(write(parts)) == full


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ({"lora.rank": {"min": 2, "max": 8}}, {"type": "int", "low": 2, "high": 8}),
        ({"train.learning_rate": {"distribution": "loguniform", "low": 1, "high": 2}}, {"type": "float", "log": True}),
        ({"lora.rank": {"values": [2, 4]}}, {"type": "categorical", "choices": [2, 4]}),
    ],
)
def test_foreign_spelling_is_read(given, expected):
    (found,) = shorthand.space(given).values()
    assert expected.items() <= found.items()


@pytest.mark.parametrize("word", ["randint", "log_uniform"])
def test_spelling_with_another_meaning_elsewhere_is_refused(word):
    with pytest.raises(PydanticCustomError, match="elsewhere"):
        shorthand.space({"lora.rank": {"type": word, "low": 1, "high": 2}})


def test_metric_has_a_natural_direction():
    assert [shorthand.natural(f"math.{kind}") for kind in ("gain", "forgetting", "base")] == ["maximize", "minimize", None]
