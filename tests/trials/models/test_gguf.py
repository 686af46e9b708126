"""A GGUF file gives the base that it was made from."""

import json
from pathlib import Path

import bitsandbytes as bnb
import numpy as np
import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer, LlamaConfig, LlamaForCausalLM

from tests.factories.bases import MICRO, beside_tokenizer, write_gguf
from trials.errors import InputError
from trials.hub.hub import Hub
from trials.models import base
from trials.spec import Base

IDS = torch.tensor([[5, 6, 7, 200, 31, 8]])


@pytest.fixture
def cache(tmp_path, monkeypatch) -> Path:
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "HF_HOME", str(tmp_path / "cache"))
    return tmp_path / "cache" / "slimsweep" / "gguf"


@pytest.fixture
def grouped(tmp_path) -> Path:
    """A random Llama with what a GGUF file can get wrong: fewer key heads, an untied head, another rotary base."""
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=1536, hidden_size=64, intermediate_size=128, num_hidden_layers=2, num_attention_heads=4,
        num_key_value_heads=2, head_dim=16, tie_word_embeddings=False, initializer_range=0.3,
        rope_parameters={"rope_type": "default", "rope_theta": 5e5},
    )  # fmt: skip
    LlamaForCausalLM(config).save_pretrained(tmp_path / "grouped")
    AutoTokenizer.from_pretrained(MICRO).save_pretrained(tmp_path / "grouped")
    return tmp_path / "grouped"


@pytest.mark.parametrize("which", ["micro", "grouped"])
def test_gguf_base_has_the_logits_of_its_original(which, grouped, tmp_path, cache):
    model = MICRO if which == "micro" else grouped
    folder = beside_tokenizer(tmp_path / "file", model)
    asked = Base(model=str(folder), gguf="model.gguf", quantization="none", dtype="float32")
    loaded = base.load(asked, Hub())
    wanted = AutoModelForCausalLM.from_pretrained(model, dtype=torch.float32).eval()
    with torch.no_grad():
        torch.testing.assert_close(loaded.model(IDS).logits, wanted(IDS).logits, rtol=1e-4, atol=1e-4)
    assert loaded.tokenizer("How many?")["input_ids"] == AutoTokenizer.from_pretrained(model)("How many?")["input_ids"]
    assert loaded.model.config.tie_word_embeddings == wanted.config.tie_word_embeddings


def test_gguf_base_is_quantised_as_its_safetensors(tmp_path, cache):
    folder = beside_tokenizer(tmp_path / "file", MICRO)
    loaded = base.load(Base(model=str(folder), gguf="model.gguf", quantization="nf4", dtype="float32"), Hub())
    wanted = base.load(Base(model="micro", quantization="nf4", dtype="float32"), Hub())
    layers = [module for name, module in loaded.model.named_modules() if name.endswith("_proj")]
    assert layers
    assert all(isinstance(layer, bnb.nn.Linear4bit) for layer in layers)
    with torch.no_grad():
        torch.testing.assert_close(loaded.model(IDS).logits, wanted.model(IDS).logits, rtol=1e-4, atol=1e-4)


def test_gguf_file_is_converted_once_and_gives_the_checksum(tmp_path, cache):
    folder = beside_tokenizer(tmp_path / "file", MICRO)
    asked = Base(model=str(folder), gguf="model.gguf", dtype="float32")
    first = base.load(asked, Hub())
    (made,) = cache.iterdir()
    stamp = (made / "model.safetensors").stat().st_mtime_ns
    assert base.load(asked, Hub()).checksum == first.checksum
    assert [(made / "model.safetensors").stat().st_mtime_ns, len(list(cache.iterdir()))] == [stamp, 1]
    (folder / "model.gguf").unlink()
    write_gguf(AutoModelForCausalLM.from_pretrained(MICRO), folder / "model.gguf", kind=np.float16)
    assert base.load(asked, Hub()).checksum != first.checksum
    assert len(list(cache.iterdir())) == 2


def test_scaled_rotary_positions_need_a_config(grouped, tmp_path, cache):
    folder = beside_tokenizer(tmp_path / "file", grouped, scaled=True)
    asked = Base(model=str(folder), gguf="model.gguf", quantization="none", dtype="float32")
    with pytest.raises(InputError, match=r"scales its rotary positions.*config\.json"):
        base.load(asked, Hub())
    config = json.loads((grouped / "config.json").read_text())
    config["rope_parameters"] = {
        "rope_type": "llama3", "rope_theta": 5e5, "factor": 32.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0,
        "original_max_position_embeddings": 8,
    }  # fmt: skip
    (folder / "config.json").write_text(json.dumps(config))
    (grouped / "config.json").write_text(json.dumps(config))
    loaded = base.load(asked, Hub())
    wanted = AutoModelForCausalLM.from_pretrained(grouped, dtype=torch.float32).eval()
    with torch.no_grad():
        torch.testing.assert_close(loaded.model(IDS).logits, wanted(IDS).logits, rtol=1e-4, atol=1e-4)


def test_error_of_a_missing_gguf_file_lists_the_others(tmp_path, monkeypatch):
    (tmp_path / "model-Q8_0.gguf").touch()
    with pytest.raises(InputError, match=r"has no file 'model.gguf'; its GGUF files: model-Q8_0.gguf$"):
        base.check(Base(model=str(tmp_path), gguf="model.gguf", dtype="float32"), Hub())
