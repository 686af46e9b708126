"""Merged weights equal the base with its adapter."""

import pytest
import torch
from huggingface_hub import constants
from transformers import AutoModelForCausalLM

from tests.factories.bases import MICRO, beside_tokenizer
from tests.factories.configs import spec_of
from trials import publish_merge
from trials.adapters import peft_adapter
from trials.adapters.low_rank import factors
from trials.hub.hub import Hub
from trials.ledger.record import Ledger, TrialRecord
from trials.models import base


def merged_by_hand(lora, dtype, folder, **of_base):
    """(the base, the folder of the merged model), with random adapter weights."""
    spec = spec_of(lora=lora, base={"model": "micro", "dtype": dtype, "quantization": "none", **of_base})
    ledger, hub = Ledger(folder / "runs"), Hub()
    loaded = base.load(spec.base, hub)
    with peft_adapter.adapted(loaded, spec.lora, seed=0) as model:
        torch.manual_seed(1)
        for name, weight in model.named_parameters():
            if weight.requires_grad and "lora_A" not in name and "magnitude" not in name:
                weight.data += 0.05 * torch.randn_like(weight)
        peft_adapter.save(model, ledger.folder(spec.key) / "adapter")
    (folder / "out").mkdir()
    record = TrialRecord(key=spec.key, state="complete", spec=spec, base_checksum=loaded.checksum)
    publish_merge.merge(record, ledger, hub, folder / "out")
    return base.load(spec.base, hub), folder / "out"


@pytest.mark.parametrize(
    "lora",
    [
        {"rank": 4, "use_rslora": True, "target_modules": "all-linear"},
        {"rank": 4, "use_dora": True},
        {"rank": 4, "init": "pissa"},
        {"rank": 4, "target_modules": ["lm_head", "q_proj"]},
        {"method": "oft", "block_size": 16, "target_modules": ["lm_head", "q_proj"]},
        {"method": "shira", "rank": 4, "target_modules": ["lm_head", "q_proj"]},
        {"method": "full", "target_modules": ["lm_head", "q_proj"]},
    ],
    ids=["rslora", "dora", "pissa", "tied head", "oft", "shira", "full"],
)
def test_every_kind_of_adapter_merges_exactly(lora, tmp_path):
    loaded, place = merged_by_hand(lora, "float32", tmp_path)
    merged = AutoModelForCausalLM.from_pretrained(place, dtype="auto").eval()
    ids = torch.tensor([[5, 6, 7, 8]])
    with torch.no_grad():
        before = loaded.model(input_ids=ids).logits
        with peft_adapter.borrowed(loaded, place / "adapter") as model:
            wanted = model(input_ids=ids).logits
        found = merged(input_ids=ids).logits
    assert (found - wanted).abs().max() < 1e-4 * (wanted - before).abs().max()


def test_adapter_on_a_gguf_file_merges_into_its_weights(tmp_path, monkeypatch):
    monkeypatch.setattr(constants, "HF_HOME", str(tmp_path / "cache"))
    file = beside_tokenizer(tmp_path / "file", MICRO)
    loaded, place = merged_by_hand({"rank": 4}, "float32", tmp_path, model=str(file), gguf="model.gguf")
    merged, ids = AutoModelForCausalLM.from_pretrained(place, dtype="auto").eval(), torch.tensor([[5, 6, 7, 8]])
    assert not hasattr(merged.config, "quantization_config")
    with torch.no_grad(), peft_adapter.borrowed(loaded, place / "adapter") as model:
        assert torch.allclose(merged(input_ids=ids).logits, model(input_ids=ids).logits, atol=1e-4)


def test_merged_weights_have_the_specs_dtype_and_are_rounded_once(tmp_path):
    loaded, place = merged_by_hand({"rank": 4, "target_modules": ["q_proj"]}, "bfloat16", tmp_path)
    merged = AutoModelForCausalLM.from_pretrained(place, dtype="auto")
    with peft_adapter.borrowed(loaded, place / "adapter") as model:
        for name, (down, up) in factors(model).items():
            layer = name.removeprefix("base_model.model.")
            weight = loaded.model.get_submodule(layer).get_base_layer().weight
            assert weight.dtype == torch.bfloat16
            assert torch.equal(merged.get_submodule(layer).weight, (weight.float() + up @ down).bfloat16())
