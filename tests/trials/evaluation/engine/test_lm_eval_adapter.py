"""The adapter tokenises, cuts and ends texts as lm-eval's HFLM does, whatever engine is behind it."""

import copy
import math

import pytest
from lm_eval.api.instance import Instance
from lm_eval.models.huggingface import HFLM
from tokenizers.processors import TemplateProcessing

from tests.factories.requests import fast, instances
from trials.evaluation.engine.fast_engine import FastEngine
from trials.evaluation.engine.hf_engine import HFEngine
from trials.evaluation.engine.lm_eval_adapter import LmEvalAdapter
from trials.spec import Evaluation


def requests(texts: list[str], **settings) -> list[Instance]:
    return [Instance("generate_until", {}, (text, settings), i) for i, text in enumerate(texts)]


@pytest.mark.parametrize("engine", [HFEngine, FastEngine])
def test_response_stopped_if_an_end_token_or_stop_string_came_first(micro, tasks, engine):
    task = tasks.build(Evaluation.model_validate("micro_gsm"))["micro_gsm"]
    task.set_fewshot_seed(seed=1)
    task.build_all_requests(samples=list(range(9)))
    texts = [instance.args[0] for instance in task.instances]
    stock = HFLM(pretrained=micro.model, tokenizer=micro.tokenizer, batch_size=4)
    # all end by their end token, some do, all by a stop string, none
    for until, cap, expected in (
        ("Question:", 48, {True}),
        ("Question:", 14, {True, False}),
        ("####", 40, {True}),
        ("?", 5, {False}),
    ):
        scorer = LmEvalAdapter(engine(micro.model, micro.tokenizer, 4))
        asked = {"until": [until], "max_gen_toks": cap, "do_sample": False}
        given = scorer.generate_until(requests(texts, **asked))
        assert given == stock.generate_until(requests(texts, **asked))
        longer = stock.generate_until(requests(texts, **{**asked, "max_gen_toks": cap + 12}))
        # what stopped by itself does not go on when it may, what was cut off does
        assert [response == more for response, more in zip(given, longer, strict=True)] == [
            scorer.stopped(text) for text in texts
        ]
        assert {scorer.stopped(text) for text in texts} == expected


@pytest.mark.parametrize("engine", [HFEngine, FastEngine])
def test_any_end_token_of_the_model_ends_a_response(micro, monkeypatch, engine):
    """Llama 3 has three; the tokenizer knows one of them."""
    text = "Question: Tom has 7 apples and buys 5 more. How many apples does Tom have?\nAnswer:"
    (response,) = HFLM(pretrained=micro.model, tokenizer=micro.tokenizer).generate_until(
        requests([text], until=[], max_gen_toks=9)
    )
    first = micro.tokenizer.encode(response, add_special_tokens=False)[0]
    monkeypatch.setattr(micro.model.generation_config, "eos_token_id", [micro.tokenizer.eos_token_id, first])
    scorer = LmEvalAdapter(engine(micro.model, micro.tokenizer, 1))
    assert len(scorer.generate_until(requests([text], until=[], max_gen_toks=9))[0]) < len(response)
    assert scorer.stopped(text)


def pairs() -> list[tuple[str, str]]:
    rows = [("Question: Tom has 12 apples.\nAnswer:", " 12 - 5 = 7\n#### 7"), ("A: ", "Tom é🙂 buys 3"), ("B:", " 1")]
    return [*rows, (f"{rows[0][0]} 12\n\n{rows[0][0]}", rows[0][1])]


@pytest.mark.parametrize("batch_size", [1, 3])
def test_bits_of_tokens_sum_to_lm_evals_log_likelihood(micro, batch_size):
    found = LmEvalAdapter(HFEngine(micro.model, micro.tokenizer, batch_size)).continuation_bits(pairs())
    stock = HFLM(pretrained=micro.model, tokenizer=micro.tokenizer, batch_size=1)
    asked = [Instance("loglikelihood", {}, pair, i) for i, pair in enumerate(pairs())]
    for tokens, (nats, _) in zip(found, stock.loglikelihood(asked), strict=True):
        assert sum(token.bits for token in tokens) == pytest.approx(-nats / math.log(2), rel=1e-4, abs=1e-5)


def test_every_character_belongs_to_one_token(micro):
    for (_, gold), tokens in zip(
        pairs(), LmEvalAdapter(HFEngine(micro.model, micro.tokenizer, 3)).continuation_bits(pairs()), strict=True
    ):
        assert "".join(gold[token.begin : token.end] for token in tokens) == gold


def test_long_context_of_bits_is_cut_from_the_left(micro):
    scorer = LmEvalAdapter(HFEngine(micro.model, micro.tokenizer, 2))
    long = ("Tom has 12 apples. " * scorer.engine.max_length + "Answer:", " 12 - 5 = 7")
    stock = HFLM(pretrained=micro.model, tokenizer=micro.tokenizer, batch_size=1)
    ((nats, _),) = stock.loglikelihood([Instance("loglikelihood", {}, long, 0)])
    (tokens,) = scorer.continuation_bits([long])
    assert sum(token.bits for token in tokens) == pytest.approx(-nats / math.log(2), rel=1e-4)


def test_bulk_tokenisation_equals_lm_evals(micro):
    tokenizer = copy.deepcopy(micro.tokenizer)  # with a token before every text, as Llama's
    before = tokenizer.eos_token
    template = TemplateProcessing(single=f"{before} $A", special_tokens=[(before, tokenizer.eos_token_id)])
    tokenizer.backend_tokenizer.post_processor = template
    assert tokenizer("Tom")["input_ids"][0] == tokenizer.eos_token_id
    exact = fast(micro.model, tokenizer, 2)
    stock = HFLM(pretrained=micro.model, tokenizer=tokenizer, batch_size=1)
    first = tokenizer.decode(exact.prefix_token_id)
    pairs = [("Tom has 12 apples. ", "And 5"), ("Tom\n\n", " 17"), ("Tom", ""), (f"{first}Ann", " has"), ("x", " y" * 9)]
    texts = {text for context, ending in pairs for text in (context.rstrip(), context + ending)}
    found = exact._tokenised(texts)
    assert found.keys() == texts - {""}
    assert found == {text: stock.tok_encode(text) for text in found}
    for text in texts:
        assert exact.tok_encode(text) == stock.tok_encode(text)
        assert exact._prompt(text) == stock.tok_batch_encode([text])[0][0].tolist()
    for context, ending in pairs:
        whole = stock.tok_encode(context + ending)
        assert exact._split(context, ending, whole) == stock._encode_pair(context, ending)


def test_long_context_is_cut_as_lm_eval_cuts_it(micro):
    pairs = [("word " * 1200 + "Answer:", " 12"), ("B:", " 1")]
    scorer = fast(micro.model, micro.tokenizer, 2)
    exact = scorer.loglikelihood(instances("loglikelihood", pairs))
    assert scorer._cut == {"prompts cut, log-likelihood": "1 of 2 lost their beginning: the model takes 1024 tokens"}
    stock = HFLM(pretrained=micro.model, tokenizer=micro.tokenizer, batch_size=1)
    expected = stock.loglikelihood(instances("loglikelihood", pairs))
    assert [one for one, _ in exact] == pytest.approx([one for one, _ in expected], abs=1e-4)
