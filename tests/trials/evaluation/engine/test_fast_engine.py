"""The engine `exact` gives lm-eval's numbers: shared contexts, responses that leave, weights unpacked once, adapters merged."""

import copy
import random

import pandas as pd
import pytest
import torch
from lm_eval.api.instance import Instance
from lm_eval.models.huggingface import HFLM
from tokenizers.processors import TemplateProcessing
from transformers import GPTNeoXConfig, GPTNeoXForCausalLM, MistralConfig, MistralForCausalLM

from tests.fuzz import miniatures
from trials.adapters import lora
from trials.evaluation import evaluate
from trials.evaluation.engine import greedy, shared_prefix
from trials.evaluation.engine.fast_engine import FastEngine
from trials.evaluation.engine.hf_engine import HFEngine
from trials.evaluation.engine.lm_eval_adapter import LmEvalAdapter
from trials.hub.hub import Hub
from trials.models import base, dequantize
from trials.spec import Base, Evaluation, Lora
from trials.tasks.tasks import Tasks


@pytest.fixture(scope="module")
def micro():
    return base.load(Base(model="micro", dtype="float32"), Hub())


@pytest.fixture(scope="module")
def tasks() -> Tasks:
    return Tasks(Hub())


def loud(model) -> None:
    """Gives an adapter, which begins as nothing, something to add."""
    torch.manual_seed(3)
    with torch.no_grad():
        for name, weight in model.named_parameters():
            if "lora_B" in name:
                weight.copy_(torch.randn_like(weight) * 0.05)


def fast(model, tokenizer, batch_size: int) -> LmEvalAdapter:
    return LmEvalAdapter(FastEngine(model, tokenizer, batch_size))


def told(frame: pd.DataFrame) -> pd.DataFrame:
    return frame.select_dtypes("number").astype(float)


@pytest.mark.parametrize("preset", ["micro_swag", "micro_gsm", "micro_cs", "micro_gsm_choice"])
def test_every_document_has_the_outcome_of_lm_evals_own_model(micro, tasks, preset):
    found = {}
    with lora.adapted(micro, Lora(rank=4, alpha=8), 0) as model:
        loud(model)
        for engine in ("hflm", "exact"):
            evaluation = Evaluation.model_validate({"preset": preset, "documents": 30, "engine": engine})
            if engine == "exact":
                with lora.merged(model) as whole:
                    assert whole is not model
                    found[engine] = evaluate.evaluate(FastEngine(whole, micro.tokenizer, 7), "role", evaluation, tasks)
            else:
                found[engine] = evaluate.evaluate(HFEngine(model, micro.tokenizer, 7), "role", evaluation, tasks)
    hflm, exact = found["hflm"], found["exact"]
    pd.testing.assert_frame_equal(told(hflm), told(exact), rtol=1e-4, atol=1e-4)
    assert (hflm["score"] == exact["score"]).all()
    if preset == "micro_gsm":
        assert hflm["response"].tolist() == exact["response"].tolist()
        assert (hflm["response"].nunique(), hflm["stopped"].nunique()) > (1, 0)


def asked(kind: str, pairs: list[tuple]) -> list[Instance]:
    return [Instance(kind, {}, pair, i) for i, pair in enumerate(pairs)]


def small(kind: str, vocabulary: int):
    torch.manual_seed(0)
    sizes = {"vocab_size": vocabulary, "hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2}
    sizes |= {"num_attention_heads": 4, "max_position_embeddings": 256}
    if kind == "neox":
        return GPTNeoXForCausalLM(GPTNeoXConfig(**sizes)).eval()
    return MistralForCausalLM(MistralConfig(**sizes, num_key_value_heads=2, sliding_window=8)).eval()


@pytest.mark.parametrize(("kind", "fits"), [("neox", True), ("mistral", False)])
def test_another_architecture_gives_the_same_whether_the_engine_knows_it_or_leaves_it_to_lm_eval(micro, kind, fits):
    model = small(kind, len(micro.tokenizer))
    assert shared_prefix.fits(model) == fits
    context = "Question: Tom has 12 apples and buys 5 more, how many are there? " * 2
    pairs = [(context, " 17"), (context, " one two three"), (context + "Ann has none.", " 4 and"), ("B:", " 1"), ("", "Ann")]
    exact = fast(model, micro.tokenizer, 3)
    stock = HFLM(pretrained=model, tokenizer=micro.tokenizer, batch_size=1)
    for (one, likeliest), (other, stocks) in zip(
        exact.loglikelihood(asked("loglikelihood", pairs)), stock.loglikelihood(asked("loglikelihood", pairs)), strict=True
    ):
        assert one == pytest.approx(other, abs=1e-4)
        assert likeliest == stocks
    settings = {"until": ["zz", "7"], "max_gen_toks": 9, "do_sample": False}
    prompts = [(text, settings) for text in (context, "B: 1", "Ann", context + "x", "Tom has")]
    assert exact.generate_until(asked("generate_until", prompts)) == stock.generate_until(asked("generate_until", prompts))


def test_a_response_that_crosses_the_length_of_a_scaled_rotary_embedding_is_lm_evals():
    long = {"rope_type": "longrope", "short_factor": [1.0] * 8, "long_factor": [4.0] * 8, "rope_theta": 10000.0}
    model = miniatures.miniature("phi3", original_max_position_embeddings=220, rope_parameters=long)
    prompts = ["Ann has 5 red pens and Tom has 7 . " * count for count in (4, 12, 12)]
    lengths = [len(miniatures.tokenizer()(prompt)["input_ids"]) for prompt in prompts]
    assert lengths[0] < lengths[1] < 220 < lengths[1] + 64
    exact = fast(model, miniatures.tokenizer(), 4)
    stock = HFLM(pretrained=model, tokenizer=miniatures.tokenizer(), batch_size=1)
    requests = asked("generate_until", [(prompt, {"until": ["~"], "max_gen_toks": 64}) for prompt in prompts])
    assert exact.generate_until(requests) == stock.generate_until(requests)
    assert "beyond 220 tokens its rotary embedding" in str(exact.notes["generation"])


def test_a_likelihood_does_not_depend_on_the_other_endings_or_on_the_rows_beside_it(micro):
    context = "Question: Ann has 3 pens and buys 9. How many?\nAnswer:"
    endings = [" 12", " 3 + 9 = 12\n#### 12", " pens", " 1"]
    together = [(context, ending) for ending in endings] + [("B:", " 1"), ("A much longer context, it is. " * 6, " 1 2")]
    of = {}
    for batch in (1, 4, 64):
        random.Random(batch).shuffle(together)
        found = fast(micro.model, micro.tokenizer, batch).loglikelihood(asked("loglikelihood", together))
        of[batch] = {pair: answer[0] for pair, answer in zip(together, found, strict=True)}
    for pair in together:
        alone = fast(micro.model, micro.tokenizer, 1).loglikelihood(asked("loglikelihood", [pair]))[0][0]
        assert [of[batch][pair] for batch in of] == pytest.approx([alone] * 3, abs=1e-4)


def test_texts_tokenised_together_are_lm_evals_tokens(micro):
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
    assert texts - found.keys() == {f"{first}Ann", f"{first}Ann has"}
    assert found == {text: stock.tok_encode(text) for text in found}
    for text in texts:
        assert exact.tok_encode(text) == stock.tok_encode(text)
        assert exact._prompt(text) == stock.tok_batch_encode([text])[0][0].tolist()
    for context, ending in pairs:
        whole = stock.tok_encode(context + ending)
        assert exact._split(context, ending, whole) == stock._encode_pair(context, ending)


def test_a_context_too_long_for_the_model_is_cut_as_lm_eval_cuts_it(micro):
    pairs = [("word " * 1200 + "Answer:", " 12"), ("B:", " 1")]
    scorer = fast(micro.model, micro.tokenizer, 2)
    exact = scorer.loglikelihood(asked("loglikelihood", pairs))
    assert scorer._cut == {"prompts cut, log-likelihood": "1 of 2 lost their beginning: the model takes 1024 tokens"}
    stock = HFLM(pretrained=micro.model, tokenizer=micro.tokenizer, batch_size=1)
    expected = stock.loglikelihood(asked("loglikelihood", pairs))
    assert [one for one, _ in exact] == pytest.approx([one for one, _ in expected], abs=1e-4)


@pytest.mark.parametrize(
    ("settings", "own", "way"),
    [
        ({"do_sample": False}, {}, "exact"),
        ({"do_sample": True, "temperature": 0.7}, {}, "hflm: the task samples its responses"),
        ({"do_sample": False, "num_beams": 3}, {}, "hflm: generation settings: num_beams"),
        ({"do_sample": False}, {"repetition_penalty": 1.3}, "hflm: generation settings: repetition_penalty"),
        ({"do_sample": False}, {"max_new_tokens": 11, "top_k": 20}, "exact"),
    ],
)
def test_a_models_and_a_tasks_own_settings_give_what_lm_evals_own_model_gives(micro, monkeypatch, settings, own, way):
    for name, value in own.items():
        monkeypatch.setattr(micro.model.generation_config, name, value)
    prompts = [(text, {"until": ["zz"], "max_gen_toks": 7, **settings}) for text in ("Tom has", "B: 1", "Question: Ann")]
    exact = fast(micro.model, micro.tokenizer, 2)
    found = exact.generate_until(asked("generate_until", prompts))
    assert str(exact.notes["generation"]) == way
    if not settings["do_sample"]:
        stock = HFLM(pretrained=micro.model, tokenizer=micro.tokenizer, batch_size=1)
        assert found == stock.generate_until(asked("generate_until", prompts))


@pytest.mark.parametrize("until", [[""], ["", "zz"], ["pens", " a rather long stop string that never comes"], "7"])
def test_stop_strings_end_a_response_where_lm_eval_ends_it(micro, until):
    prompts = [(f"Question: {name} has 3 pens.", {"until": until, "max_gen_toks": 12}) for name in ("Tom", "Ann", "Bo")]
    stock = HFLM(pretrained=micro.model, tokenizer=micro.tokenizer, batch_size=1)
    found = fast(micro.model, micro.tokenizer, 3).generate_until(asked("generate_until", prompts))
    assert found == stock.generate_until(asked("generate_until", prompts))


def test_requests_that_share_one_context_are_rows_of_bounded_length(micro):
    texts = [("", f"Tom has {number} apples and buys {number % 7} more.") for number in range(300)]
    widths = []

    def seen(_, positional: tuple, named: dict) -> None:
        widths.append((positional[0] if positional else named["input_ids"]).shape[1])

    hook = micro.model.register_forward_pre_hook(seen, with_kwargs=True)
    try:
        found = fast(micro.model, micro.tokenizer, 16).loglikelihood(asked("loglikelihood", texts))
    finally:
        hook.remove()
    assert max(widths) <= 260
    stock = HFLM(pretrained=micro.model, tokenizer=micro.tokenizer, batch_size=1)
    some = stock.loglikelihood(asked("loglikelihood", texts[::50]))
    assert [nats for nats, _ in found[::50]] == pytest.approx([nats for nats, _ in some], abs=1e-4)


def test_rows_leave_as_they_end_and_others_take_their_places(micro, monkeypatch):
    passes = []
    forward = micro.model.forward
    monkeypatch.setattr(micro.model, "forward", lambda ids, **named: passes.append(tuple(ids.shape)) or forward(ids, **named))
    rows = [greedy.Row([5 + i, 9, 11]) for i in range(6)]
    wanted = {5: 2, 6: 9, 7: 3, 8: 1, 9: 4, 10: 5}  # tokens, by the prompt's first
    lengths = {}

    def ends(tokens: list[int]) -> bool:
        row = next(row for row in rows if row.generated is tokens)
        lengths[row.prompt[0]] = len(tokens)
        return len(tokens) == wanted[row.prompt[0]]

    greedy.greedy(micro.model, rows, 7, 2, ends)
    assert lengths == {**wanted, 6: 7}
    assert [row.stopped for row in rows] == [True, False, True, True, True, True]
    steps = [shape for shape in passes if shape[1] == 1]
    assert sum(count for count, _ in steps) == sum(lengths.values()) - len(rows)  # nothing is run for a row that has ended


@pytest.mark.parametrize("double", [True, False])
def test_unpacked_layers_give_the_same_bits_forward_and_backward(monkeypatch, double):
    wanted = Base(model="micro", dtype="float32", double_quantization=double)
    unpacked = base.load(wanted, Hub()).model
    assert any(isinstance(module, dequantize.Unpacked) for module in unpacked.modules())
    monkeypatch.setattr(dequantize, "SHARE", 0.0)
    packed = base.load(wanted, Hub()).model
    assert not any(isinstance(module, dequantize.Unpacked) for module in packed.modules())
    ids = torch.randint(0, 1000, (3, 17), generator=torch.Generator().manual_seed(0))
    found = []
    for model in (packed, unpacked):
        rows = model.get_input_embeddings()(ids).detach().requires_grad_()
        logits = model(inputs_embeds=rows).logits
        logits.square().mean().backward()
        found.append((logits, rows.grad))
    assert torch.equal(found[0][0], found[1][0])
    assert torch.equal(found[0][1], found[1][1])


def test_a_merged_adapter_is_lent_and_what_cannot_be_merged_is_left_alone(micro):
    ids = torch.randint(0, 1000, (2, 11), generator=torch.Generator().manual_seed(0))
    with lora.adapted(micro, Lora(rank=4, alpha=8), 0) as model, torch.no_grad():
        loud(model)
        before = model(ids).logits
        with lora.merged(model) as whole:
            assert torch.allclose(whole(ids).logits, before, atol=1e-4)
            assert not any("lora" in name for name, _ in whole.named_modules())
        assert torch.equal(model(ids).logits, before)
    with lora.adapted(micro, Lora(rank=4, use_dora=True), 0) as model, lora.merged(model) as whole:
        assert whole is model


def test_the_engine_is_no_part_of_the_key_and_records_of_before_there_were_two_are_read(spec):
    def under(engine: str):
        roles = {role: {**one.model_dump(), "engine": engine} for role, one in spec.eval.items()}
        return type(spec).model_validate({**spec.model_dump(), "eval": roles})

    assert under("exact").key == under("hflm").key == under("hf").key
    assert {one.engine for one in under("hf").eval.values()} == {"hflm"}
