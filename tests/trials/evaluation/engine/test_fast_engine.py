"""The engine `exact` gives lm-eval's numbers: shared contexts, responses that leave, weights unpacked once, adapters merged."""

import random

import pandas as pd
import pytest
import torch
from lm_eval.models.huggingface import HFLM

from tests.factories.requests import fast, instances
from trials.adapters import peft_adapter
from trials.evaluation import evaluate
from trials.evaluation.engine import fast_engine
from trials.evaluation.engine.fast_engine import FastEngine
from trials.evaluation.engine.hf_engine import HFEngine
from trials.hub.hub import Hub
from trials.models import base, dequantize
from trials.spec import Base, Evaluation, Lora


def loud(model) -> None:
    """Gives an adapter, which begins as nothing, something to add."""
    torch.manual_seed(3)
    with torch.no_grad():
        for name, weight in model.named_parameters():
            if "lora_B" in name:
                weight.copy_(torch.randn_like(weight) * 0.05)


def numbers(frame: pd.DataFrame) -> pd.DataFrame:
    return frame.select_dtypes("number").astype(float)


@pytest.mark.parametrize("preset", ["micro_swag", "micro_gsm", "micro_cs", "micro_gsm_choice"])
def test_every_document_has_the_plain_engines_outcome(micro, tasks, preset):
    found = {}
    with peft_adapter.adapted(micro, Lora(rank=4, alpha=8), 0) as model:
        loud(model)
        for engine in ("hflm", "exact"):
            evaluation = Evaluation.model_validate({"preset": preset, "documents": 30, "engine": engine})
            if engine == "exact":
                with peft_adapter.merged(model) as whole:
                    assert whole is not model
                    found[engine] = evaluate.evaluate(FastEngine(whole, micro.tokenizer, 7), "role", evaluation, tasks)
            else:
                found[engine] = evaluate.evaluate(HFEngine(model, micro.tokenizer, 7), "role", evaluation, tasks)
    hflm, exact = found["hflm"], found["exact"]
    pd.testing.assert_frame_equal(numbers(hflm), numbers(exact), rtol=1e-4, atol=1e-4)
    assert (hflm["score"] == exact["score"]).all()
    if preset == "micro_gsm":
        assert hflm["response"].tolist() == exact["response"].tolist()
        assert (hflm["response"].nunique(), hflm["stopped"].nunique()) > (1, 0)


def test_log_likelihood_is_independent_of_other_endings_and_rows(micro):
    context = "Question: Ann has 3 pens and buys 9. How many?\nAnswer:"
    endings = [" 12", " 3 + 9 = 12\n#### 12", " pens", " 1"]
    together = [(context, ending) for ending in endings] + [("B:", " 1"), ("A much longer context, it is. " * 6, " 1 2")]
    of = {}
    for batch in (1, 4, 64):
        random.Random(batch).shuffle(together)
        found = fast(micro.model, micro.tokenizer, batch).loglikelihood(instances("loglikelihood", together))
        of[batch] = {pair: answer[0] for pair, answer in zip(together, found, strict=True)}
    for pair in together:
        alone = fast(micro.model, micro.tokenizer, 1).loglikelihood(instances("loglikelihood", [pair]))[0][0]
        assert [of[batch][pair] for batch in of] == pytest.approx([alone] * 3, abs=1e-4)


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
def test_generation_settings_of_model_and_task_give_stocks_responses(micro, monkeypatch, settings, own, way):
    for name, value in own.items():
        monkeypatch.setattr(micro.model.generation_config, name, value)
    prompts = [(text, {"until": ["zz"], "max_gen_toks": 7, **settings}) for text in ("Tom has", "B: 1", "Question: Ann")]
    exact = fast(micro.model, micro.tokenizer, 2)
    found = exact.generate_until(instances("generate_until", prompts))
    assert str(exact.notes["generation"]) == way
    if not settings["do_sample"]:
        stock = HFLM(pretrained=micro.model, tokenizer=micro.tokenizer, batch_size=1)
        assert found == stock.generate_until(instances("generate_until", prompts))


@pytest.mark.parametrize("until", [[""], ["", "zz"], ["pens", " a rather long stop string that never comes"], "7"])
def test_stop_strings_end_a_response_where_lm_eval_does(micro, until):
    prompts = [(f"Question: {name} has 3 pens.", {"until": until, "max_gen_toks": 12}) for name in ("Tom", "Ann", "Bo")]
    stock = HFLM(pretrained=micro.model, tokenizer=micro.tokenizer, batch_size=1)
    found = fast(micro.model, micro.tokenizer, 3).generate_until(instances("generate_until", prompts))
    assert found == stock.generate_until(instances("generate_until", prompts))


@pytest.mark.parametrize("double", [True, False])
def test_dequantized_layers_are_equal_bit_by_bit(monkeypatch, double):
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


def test_adapter_is_merged_for_a_block_unless_it_cannot_be(micro):
    ids = torch.randint(0, 1000, (2, 11), generator=torch.Generator().manual_seed(0))
    with peft_adapter.adapted(micro, Lora(rank=4, alpha=8), 0) as model, torch.no_grad():
        loud(model)
        before = model(ids).logits
        with peft_adapter.merged(model) as whole:
            assert torch.allclose(whole(ids).logits, before, atol=1e-4)
            assert not any("lora" in name for name, _ in whole.named_modules())
        assert torch.equal(model(ids).logits, before)
    with peft_adapter.adapted(micro, Lora(rank=4, use_dora=True), 0) as model, peft_adapter.merged(model) as whole:
        assert whole is model


def test_engine_is_no_part_of_the_key(spec):
    def under(engine: str):
        roles = {role: {**one.model_dump(), "engine": engine} for role, one in spec.eval.items()}
        return type(spec).model_validate({**spec.model_dump(), "eval": roles})

    assert under("exact").key == under("hflm").key == under("hf").key
    assert {one.engine for one in under("hf").eval.values()} == {"hflm"}


@pytest.mark.parametrize(("method", "graphs"), [("lora", True), ("full", True), ("oft", False), ("shira", False)])
def test_gpu_decodes_without_graphs_under_adapters_that_make_matrices(micro, monkeypatch, method, graphs):
    ran = []
    monkeypatch.setattr(fast_engine.cuda_graph_greedy, "greedy", lambda *_: ran.append(True))
    monkeypatch.setattr(fast_engine.greedy, "greedy", lambda *_: ran.append(False))
    with peft_adapter.adapted(micro, Lora(method=method), 0) as model:
        engine = FastEngine(model, micro.tokenizer, 4)
        monkeypatch.setattr(type(engine.plain), "device", torch.device("cuda"), raising=False)
        engine._run([], 1)
    assert ran == [graphs]
