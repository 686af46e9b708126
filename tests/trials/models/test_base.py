"""Bases load and train on other architectures than Llama; unusable ones are refused in one line."""

import json
import subprocess
import sys
from pathlib import Path

import bitsandbytes as bnb
import pytest
import torch
from safetensors.torch import load_file
from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer

from orchestrator.cluster.prefetch import _from_hub
from orchestrator.config.model import SweepConfig
from orchestrator.planning.plan import plan
from tests.factories.bases import ARCHITECTURES, MICRO, miniature
from trials import preflight
from trials.errors import InputError
from trials.hub.hub import Hub
from trials.ledger.record import Ledger
from trials.models import base, dequantize
from trials.run import worker as trial
from trials.spec import Base, Data, TrialSpec

IDS = torch.tensor([[5, 6, 7, 200, 31, 8]])


def hub_error(kind: str, status: int, url: str) -> Exception:
    """The exception that huggingface_hub raises for such a response."""
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
def test_hub_refusals_are_one_line_with_a_remedy(monkeypatch, kind, status, expected, gguf):
    """Responses are faked inside huggingface_hub, so that transformers wraps its real exceptions."""
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


def test_errors_print_no_access_token():
    error = Hub().missing("base.model", "some/model", OSError("refused for hf_AbCdEfGh0123456789 at the hub"))
    assert "AbCdEfGh" not in str(error)
    assert "hf_***" in str(error)


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
def test_model_that_cannot_be_tuned_is_refused(tmp_path, config, expected):
    with pytest.raises(InputError) as caught:
        base.check(Base(model=save_config(tmp_path, **config), dtype="float32"), Hub())
    assert expected in str(caught.value)
    assert "\n" not in str(caught.value)


def test_folder_without_a_model_is_refused(tmp_path):
    with pytest.raises(InputError, match=rf"base.model '{tmp_path}' in {tmp_path} cannot be read"):
        base.check(Base(model=str(tmp_path), dtype="float32"), Hub())


def test_chat_rows_need_a_chat_template():
    data = Data(samples=4, mix={"micro/alpaca": 1.0}, template="chat")
    made = AutoTokenizer.from_pretrained(MICRO)
    made.chat_template = None
    plain = Base(model="micro", dtype="float32")
    with pytest.raises(InputError, match="no chat template; use template alpaca or plain, or an instruct model"):
        base.check_template(plain, data, made)
    base.check_template(plain, data.model_copy(update={"template": "plain"}), made)
    made.chat_template = "{% for message in messages %}{{ message.content }}{% endfor %}"
    base.check_template(plain, data, made)


# ---------------------------------------------------------------------- other architectures


@pytest.fixture(scope="module", params=["gpt_neox", "qwen2"])
def another_base(request, tmp_path_factory) -> Path:
    """A base of another architecture on disk, with micro's tokenizer."""
    folder = tmp_path_factory.mktemp(request.param)
    model = miniature(request.param, bos_token_id=0, eos_token_id=0, pad_token_id=1, max_position_embeddings=1024)
    for name, weight in model.named_parameters():
        if name.endswith("bias"):  # initialised to 0, which would hide a lost one
            torch.nn.init.normal_(weight, std=0.1)
    model.save_pretrained(folder)
    AutoTokenizer.from_pretrained(MICRO).save_pretrained(folder)
    return folder


@pytest.mark.parametrize("group", ["qkv", "all-linear"])
def test_trial_runs_on_other_architectures(another_base, group, spec, worker, tmp_path):
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
def test_4_bit_layers_are_not_packed_for_bfloat16_cpus(dtype, monkeypatch):
    monkeypatch.setattr(bnb.nn.modules, "has_avx512bf16", lambda: True)
    monkeypatch.setattr(dequantize, "SHARE", 0.0)
    model = base.load(Base(model="micro", dtype=dtype), Hub()).model
    layers = [layer for layer in model.modules() if type(layer) is bnb.nn.Linear4bit]
    assert layers
    assert not any(layer.support_avx512bf16_for_cpu for layer in layers)


def test_quantised_base_keeps_its_biases(another_base):
    loaded = base.load(Base(model=str(another_base), dtype="float32"), Hub())
    wanted = AutoModelForCausalLM.from_pretrained(another_base, dtype=torch.float32).state_dict()
    found = {name: weight for name, weight in loaded.model.state_dict().items() if name.endswith("bias")}
    assert found
    assert all(torch.equal(weight, wanted[name]) for name, weight in found.items())


def test_plan_omits_costs_that_cannot_be_counted(another_base, parts, tmp_path):
    parts["base"]["model"] = str(another_base)
    planned = plan(SweepConfig.model_validate(parts), tmp_path)
    assert planned.trials == 2
    assert not any(name.startswith("/") for name in _from_hub(SweepConfig.model_validate(parts))), "a folder is not fetched"
    if "gpt_neox" in another_base.name:
        assert planned.memory is None
        assert any("nothing can be counted for this base" in note for note in planned.notes)
    else:
        assert planned.memory is not None


@pytest.mark.slow
def test_attribute_that_peft_reads_warns_nobody():
    code = (
        "import warnings; import trials.models.base; warnings.warn('`is_gradient_checkpointing` is deprecated', FutureWarning)"
    )
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stderr == ""
