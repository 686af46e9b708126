"""A beginning that rows share: run once, and every row's numbers are those of its whole prompt."""

import pytest
import torch

from tests.factories.models import BEGINNING, prompts
from trials.evaluation.engine import greedy, loglikelihood, shared_prefix


def decoded(model, monkeypatch, shared: bool) -> list[greedy.Row]:
    rows = [greedy.Row(prompt, gold=[3, 1, 4, 1, 5][: 1 + i % 5]) for i, prompt in enumerate(prompts())]
    with monkeypatch.context() as patch, torch.no_grad():
        if not shared:
            patch.setattr(shared_prefix, "common", lambda model, rows: 0)
        greedy.greedy(model, rows, 12, 4, lambda tokens: tokens[-1] % 7 == 0)
    return rows


@pytest.mark.parametrize("chunk", [1, 2**25])
def test_decoding_equals_decoding_of_whole_prompts(model, monkeypatch, chunk):
    monkeypatch.setattr(shared_prefix, "_MOST", chunk)
    assert shared_prefix.common(model, prompts()) == len(BEGINNING)
    passes = []
    lent = shared_prefix.attention
    monkeypatch.setitem(
        shared_prefix.AttentionInterface()._global_mapping,
        shared_prefix._NAME,
        lambda *a, **b: passes.append(1) or lent(*a, **b),
    )
    for one, other in zip(decoded(model, monkeypatch, True), decoded(model, monkeypatch, False), strict=True):
        assert (one.generated, one.stopped) == (other.generated, other.stopped)
        assert one.gold_nats == pytest.approx(other.gold_nats, abs=1e-5)
    assert passes


def test_endings_after_a_shared_beginning_score_as_after_whole_contexts(model, monkeypatch):
    questions = [loglikelihood.Question(prompt, [[4, 4, 4], [5], [6, 7]]) for prompt in prompts(4)]
    with torch.no_grad():
        together = loglikelihood.score(model, questions).read()
        alone = [loglikelihood.score(model, [question]).read()[0] for question in questions]
    for some, others in zip(together, alone, strict=True):
        assert [nats for nats, _ in some] == pytest.approx([nats for nats, _ in others], abs=1e-5)
        assert [right for _, right in some] == [right for _, right in others]


def test_beginning_is_run_once_and_attention_is_restored(model, monkeypatch):
    usual, lengths = model.config._attn_implementation, []
    model.register_forward_pre_hook(lambda module, given, named: lengths.append(given[0].shape), with_kwargs=True)
    decoded(model, monkeypatch, True)
    assert lengths[0] == (1, len(BEGINNING))
    assert max(length for _, length in lengths[1:]) < len(BEGINNING)
    assert model.config._attn_implementation == usual
    assert not shared_prefix._active


def test_model_with_softcapping_shares_nothing(model):
    model.config.attn_logit_softcapping = 30.0
    assert shared_prefix.common(model, prompts()) == 0


@pytest.mark.parametrize("masked", [True, False])
def test_flash_and_plain_products_agree(monkeypatch, masked):
    generator = torch.Generator().manual_seed(0)
    query, key, value = (torch.randn(2, 3, size, 16, generator=generator) for size in (5, 7, 7))
    mask = torch.rand(2, 1, 5, 7, generator=generator) > 0.4 if masked else None
    found, sums = shared_prefix._attended(query, key, value, mask, 0.25)
    scores = (query @ key.mT * 0.25).masked_fill(~mask, -1e30) if masked else query @ key.mT * 0.25
    assert torch.allclose(found, scores.softmax(-1) @ value, atol=1e-6)
    assert torch.allclose(sums, scores.logsumexp(-1), atol=1e-5)
    assert torch.allclose(shared_prefix._by_products(query, key, value, mask, 0.25)[0], found, atol=1e-6)
    assert torch.allclose(shared_prefix._by_products(query, key, value, mask, 0.25)[1], sums, atol=1e-5)


def test_16_bit_products_are_as_exact_as_pytorchs_attention():
    generator = torch.Generator().manual_seed(0)
    query, key, value = (torch.randn(2, 3, 64, 16, generator=generator).bfloat16() for _ in range(3))
    right = torch.nn.functional.scaled_dot_product_attention(query.double(), key.double(), value.double(), scale=2.0)
    usual = torch.nn.functional.scaled_dot_product_attention(query, key, value, scale=2.0)
    found, _ = shared_prefix._by_products(query, key, value, None, 2.0)
    assert (found - right).abs().mean() <= (usual - right).abs().mean()
