"""The plain engine gives the numbers of lm-eval's HFLM."""

import inspect

import pytest
import torch
from lm_eval.models.huggingface import HFLM

from tests.factories.requests import instances
from trials.evaluation.engine.hf_engine import HFEngine
from trials.evaluation.engine.lm_eval_adapter import LmEvalAdapter

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
