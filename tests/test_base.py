"""Bases by the real loader: GGUF files, other architectures than Llama, the type of the hardware, and what is refused."""

import json
from pathlib import Path

import bitsandbytes as bnb
import numpy as np
import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer, LlamaConfig, LlamaForCausalLM

from trials import base, hardware
from trials.errors import InputError
from trials.hub import Hub
from trials.spec import Base, Data

MICRO = Path(__file__).parent.parent / "trials" / "micro" / "hub" / "micro"
IDS = torch.tensor([[5, 6, 7, 200, 31, 8]])


def permuted(weight: np.ndarray, heads: int) -> np.ndarray:
    """The rows of a query or key projection as llama.cpp orders them: the halves of each head interleaved."""
    rows, columns = weight.shape
    return weight.reshape(heads, 2, rows // heads // 2, columns).swapaxes(1, 2).reshape(rows, columns)


def write_gguf(model: LlamaForCausalLM, path: Path, kind: type = np.float32, scaled: bool = False) -> None:
    """A Llama as llama.cpp's converter writes it, in 32 or 16 bits; the tokenizer stays beside it."""
    from gguf import GGUFWriter

    config = model.config
    writer = GGUFWriter(path, "llama")
    writer.add_name("miniature")
    writer.add_vocab_size(config.vocab_size)
    writer.add_context_length(config.max_position_embeddings)
    writer.add_embedding_length(config.hidden_size)
    writer.add_block_count(config.num_hidden_layers)
    writer.add_feed_forward_length(config.intermediate_size)
    writer.add_head_count(config.num_attention_heads)
    writer.add_head_count_kv(config.num_key_value_heads)
    writer.add_layer_norm_rms_eps(config.rms_norm_eps)
    writer.add_rope_dimension_count(config.head_dim)
    writer.add_rope_freq_base(config.rope_parameters["rope_theta"])
    if scaled:
        writer.add_tensor("rope_freqs.weight", np.ones(config.head_dim // 2, dtype=np.float32))
    names = {
        "self_attn.q_proj": "attn_q", "self_attn.k_proj": "attn_k", "self_attn.v_proj": "attn_v",
        "self_attn.o_proj": "attn_output", "mlp.gate_proj": "ffn_gate", "mlp.up_proj": "ffn_up", "mlp.down_proj": "ffn_down",
        "input_layernorm": "attn_norm", "post_attention_layernorm": "ffn_norm",
    }  # fmt: skip
    whole = {"model.embed_tokens": "token_embd", "model.norm": "output_norm", "lm_head": "output"}
    for name, weight in model.state_dict().items():
        name, values = name.removesuffix(".weight"), weight.numpy()
        if name == "lm_head" and config.tie_word_embeddings:
            continue
        if name.startswith("model.layers."):
            _, _, block, inner = name.split(".", 3)
            name = f"blk.{block}.{names[inner]}"
            heads = {"attn_q": config.num_attention_heads, "attn_k": config.num_key_value_heads}.get(names[inner])
            values = values if heads is None else permuted(values, heads)
        else:
            name = whole[name]
        writer.add_tensor(f"{name}.weight", values.astype(kind if values.ndim > 1 else np.float32))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


@pytest.fixture
def cache(tmp_path, monkeypatch) -> Path:
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "HF_HOME", str(tmp_path / "cache"))
    return tmp_path / "cache" / "slimsweep" / "gguf"


@pytest.fixture
def grouped(tmp_path) -> Path:
    """A random Llama unlike micro where a GGUF file can go wrong: fewer key heads, an own head, another rotary base."""
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=1536, hidden_size=64, intermediate_size=128, num_hidden_layers=2, num_attention_heads=4,
        num_key_value_heads=2, head_dim=16, tie_word_embeddings=False, initializer_range=0.3,
        rope_parameters={"rope_type": "default", "rope_theta": 5e5},
    )  # fmt: skip
    LlamaForCausalLM(config).save_pretrained(tmp_path / "grouped")
    AutoTokenizer.from_pretrained(MICRO).save_pretrained(tmp_path / "grouped")
    return tmp_path / "grouped"


def beside_tokenizer(folder: Path, model: Path, **kind) -> Path:
    """A folder that holds the model as a GGUF file and its tokenizer alone."""
    AutoTokenizer.from_pretrained(model).save_pretrained(folder)
    write_gguf(AutoModelForCausalLM.from_pretrained(model), folder / "model.gguf", **kind)
    return folder


@pytest.mark.parametrize("which", ["micro", "grouped"])
def test_a_gguf_file_is_the_base_that_it_was_made_of(which, grouped, tmp_path, cache):
    model = MICRO if which == "micro" else grouped
    folder = beside_tokenizer(tmp_path / "file", model)
    asked = Base(model=str(folder), gguf="model.gguf", quantization="none", dtype="float32")
    loaded = base.load(asked, Hub())
    wanted = AutoModelForCausalLM.from_pretrained(model, dtype=torch.float32).eval()
    with torch.no_grad():
        torch.testing.assert_close(loaded.model(IDS).logits, wanted(IDS).logits, rtol=1e-4, atol=1e-4)
    assert loaded.tokenizer("How many?")["input_ids"] == AutoTokenizer.from_pretrained(model)("How many?")["input_ids"]
    assert loaded.model.config.tie_word_embeddings == wanted.config.tie_word_embeddings


def test_a_gguf_base_is_quantised_by_bitsandbytes_as_its_safetensors_are(tmp_path, cache):
    folder = beside_tokenizer(tmp_path / "file", MICRO)
    loaded = base.load(Base(model=str(folder), gguf="model.gguf", quantization="nf4", dtype="float32"), Hub())
    wanted = base.load(Base(model="micro", quantization="nf4", dtype="float32"), Hub())
    layers = [module for name, module in loaded.model.named_modules() if name.endswith("_proj")]
    assert layers
    assert all(isinstance(layer, bnb.nn.Linear4bit) for layer in layers)
    with torch.no_grad():
        torch.testing.assert_close(loaded.model(IDS).logits, wanted.model(IDS).logits, rtol=1e-4, atol=1e-4)


def test_the_checksum_of_a_gguf_base_is_its_files_and_it_is_converted_once(tmp_path, cache):
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


def test_a_gguf_file_whose_rotary_scaling_would_be_lost_is_refused_unless_a_config_tells_it(grouped, tmp_path, cache):
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


# ---------------------------------------------------------------------- what is refused


def hub_error(kind: str, status: int, url: str) -> Exception:
    """The exception that huggingface_hub itself makes of such an answer."""
    import httpx2
    from huggingface_hub.errors import HfHubHTTPError
    from huggingface_hub.utils import hf_raise_for_status

    request = httpx2.Request("HEAD", url, headers={"authorization": "Bearer hf_averysecrettoken"})
    answer = httpx2.Response(status, headers={"X-Error-Code": kind} if kind else {}, request=request)
    with pytest.raises(HfHubHTTPError) as caught:
        hf_raise_for_status(answer)
    return caught.value


@pytest.mark.parametrize(
    ("kind", "status", "expected"),
    [
        ("GatedRepo", 401, "gated: accept its licence at https://huggingface.co/some/model, then log in with `hf auth login`"),
        ("GatedRepo", 403, "the account of this token has no access; accept its licence at https://huggingface.co/some/model"),
        ("RepoNotFound", 404, "neither a folder, nor in a mirror (hub_mirror is not set), nor to be had from the hub"),
        ("", 401, "no such public repository; if it is private, log in with `hf auth login` or set HF_TOKEN"),
        ("RevisionNotFound", 404, "has no revision 'step3' on the hub; https://huggingface.co/some/model/tree/main lists"),
    ],
)
@pytest.mark.parametrize("gguf", [None, "model.gguf"])
def test_what_the_hub_refuses_is_one_line_that_names_what_to_do(monkeypatch, kind, status, expected, gguf):
    """The hub's answers, given where huggingface_hub asks for them; transformers wraps them as it does."""
    from huggingface_hub import file_download

    def refuse(*_, **__):
        raise hub_error(kind, status, "https://huggingface.co/api/models/some/model/resolve/step3/config.json")

    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", False)
    monkeypatch.setattr(file_download, "get_hf_file_metadata", refuse)
    with pytest.raises(InputError) as caught:
        base.check(Base(model="some/model", revision="step3", gguf=gguf, dtype="float32"), Hub())
    assert expected in str(caught.value)
    assert str(caught.value).startswith("base.model 'some/model'")
    assert "\n" not in str(caught.value)
    assert "hf_averysecret" not in str(caught.value)


def test_a_token_in_an_error_is_never_printed():
    error = Hub().missing("base.model", "some/model", OSError("refused for hf_AbCdEfGh0123456789 at the hub"))
    assert "AbCdEfGh" not in str(error)
    assert "hf_***" in str(error)


def test_a_gguf_file_that_is_not_there_is_named_with_those_that_are(tmp_path, monkeypatch):
    (tmp_path / "model-Q8_0.gguf").touch()
    with pytest.raises(InputError, match=r"has no file 'model.gguf'; its GGUF files: model-Q8_0.gguf$"):
        base.check(Base(model=str(tmp_path), gguf="model.gguf", dtype="float32"), Hub())


def save_config(folder: Path, **parts) -> str:
    (folder / "config.json").write_text(json.dumps(parts))
    return str(folder)


@pytest.mark.parametrize(
    ("config", "expected"),
    [
        ({"model_type": "bert", "architectures": ["BertForMaskedLM"]}, "no causal language model (bert, BertForMaskedLM)"),
        ({"model_type": "t5", "architectures": ["T5ForConditionalGeneration"]}, "no causal language model (t5"),
        ({"model_type": "llama", "architectures": ["LlamaForSequenceClassification"]}, "LlamaForSequenceClassification"),
        ({"model_type": "ours", "auto_map": {"AutoConfig": "ours.Config"}}, "needs code of its own repository"),
        ({"model_type": "ours"}, "cannot be read"),
    ],
)
def test_a_model_that_cannot_be_tuned_is_one_line(tmp_path, config, expected):
    with pytest.raises(InputError) as caught:
        base.check(Base(model=save_config(tmp_path, **config), dtype="float32"), Hub())
    assert expected in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_folder_without_a_model_says_so(tmp_path):
    with pytest.raises(InputError, match=rf"base.model '{tmp_path}' in {tmp_path} cannot be read"):
        base.check(Base(model=str(tmp_path), dtype="float32"), Hub())


def test_chat_rows_need_a_tokenizer_with_a_chat_template(tmp_path):
    data = Data(samples=4, mix={"micro/alpaca": 1.0}, template="chat")
    made = AutoTokenizer.from_pretrained(MICRO)
    made.chat_template = None
    made.save_pretrained(tmp_path)
    plain = Base(model=str(tmp_path), dtype="float32")
    with pytest.raises(InputError, match="no chat template; take template alpaca or plain, or an instruct model"):
        base.check_template(plain, data, Hub())
    base.check_template(plain, data.model_copy(update={"template": "plain"}), Hub())
    made.chat_template = "{% for message in messages %}{{ message.content }}{% endfor %}"
    made.save_pretrained(tmp_path)
    base.check_template(plain, data, Hub())


# ---------------------------------------------------------------------- the type of the hardware


@pytest.mark.parametrize(
    ("capability", "expected"),
    [(None, "bfloat16"), ((7, 0), "float16"), ((7, 5), "float16"), ((8, 0), "bfloat16"), ((12, 0), "bfloat16")],
)
def test_the_type_is_bfloat16_where_the_hardware_has_units_for_it(capability, expected):
    assert hardware.half_type(capability) == expected


def on_a_gpu(monkeypatch, capability) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda: capability)


def test_bfloat16_on_a_gpu_without_units_for_it_is_refused_before_anything_is_loaded(monkeypatch):
    on_a_gpu(monkeypatch, (7, 5))
    with pytest.raises(InputError, match=r"\(compute capability 7\.5\) has no units for bfloat16; use base\.dtype: float16"):
        base.load(Base(model="micro", dtype="bfloat16"), Hub())
    hardware.check("float16")
    on_a_gpu(monkeypatch, (8, 9))
    hardware.check("bfloat16")


def test_a_base_whose_type_is_not_settled_is_refused():
    for refusing in (base.check, base.load):
        with pytest.raises(InputError, match="auto stands for a type that is chosen before a trial gets its key"):
            refusing(Base(model="micro"), Hub())
