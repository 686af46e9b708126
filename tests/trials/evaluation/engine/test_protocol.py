"""An engine is whatever implements the protocol: one that knows nothing of torch or transformers evaluates micro's tasks."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import pytest

from trials.evaluation import evaluate
from trials.evaluation.engine.fast_engine import FastEngine
from trials.evaluation.engine.hf_engine import HFEngine
from trials.evaluation.engine.protocol import Answer, Continuation, Decoding, Engine, Prompt, Response, Tally
from trials.hub.hub import Hub
from trials.models import base
from trials.spec import Base, Evaluation
from trials.tasks.tasks import Tasks

PAIRS = [
    ("Tom has", " 5"),
    ("Question: Ann has 3 pens and buys 9.\nAnswer:", " 3 + 9 = 12"),
    ("B:", " 1"),
    ("A much longer", " one"),
]


@dataclass
class Constant:
    """Gives every token one bit, and every prompt the same response."""

    tokenizer: Any
    response: str = " 3\n#### 3"
    max_length: int = 1024
    notes: dict[str, str] = field(default_factory=lambda: {"generation": "constant"})
    tally: Tally = field(default_factory=Tally)

    def log_likelihoods(self, requests: Sequence[Continuation]) -> list[Answer]:
        return [(-float(len(tokens)), False) for _, tokens in requests]

    def token_bits(self, requests: Sequence[Continuation]) -> list[list[float]]:
        return [[1.0] * len(tokens) for _, tokens in requests]

    def generate(self, prompts: Sequence[Prompt], decoding: Decoding) -> list[Response]:
        return [Response(self.tokenizer.encode(self.response)[: decoding.max_tokens], True) for _ in prompts]


@pytest.fixture(scope="module")
def tokenizer():
    return base.tokenizer(Base(model="micro"), Hub())


@pytest.mark.parametrize("preset", ["micro_swag", "micro_gsm", "micro_gsm_choice"])
def test_another_engine_needs_no_other_change(tokenizer, preset):
    engine: Engine = Constant(tokenizer)
    evaluation = Evaluation.model_validate({"preset": preset, "documents": 12})
    found = evaluate.evaluate(engine, "role", evaluation, Tasks(Hub()))
    assert len(found) == 12
    assert found.attrs["engine"] == {"generation": "constant"}
    if preset == "micro_gsm":
        assert set(found["response"]) == {" 3\n#### 3"}
        assert found["stopped"].all()
        tokens = [len(tokenizer.encode(f" {target}", add_special_tokens=False)) for target in found["target"]]
        assert found["bits"].tolist() == pytest.approx(tokens, abs=1)  # a word boundary may move one token


@pytest.mark.parametrize("name", ["exact", "hflm"])
def test_every_engine_of_a_spec_answers_in_the_order_of_the_requests(tokenizer, name):
    loaded = base.load(Base(model="micro", dtype="float32"), Hub())
    engine = evaluate.make_engine(name, loaded.model, tokenizer, 2)
    assert isinstance(engine, {"exact": FastEngine, "hflm": HFEngine}[name])
    requests = [Continuation(tokenizer.encode(context), tokenizer.encode(end)) for context, end in PAIRS]

    def text(responses: list[Response]) -> list[str]:
        return [tokenizer.decode(response.tokens, skip_special_tokens=True) for response in responses]

    together, decoding = engine.log_likelihoods(requests), Decoding(4, ())
    alone = [engine.log_likelihoods([request])[0] for request in requests]
    assert [nats for nats, _ in together] == pytest.approx([nats for nats, _ in alone], abs=1e-4)
    assert [sum(bits) for bits in engine.token_bits(requests)] == pytest.approx(
        [-nats / 0.6931472 for nats, _ in alone], rel=1e-4
    )
    prompts = [Prompt(request.context) for request in requests]
    alone = [engine.generate([prompt], decoding)[0] for prompt in prompts]
    assert text(engine.generate(prompts, decoding)) == text(alone)


@pytest.mark.parametrize("engine", [FastEngine, HFEngine])
@pytest.mark.parametrize("preset", ["micro_swag", "micro_gsm"])
def test_engine_counts_every_document_once_while_it_works(engine, preset):
    loaded = base.load(Base(model="micro", quantization="none", dtype="float32"), Hub())
    made = engine(loaded.model, loaded.tokenizer, 4)
    made.tally.report = (counted := []).append
    evaluate.evaluate(made, "role", Evaluation.model_validate({"preset": preset, "documents": 10}), Tasks(Hub()))
    assert counted == sorted(set(counted))
    assert counted[-1] == 10
    assert len(counted) > 2, "only at the end"


def test_documents_of_several_calls_add_up():
    tally, counted = Tally(), []
    tally.report = counted.append
    tally.begin(2, 8)
    for answered in (3, 1, 4):
        tally.add(answered)
    tally.begin(3, 3)
    tally.add(1)
    tally.add(5)  # more than were announced: rows that fill up a batch
    assert counted == [1, 2, 3, 5]
    tally.begin(1, 0)
    tally.add(1)
    assert counted[-1] == 5
