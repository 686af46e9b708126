"""Requests that the fast engine is not exact for go to the plain engine."""

import pytest
import torch
from lm_eval.models.huggingface import HFLM
from transformers import GPTNeoXConfig, GPTNeoXForCausalLM, MistralConfig, MistralForCausalLM

from tests.factories.requests import fast, instances
from tests.fuzz import miniatures
from trials.evaluation.engine import shared_prefix, verification


def small(kind: str, vocabulary: int):
    torch.manual_seed(0)
    sizes = {"vocab_size": vocabulary, "hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2}
    sizes |= {"num_attention_heads": 4, "max_position_embeddings": 256}
    if kind == "neox":
        return GPTNeoXForCausalLM(GPTNeoXConfig(**sizes)).eval()
    return MistralForCausalLM(MistralConfig(**sizes, num_key_value_heads=2, sliding_window=8)).eval()


@pytest.mark.parametrize(("kind", "fits"), [("neox", True), ("mistral", False)])
def test_numbers_are_stocks_whether_or_not_the_engine_fits(micro, kind, fits):
    model = small(kind, len(micro.tokenizer))
    assert shared_prefix.fits(model) == fits
    context = "Question: Tom has 12 apples and buys 5 more, how many are there? " * 2
    pairs = [(context, " 17"), (context, " one two three"), (context + "Ann has none.", " 4 and"), ("B:", " 1"), ("", "Ann")]
    exact = fast(model, micro.tokenizer, 3)
    stock = HFLM(pretrained=model, tokenizer=micro.tokenizer, batch_size=1)
    for (one, likeliest), (other, stocks) in zip(
        exact.loglikelihood(instances("loglikelihood", pairs)),
        stock.loglikelihood(instances("loglikelihood", pairs)),
        strict=True,
    ):
        assert one == pytest.approx(other, abs=1e-4)
        assert likeliest == stocks
    settings = {"until": ["zz", "7"], "max_gen_toks": 9, "do_sample": False}
    prompts = [(text, settings) for text in (context, "B: 1", "Ann", context + "x", "Tom has")]
    assert exact.generate_until(instances("generate_until", prompts)) == stock.generate_until(
        instances("generate_until", prompts)
    )


def test_response_across_a_scaled_rotary_embeddings_length_is_stocks():
    long = {"rope_type": "longrope", "short_factor": [1.0] * 8, "long_factor": [4.0] * 8, "rope_theta": 10000.0}
    model = miniatures.miniature("phi3", original_max_position_embeddings=220, rope_parameters=long)
    prompts = ["Ann has 5 red pens and Tom has 7 . " * count for count in (4, 12, 12)]
    lengths = [len(miniatures.tokenizer()(prompt)["input_ids"]) for prompt in prompts]
    assert lengths[0] < lengths[1] < 220 < lengths[1] + 64
    exact = fast(model, miniatures.tokenizer(), 4)
    stock = HFLM(pretrained=model, tokenizer=miniatures.tokenizer(), batch_size=1)
    requests = instances("generate_until", [(prompt, {"until": ["~"], "max_gen_toks": 64}) for prompt in prompts])
    assert exact.generate_until(requests) == stock.generate_until(requests)
    assert "beyond 220 tokens its rotary embedding" in str(exact.notes["generation"])


def test_route_is_decided_once_for_a_model_and_its_sizes():
    model, found = torch.nn.Linear(1, 1), []
    for sizes in ((1, 2), (1, 2), (1, 3)):
        verification.route(model, "generation", sizes, lambda: found.append(1) or verification.Route())
    assert len(found) == 2
    assert str(verification.Route()) == "exact"
    assert str(verification.Route(1, "a reason")) == "hflm, one row at a time: a reason"
