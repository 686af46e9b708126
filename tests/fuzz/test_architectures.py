"""The engine gives stock's numbers on every causal architecture: by itself, or because it steps aside for lm-eval's own model.

Stock is lm-eval's HFLM with one row at a time, in float32. The inputs are longer than every window and than the length
that a scaled rotary embedding was made for.
"""

import math

import pytest
from lm_eval.api.instance import Instance
from lm_eval.models.huggingface import HFLM

from tests.fuzz import cases, miniatures
from trials.evaluation.engine.fast_engine import FastEngine
from trials.evaluation.engine.lm_eval_adapter import LmEvalAdapter
from trials.models import positions, rehearsal

SHOT = "Question: Tom has 12 apples and buys 5 more. How many apples does Tom have?\nAnswer: 12 + 5 = 17\n#### 17\n\n"
CONTEXTS = [
    SHOT * 4 + "Question: Ann has 3 pens.\nAnswer:",
    SHOT * 4 + "Question: Bo sells 9 of 30 hats. How many?\nAnswer:",
    "B:",
]
ENDINGS = [" 17", " 3 + 9 = 12\n#### 12", " pens and hats and apples"]
SETTINGS = {"until": ["Question:"], "max_gen_toks": 24, "do_sample": False}


def asked(kind: str, arguments: list[tuple]) -> list[Instance]:
    return [Instance(kind, {}, one, i) for i, one in enumerate(arguments)]


@pytest.mark.parametrize("name", cases((name, name) for name in miniatures.names()))
def test_the_engine_gives_stocks_numbers(name):
    model, tokenizer = miniatures.miniature(name), miniatures.tokenizer()
    if failure := rehearsal.failures(model).get("evaluation"):
        pytest.skip(failure)
    if positions.longest(model, tokenizer) < 2:
        pytest.skip("lm-eval reads no length from its configuration")
    exact = LmEvalAdapter(FastEngine(model, tokenizer, 4))
    compare(name, exact, HFLM(pretrained=model, tokenizer=tokenizer, batch_size=1, backend="causal"), CONTEXTS)


@pytest.mark.parametrize(
    ("name", "fields"),
    [
        ("gpt2", {"n_positions": 128}),
        ("gpt_neo", {"max_position_embeddings": 96}),
        ("opt", {"max_position_embeddings": 100}),
        ("roberta", {"max_position_embeddings": 102}),
        ("bart", {"max_position_embeddings": 100}),
        ("llama", {"max_position_embeddings": 100}),
        ("mpt", {"max_seq_len": 100}),
    ],
)
def test_prompts_longer_than_the_model_are_cut_as_stock_cuts_them(name, fields):
    model, tokenizer = miniatures.miniature(name, **fields), miniatures.tokenizer()
    exact = LmEvalAdapter(FastEngine(model, tokenizer, 4))
    length = positions.longest(model, tokenizer)
    stock = HFLM(pretrained=model, tokenizer=tokenizer, batch_size=1, backend="causal", max_length=length)
    compare(name, exact, stock, [*CONTEXTS, SHOT])


def compare(name: str, exact: LmEvalAdapter, stock: HFLM, contexts: list[str]) -> None:
    pairs = [(context, ending) for context in contexts for ending in ENDINGS]
    wanted = stock.loglikelihood(asked("loglikelihood", pairs))
    found = exact.loglikelihood(asked("loglikelihood", pairs))
    assert [nats for nats, _ in found] == pytest.approx([nats for nats, _ in wanted], abs=2e-3)
    assert [likeliest for _, likeliest in found] == [likeliest for _, likeliest in wanted]

    texts = [(text,) for text in contexts]
    rolling = exact.loglikelihood_rolling(asked("loglikelihood_rolling", texts))
    assert rolling == pytest.approx(stock.loglikelihood_rolling(asked("loglikelihood_rolling", texts)), abs=2e-3, rel=1e-5)

    exact.gold = lambda request: ENDINGS[len(request.args[0]) % 3]
    requests = asked("generate_until", [(context, SETTINGS) for context in [*contexts, SHOT, "Tom has 12 apples."]])
    assert exact.generate_until(requests) == stock.generate_until(requests)
    golds = [(request.args[0], exact.gold(request)) for request in requests]
    wanted = stock.loglikelihood(asked("loglikelihood", golds))
    bits = [sum(token.bits for token in tokens) for tokens in exact.continuation_bits(golds)]
    assert bits == pytest.approx([-nats / math.log(2) for nats, _ in wanted], abs=3e-3)
    print(name, exact.notes)
