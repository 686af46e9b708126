"""The plain engine gives the numbers of lm-eval's HFLM."""

import inspect
from contextlib import nullcontext

import pytest
import torch
from lm_eval.models.huggingface import HFLM

from tests.factories.requests import instances
from trials.adapters import peft_adapter
from trials.evaluation.engine.hf_engine import HFEngine
from trials.evaluation.engine.lm_eval_adapter import LmEvalAdapter
from trials.spec import Lora

PAIRS = [
    ("Question: Tom has 12 apples.\nAnswer:", " 12 - 5 = 7\n#### 7"),
    ("A: ", "Tom é🙂 buys 3"),
    ("B:", " 1"),
    ("B:", " 2"),
]


@pytest.mark.parametrize("batch_size", [1, 3])
def test_log_likelihoods_are_hflms_bit_by_bit(micro, batch_size):
    stock = HFLM(pretrained=micro.model, tokenizer=micro.tokenizer, batch_size=batch_size)
    plain = LmEvalAdapter(HFEngine(micro.model, micro.tokenizer, batch_size))
    requests = instances("loglikelihood", PAIRS)
    assert plain.loglikelihood(requests) == stock.loglikelihood(requests)


@pytest.mark.parametrize(
    "settings", [{}, {"do_sample": True, "temperature": 0.7}, {"num_beams": 3}, {"max_length": 40}], ids=str
)
def test_responses_are_hflms(micro, settings):
    stock = HFLM(pretrained=micro.model, tokenizer=micro.tokenizer, batch_size=2)
    plain = LmEvalAdapter(HFEngine(micro.model, micro.tokenizer, 2))
    prompts = [(context, {"until": ["zz"], "max_gen_toks": 7, **settings}) for context, _ in PAIRS[:3]]
    found = []
    for engine in (plain, stock):
        torch.manual_seed(0)
        found.append(engine.generate_until(instances("generate_until", prompts)))
    assert found[0] == found[1]


def test_head_without_logits_to_keep_gives_the_same_bits(micro, monkeypatch):
    wanted = LmEvalAdapter(HFEngine(micro.model, micro.tokenizer, 3)).continuation_bits(PAIRS)
    forward = micro.model.forward
    assert "logits_to_keep" in inspect.signature(forward).parameters
    monkeypatch.setattr(micro.model, "forward", lambda input_ids: forward(input_ids))
    found = LmEvalAdapter(HFEngine(micro.model, micro.tokenizer, 3)).continuation_bits(PAIRS)
    for one, other in zip(wanted, found, strict=True):
        assert [token.bits for token in one] == pytest.approx([token.bits for token in other], rel=1e-4, abs=1e-5)


@pytest.mark.parametrize("merge", [True, False])
def test_adapter_on_a_head_that_is_tied_to_the_embeddings_is_evaluated(micro, merge):
    assert micro.model.config.tie_word_embeddings
    ids = torch.tensor([micro.tokenizer.encode("A: 12 - 5 = 7")])
    with peft_adapter.adapted(micro, Lora(rank=4, target_modules=["lm_head", "q_proj"]), 0) as model, torch.no_grad():
        for name, weight in model.named_parameters():
            if "lora_B" in name:
                weight += 0.05 * torch.randn_like(weight)
        wanted = model(ids).logits
        with peft_adapter.merged(model) if merge else nullcontext(model) as whole:
            found = HFEngine(whole, micro.tokenizer, 1).model(ids).logits
        with model.disable_adapter():
            base = model(ids).logits
    assert (found - wanted).abs().max() < 1e-3 * (wanted - base).abs().max()
