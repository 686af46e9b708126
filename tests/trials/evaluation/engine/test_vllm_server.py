"""vLLM's process runs the trial's own base and adapter. vLLM itself is a fake on transformers here."""

import os
import signal
from pathlib import Path

import pytest
import torch
from transformers import AutoModelForCausalLM

from tests.factories import fake_vllm
from trials.adapters import peft_adapter
from trials.evaluation.engine.fast_engine import FastEngine
from trials.evaluation.engine.protocol import Decoding, Prompt
from trials.evaluation.engine.vllm_python import PYTHON
from trials.evaluation.engine.vllm_server import VllmServer, write_base
from trials.hub.hub import Hub
from trials.models import base
from trials.spec import Base, Lora

TEXTS = ["Question: Tom has 12 apples. He eats 5.\nAnswer:", "Question: 3 birds", "A"]


@pytest.fixture(scope="module")
def loaded():
    return base.load(Base(model="micro", dtype="float32"), Hub())


@pytest.fixture
def server(loaded, tmp_path, monkeypatch, request):
    """With the fake on transformers where a test asks for it: its process takes seconds to start."""
    monkeypatch.setenv(PYTHON, fake_vllm.python(tmp_path, light=getattr(request, "param", "light") == "light"))
    made = VllmServer(loaded)
    yield made
    made._running and made._running[0][0].kill()


def wanted(tokenizer, most=12, stops=("\n\n",)):
    prompts = [tokenizer.encode(text) for text in TEXTS]
    return {"prompts": prompts, "max_tokens": most, "stops": list(stops), "end_tokens": [tokenizer.eos_token_id]}


def responses(loaded, model, most=12):
    prompts = [Prompt(loaded.tokenizer.encode(text)) for text in TEXTS]
    found = FastEngine(model, loaded.tokenizer, 2).generate(prompts, Decoding(most, ("\n\n",)))
    return [(one.tokens, one.stopped) for one in found]


def adapter(loaded, folder: Path, rank: int = 4) -> Path:
    with peft_adapter.adapted(loaded, Lora(rank=rank, alpha=8), seed=0) as model:
        for name, weight in model.named_parameters():
            if "lora_B" in name:
                torch.nn.init.normal_(weight, std=0.3)
        peft_adapter.save(model, folder)
    return folder


def test_written_base_is_the_four_bit_one_to_plain_transformers(loaded, tmp_path):
    write_base(loaded, tmp_path)
    plain = AutoModelForCausalLM.from_pretrained(tmp_path)
    ids = torch.tensor([loaded.tokenizer.encode(TEXTS[0])])
    with torch.no_grad():
        assert torch.allclose(plain(ids).logits, loaded.model(ids).logits, atol=1e-4)


@pytest.mark.parametrize("server", ["transformers"], indirect=True)
def test_responses_are_those_of_the_base_and_of_each_adapter(server, loaded, tmp_path):
    found, version = server.generate(wanted(loaded.tokenizer), None)
    assert (found, version) == (responses(loaded, loaded.model), "fake")
    other = None
    for number in range(2):
        folder = adapter(loaded, tmp_path / str(number), rank=4 + number)
        told, _ = server.generate(wanted(loaded.tokenizer), folder)
        with peft_adapter.borrowed(loaded, folder) as model:
            assert told == responses(loaded, model)
        assert told != found != other
        other = told


def test_longer_request_or_larger_adapter_starts_the_process_anew(server, loaded, tmp_path):
    server.generate(wanted(loaded.tokenizer), None)
    first = server._running[0][0].pid
    server.generate(wanted(loaded.tokenizer, most=3), adapter(loaded, tmp_path / "16", 16))
    assert server._running[0][0].pid == first
    server.generate(wanted(loaded.tokenizer, most=20), None)
    second = server._running[0][0].pid
    server.generate(wanted(loaded.tokenizer), adapter(loaded, tmp_path / "20", 20))
    assert len({first, second, server._running[0][0].pid}) == 3


def test_death_of_the_process_is_told_and_the_next_request_starts_it_again(server, loaded):
    found, _ = server.generate(wanted(loaded.tokenizer), None)
    os.kill(server._running[0][0].pid, signal.SIGKILL)
    with pytest.raises((RuntimeError, BrokenPipeError)):
        server.generate(wanted(loaded.tokenizer), None)
    assert server.generate(wanted(loaded.tokenizer), None)[0] == found


def test_error_of_vllm_is_one_line_of_it(server, loaded):
    with pytest.raises(RuntimeError, match="vLLM: TypeError"):
        server.generate({**wanted(loaded.tokenizer), "stops": None}, None)
    assert not server._running, "after a failure it may have no weights"


def test_process_ends_with_the_server(server, loaded):
    server.generate(wanted(loaded.tokenizer), None)
    process = server._running[0][0]
    server.end()
    assert process.poll() is not None
