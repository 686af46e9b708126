"""Scores of a role: means, ratios of sums with their standard errors, and halves."""

import math

import numpy as np
import pandas as pd
import pytest

from trials.evaluation import aggregate
from trials.ledger.outcomes import Scale


def test_ratio_has_the_jackknifes_standard_error():
    random = np.random.default_rng(0)
    bottoms = pd.Series(random.integers(20, 200, 400).astype(float))
    tops = bottoms * 0.8 + random.normal(0, 9, 400)
    found = aggregate.ratio(tops, bottoms)
    without = (tops.sum() - tops) / (bottoms.sum() - bottoms)
    jackknife = math.sqrt(399 / 400 * ((without - without.mean()) ** 2).sum())
    assert found.value == tops.sum() / bottoms.sum()
    assert found.stderr == pytest.approx(jackknife, rel=0.02)


def test_details_have_scores_of_every_column(documents):
    _, generated = aggregate.scores(documents["micro_gsm"])
    assert {"strict", "flexible", "marker", "stopped", "bpb", "bpb.word", "bpb.digit", "bpb.operator", "bpb.format"} <= set(
        generated
    )
    assert "bpb.calculator" not in generated, "micro's solutions have no calculator"
    frame = documents["micro_gsm"]
    assert generated["bpb.digit"].value == frame["bits.digit"].sum() / frame["bytes.digit"].sum()
    _, chosen = aggregate.scores(documents["micro_swag"])
    assert {"acc,none", "acc_norm,none", "margin", "bpb"} == set(chosen)


def test_scores_of_halves_average_to_the_score(documents):
    for frame in documents.values():
        own, details = aggregate.scores(frame)
        parts = aggregate.halves(frame)
        assert set(parts) == {"search", "report"}
        assert sum(part["score"].n for part in parts.values()) == own.n
        assert sum(part["score"].value * part["score"].n for part in parts.values()) == pytest.approx(own.value * own.n)
        assert all({"score", *details} >= set(part) > {"score"} for part in parts.values())


def test_empty_half_is_left_out(documents):
    frame = documents["micro_gsm"]
    assert set(aggregate.halves(frame[frame["half"] == "report"])) == {"report"}


def test_perplexity_of_a_role_has_the_delta_methods_error():
    documents = pd.DataFrame({"score": [30.0, 8.0, 12.0], "weight": [10.0, 4.0, 6.0]})
    per_word = aggregate.of_role(documents, Scale(form="ratio"))
    found = aggregate.of_role(documents, Scale(form="exp"))
    assert (per_word.value, found.value) == (2.5, pytest.approx(math.exp(2.5)))
    assert found.stderr == pytest.approx(math.exp(2.5) * per_word.stderr)
