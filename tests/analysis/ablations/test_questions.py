"""Questions of ablations as data."""

import pytest
from pydantic import ValidationError

from analysis.ablations.questions import EffectRule, Question, chances, holds

WORDS = {"yes": "y", "no": "n", "open": "o"}
RULE = {"text": "t", "sum": [{"metric": "math.drop"}], "above": 0.0, "matters": 0.1}


def test_chances_count_deciding_rules():
    assert chances({"any": ["a", {"all": ["b", "c"]}]}) == {"a": (2, 1), "b": (2, 2), "c": (2, 2)}
    assert chances({"not": {"all": ["a", "b"]}}) == {"a": (1, 2), "b": (1, 2)}


def test_open_rule_leaves_answer_open():
    rulings = {"a": True, "b": None, "c": False}
    assert holds({"any": ["a", "b"]}, rulings) is True and holds({"all": ["a", "b"]}, rulings) is None
    assert holds({"all": ["b", "c"]}, rulings) is False and holds({"not": "b"}, rulings) is None


def test_answer_cannot_name_an_unknown_rule():
    with pytest.raises(ValidationError, match="`yes` names 'b'"):
        Question.model_validate({"ask": "?", "effects": {"a": RULE}, "yes": "b", "words": WORDS})


def test_effect_has_one_form_and_at_most_one_bound():
    for wrong in ({"sum": None}, {"exceeds": {"role": "math"}}, {"below": 1.0}, {"matters": None}):
        with pytest.raises(ValidationError):
            EffectRule.model_validate(RULE | wrong)
