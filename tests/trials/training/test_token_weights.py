"""Weights follow their formulas, computed here token by token without torch."""

import math

import pytest
import torch

from trials.training import token_weights

LOGITS = torch.randn(7, 50, generator=torch.Generator().manual_seed(0)) * 3
WANTED = torch.tensor([3, 0, 49, 7, 7, 12, 30])


def softmax(row: list[float]) -> list[float]:
    largest = max(row)
    powers = [math.exp(value - largest) for value in row]
    return [power / sum(powers) for power in powers]


def nll() -> torch.Tensor:
    return torch.nn.functional.cross_entropy(LOGITS, WANTED, reduction="none")


def test_dft_weighs_by_the_tokens_probability():
    expected = [softmax(row)[wanted] for row, wanted in zip(LOGITS.tolist(), WANTED.tolist(), strict=True)]
    assert token_weights.dft(nll()).tolist() == pytest.approx(expected, rel=1e-5)


def test_eaft_weighs_by_the_entropy_of_the_twenty_largest_logits():
    expected = []
    for row in LOGITS.tolist():
        chances = softmax(sorted(row)[-20:])
        expected.append(-sum(p * math.log(p) for p in chances) / math.log(20))
    assert token_weights.eaft(LOGITS).tolist() == pytest.approx(expected, rel=1e-5)


def test_eaft_is_1_where_nothing_is_known_and_0_where_all_is():
    flat, sure = torch.zeros(1, 50), torch.zeros(1, 50)
    sure[0, 3] = 200.0
    assert token_weights.eaft(torch.cat([flat, sure])).tolist() == pytest.approx([1.0, 0.0], abs=1e-6)


def test_a_vocabulary_of_fewer_than_twenty_is_no_obstacle():
    assert token_weights.eaft(torch.zeros(2, 5)).tolist() == pytest.approx([1.0, 1.0])


def test_masked_leaves_out_tokens_above_the_perplexity():
    perplexities = torch.tensor([1.0, 2.49, 2.5, 2.51, 40.0])
    assert token_weights.masked(perplexities.log(), 2.5).tolist() == [1, 1, 1, 0, 0]
