"""Bases by the real loader: GGUF files, other architectures than Llama, the type of the hardware, and what is refused."""

import json
from pathlib import Path
from typing import Any

import bitsandbytes as bnb
import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer, LlamaConfig, LlamaForCausalLM

from orchestrator.cluster.prefetch import _from_hub
from orchestrator.config.model import SweepConfig
from orchestrator.planning.plan import plan
from tests.factories.bases import MICRO, beside_tokenizer, write_gguf
from trials import preflight
from trials.adapters import target_modules
from trials.errors import InputError
from trials.hub.hub import Hub
from trials.ledger.record import Ledger
from trials.models import base, dequantize, devices
from trials.run import worker as trial
from trials.spec import Base, Data, TrialSpec

IDS = torch.tensor([[5, 6, 7, 200, 31, 8]])


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
    with pytest.raises(InputError, match="no chat template; use template alpaca or plain, or an instruct model"):
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
    assert devices.half_type(capability) == expected


def on_a_gpu(monkeypatch, capability) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda: capability)


def test_bfloat16_on_a_gpu_without_units_for_it_is_refused_before_anything_is_loaded(monkeypatch):
    on_a_gpu(monkeypatch, (7, 5))
    with pytest.raises(InputError, match=r"\(compute capability 7\.5\) has no units for bfloat16; use base\.dtype: float16"):
        base.load(Base(model="micro", dtype="bfloat16"), Hub())
    devices.check("float16")
    on_a_gpu(monkeypatch, (8, 9))
    devices.check("bfloat16")


def test_a_base_whose_type_is_not_settled_is_refused():
    for refusing in (base.check, base.load):
        with pytest.raises(InputError, match="auto is resolved to a type before a trial gets its key"):
            refusing(Base(model="micro"), Hub())


# ---------------------------------------------------------------------- other architectures

SMALL = {"vocab_size": 1536, "hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4}
GATED = {**SMALL, "intermediate_size": 64, "num_key_value_heads": 2}
OLD = {"vocab_size": 1536, "n_layer": 2, "n_head": 4}
LLAMA_LIKE = {"qkv": "q_proj k_proj v_proj", "output": "o_proj", "mlp": "gate_proj up_proj down_proj"}
NEOX_LIKE = {"qkv": "query_key_value", "output": "dense", "mlp": "dense_h_to_4h dense_4h_to_h"}
ARCHITECTURES = {
    "llama": (GATED, LLAMA_LIKE),
    "qwen2": (GATED, LLAMA_LIKE),
    "qwen3": (GATED, LLAMA_LIKE),
    "mistral": (GATED, LLAMA_LIKE),
    "gemma": ({**GATED, "head_dim": 8}, LLAMA_LIKE),
    "gemma3_text": ({**GATED, "head_dim": 8}, LLAMA_LIKE),
    "olmo2": ({**GATED, "pad_token_id": 1, "eos_token_id": 0}, LLAMA_LIKE),
    "phi": ({**SMALL, "intermediate_size": 64}, {"qkv": "q_proj k_proj v_proj", "output": "dense", "mlp": "fc1 fc2"}),
    "phi3": ({**GATED, "pad_token_id": 0}, {"qkv": "qkv_proj", "output": "o_proj", "mlp": "gate_up_proj down_proj"}),
    "gpt_neox": ({**SMALL, "intermediate_size": 64}, NEOX_LIKE),
    "falcon": (SMALL, NEOX_LIKE),
    "bloom": ({**OLD, "hidden_size": 32}, NEOX_LIKE),
    "gpt2": ({**OLD, "n_embd": 32}, {"qkv": "c_attn", "output": "attn.c_proj", "mlp": "c_fc mlp.c_proj"}),
    "gptj": (
        {**OLD, "n_embd": 32, "rotary_dim": 4},
        {"qkv": "q_proj k_proj v_proj", "output": "out_proj", "mlp": "fc_in fc_out"},
    ),
    "mpt": (
        {"vocab_size": 1536, "d_model": 32, "n_layers": 2, "n_heads": 4},
        {"qkv": "Wqkv", "output": "out_proj", "mlp": "up_proj down_proj"},
    ),
}


def miniature(kind: str, **more) -> Any:
    """The architecture in miniature, its weights drawn at random."""
    torch.manual_seed(0)
    return AutoModelForCausalLM.from_config(AutoConfig.for_model(kind, **ARCHITECTURES[kind][0], **more))


@pytest.mark.parametrize("kind", ARCHITECTURES)
def test_the_groups_of_layers_are_those_of_the_architecture(kind):
    from transformers.pytorch_utils import Conv1D

    linear = [name for name, module in miniature(kind).named_modules() if isinstance(module, torch.nn.Linear | Conv1D)]
    qkv, output, mlp = (set(ARCHITECTURES[kind][1][name].split()) for name in ("qkv", "output", "mlp"))
    for group, wanted in {"qkv": qkv, "attention": qkv | output, "mlp": mlp}.items():
        assert set(target_modules.chosen(group, linear)) == wanted
    everything = target_modules.chosen("all-linear", linear)
    assert [name for name in linear if not target_modules.matches(name, everything)] in (["lm_head"], [])
    assert not target_modules.matches("lm_head", everything)


def test_layers_may_be_named_and_one_that_is_not_there_is_told_with_those_that_are():
    linear = ["h.0.attn.c_attn", "h.0.attn.c_proj", "h.0.mlp.c_proj", "lm_head"]
    assert target_modules.chosen(["attn.c_proj"], linear) == ["attn.c_proj"]
    assert target_modules.chosen(["c_proj"], linear) == ["c_proj"]
    with pytest.raises(InputError, match=r"no o_proj; did you mean 'c_proj'\? It has c_attn, c_proj, lm_head, and the groups"):
        target_modules.chosen(["o_proj"], linear)


@pytest.fixture(scope="module", params=["gpt_neox", "qwen2"])
def another_base(request, tmp_path_factory) -> Path:
    """Another architecture than Llama on disk, with micro's tokenizer."""
    folder = tmp_path_factory.mktemp(request.param)
    model = miniature(request.param, bos_token_id=0, eos_token_id=0, pad_token_id=1, max_position_embeddings=1024)
    for name, weight in model.named_parameters():
        if name.endswith("bias"):  # nought as it is drawn, which would hide one that is lost
            torch.nn.init.normal_(weight, std=0.1)
    model.save_pretrained(folder)
    AutoTokenizer.from_pretrained(MICRO).save_pretrained(folder)
    return folder


@pytest.mark.parametrize("group", ["qkv", "all-linear"])
def test_another_architecture_passes_the_whole_path_of_a_trial(another_base, group, spec, worker, tmp_path):
    parts = spec.model_dump(mode="json")
    parts["base"] |= {"model": str(another_base), "quantization": "nf4"}
    parts["data"] |= {"samples": 24}
    parts["lora"] |= {"target_modules": group}
    for evaluation in parts["eval"].values():
        evaluation["documents"] = 4
    asked = TrialSpec.model_validate(parts)
    preflight.check(asked, worker.session.hub, worker.session.tasks)
    mine = trial.Worker(Ledger(tmp_path), worker.session.hub)
    mine.session.tasks = worker.session.tasks
    baseline, record = mine.run(asked.baseline()), mine.run(asked)
    assert (baseline.state, record.state) == ("complete", "complete"), record.failure
    assert record.base_checksum == baseline.base_checksum is not None
    assert {role: score.n for role, score in record.scores.items()} == {"commonsense": 4, "math": 4}
    assert record.losses
    weights = load_file(mine.session.ledger.folder(asked.key) / "adapter" / "adapter_model.safetensors")
    kind = AutoConfig.from_pretrained(another_base).model_type
    names = ARCHITECTURES[kind][1]["qkv"] if group == "qkv" else " ".join(ARCHITECTURES[kind][1].values())
    assert {name.split(".lora_")[0].rpartition(".")[2] for name in weights} == set(names.split())
    assert any(weight.abs().max() > 0 for name, weight in weights.items() if "lora_B" in name)


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_no_4_bit_layer_is_packed_for_a_cpu_with_units_for_bfloat16(dtype, monkeypatch):
    monkeypatch.setattr(bnb.nn.modules, "has_avx512bf16", lambda: True)
    monkeypatch.setattr(dequantize, "SHARE", 0.0)
    model = base.load(Base(model="micro", dtype=dtype), Hub()).model
    layers = [layer for layer in model.modules() if type(layer) is bnb.nn.Linear4bit]
    assert layers
    assert not any(layer.support_avx512bf16_for_cpu for layer in layers)


def test_the_biases_of_a_quantised_base_are_kept(another_base):
    loaded = base.load(Base(model=str(another_base), dtype="float32"), Hub())
    wanted = AutoModelForCausalLM.from_pretrained(another_base, dtype=torch.float32).state_dict()
    found = {name: weight for name, weight in loaded.model.state_dict().items() if name.endswith("bias")}
    assert found
    assert all(torch.equal(weight, wanted[name]) for name, weight in found.items())


def test_a_base_whose_costs_cannot_be_counted_is_planned_without_them(another_base, parts, tmp_path):
    parts["base"]["model"] = str(another_base)
    planned = plan(SweepConfig.model_validate(parts), tmp_path)
    assert planned.trials == 2
    assert not any(name.startswith("/") for name in _from_hub(SweepConfig.model_validate(parts))), "a folder is not fetched"
    if "gpt_neox" in another_base.name:
        assert planned.memory is None
        assert any("nothing can be counted for this base" in note for note in planned.notes)
    else:
        assert planned.memory is not None
