"""Sentences of an ablation's answer."""

import dataclasses
import math

import pytest

from analysis.ablations import words
from analysis.ablations.answer import Ruling
from analysis.ablations.words import ruling_words
from analysis.formatting.table import Beside
from tests.factories.ablation_sweeps import HALVED, KEPT, MISSING, SHARE, asked, verdicts


@pytest.mark.parametrize(
    ("effect", "expected"),
    [
        (KEPT, ("+1.2 points", "−2.1 to +4.6")),
        (HALVED, ("−0.031 bits a byte", "−0.055 to −0.007")),
        (SHARE, ("0.63", "0.21 to 0.90")),
        (MISSING, ("–", "")),
        (dataclasses.replace(KEPT, value=-0.0001), ("0.0 points", "−2.1 to +4.6")),
        (dataclasses.replace(KEPT, low=-math.inf), ("+1.2 points", "")),
    ],
)
def test_effects_have_units_and_decimals(effect, expected):
    assert words.effect(effect) == Beside(*expected)


def test_bound_on_both_sides_has_no_sign():
    assert "within 2.0 points of 0" in ruling_words(verdicts()[2].rulings[0], 3)
    assert "above −0.5 points" in ruling_words(verdicts()[1].rulings[0], 3)
    assert words.number("points", -0.2, signed=False) == "−20.0"


def test_headline_counts_the_answers():
    assert words.headline([asked(None, verdicts=verdicts())]) == "4 questions: 1 yes, 1 no, 2 open."
    assert words.headline([]) == "No question has an answer yet."


def test_change_names_the_closest_rule():
    near, far = Ruling(HALVED, "below", 0.0, True, 0.9, None), Ruling(HALVED, "below", 1.0, True, 0.9, None)
    assert "below 0.000 bits a byte" in words.change(True, [far, near])
    assert "open rules" in words.change(None, [near])


def test_needed_names_seeds_documents_bases_or_trials():
    rule = Ruling(KEPT, "above", 0.0, None, 0.4, 7)
    assert "4 more seeds (7 in all)" in words.needed([rule], 3)
    assert "more documents" in words.needed([dataclasses.replace(rule, seeds=None)], 3)
    assert "More bases" in words.needed([dataclasses.replace(rule, effect=SHARE)], 3)
    assert "missing" in words.needed([dataclasses.replace(rule, effect=MISSING)], 3)
