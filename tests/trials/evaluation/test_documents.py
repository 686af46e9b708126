"""Outcomes and margins of logged samples."""

import math

import pytest

from trials.errors import InputError
from trials.evaluation.documents import has_column, multiple_choice, outcomes, response
from trials.spec import Evaluation

ENTRY = {"doc_id": 3, "doc": {}, "doc_hash": "h", "target": 1, "resps": [["yes"]], "filter": "none", "metrics": ["acc", "f1"]}


def test_document_has_a_row_with_its_numeric_metrics():
    evaluation = Evaluation(task="t", metric="acc")
    (row,) = outcomes("role", "t", evaluation, [{**ENTRY, "acc": 1, "f1": (1, 0)}]).to_dict("records")
    assert (row["doc_id"], row["target"], row["response"], row["score"], row["acc,none"]) == (3, "1", "yes", 1.0, 1.0)
    assert "f1,none" not in row


def test_metric_without_a_value_of_a_document_is_refused():
    with pytest.raises(InputError, match="f1,none of task t has no value of a single document"):
        outcomes("role", "t", Evaluation(task="t", metric="f1"), [{**ENTRY, "acc": 1, "f1": (1, 0)}])


def test_margin_is_per_character_and_bits_are_of_the_gold_choice():
    found = multiple_choice(["ab", "abcd"], 1, [-3.0, -4.0], " abcd")
    assert found == {"choices": 2, "bits": 4 / math.log(2), "bytes": 5, "margin": -1.0 + 1.5}


@pytest.mark.parametrize(("choices", "gold"), [(["a"], 0), (["a", ""], 0), (["a", "b"], 2)])
def test_choices_that_cannot_be_compared_have_no_columns(choices, gold):
    assert multiple_choice(choices, gold, [-1.0] * len(choices), " a") == {}


def test_response_is_the_text_or_the_log_likelihoods():
    assert response([["a text"]]) == "a text"
    assert response([[(-1.25, True)], [("-2.5", "False")]]) == "-1.2500 -2.5000"


@pytest.mark.parametrize(
    ("fields", "output_type", "has", "lacks"),
    [
        ({}, "generate_until", {"score", "weight", "bits", "bytes.word", "stopped"}, {"marker", "strict", "flexible"}),
        ({"marker": "#"}, "generate_until", {"marker", "strict"}, {"flexible"}),
        ({"flexible": "lax"}, "generate_until", {"flexible", "strict"}, {"marker"}),
        ({"marker": "#", "flexible": "none"}, "generate_until", {"flexible", "marker"}, {"strict"}),
        ({"marker": "#"}, "multiple_choice", {"score", "bits", "bytes"}, {"marker", "stopped", "bits.word"}),
        ({}, "loglikelihood", {"score"}, {"bits", "bytes", "stopped"}),
    ],
)
def test_columns_depend_on_output_and_filters(fields, output_type, has, lacks):
    evaluation = Evaluation.model_validate({"task": "t", "metric": "acc", "filter": "none", **fields})
    assert all(has_column(evaluation, output_type, column) for column in has)
    assert not any(has_column(evaluation, output_type, column) for column in lacks)
