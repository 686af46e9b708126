"""Adapters leave the base unchanged and read back as saved."""

import json

import pytest
import torch
from peft import PeftModel

from tests.factories.adapters import CONVERTED, SETTINGS, changed, close, logits, trained
from trials.adapters import derived, peft_adapter
from trials.adapters.low_rank import factors
from trials.errors import InputError
from trials.hub.hub import Hub
from trials.ledger import storage
from trials.models import base
from trials.spec import Lora
from trials.training import trainer

EVERY_STEP = trainer.Pace(seconds=0.0, share=float("inf"))


@pytest.mark.parametrize(
    ("layers", "expected"),
    [("all", {0, 1, 2, 3}), ("first-third", {0}), ("middle-third", {1, 2}), ("last-third", {3}), ((2, 0), {0, 2})],
)
def test_only_selected_blocks_get_an_adapter(loaded, layers, expected):
    with peft_adapter.adapted(loaded, Lora(rank=2, layers=layers), 0) as model:
        assert {int(name.split(".layers.")[1].split(".")[0]) for name in factors(model)} == expected


@pytest.mark.parametrize("architecture", ["gpt_neox", "gpt2"])
def test_blocks_of_other_architectures_are_found_and_read_back(architecture, tmp_path):
    from transformers import AutoConfig, AutoModelForCausalLM

    sizes = {
        "gpt_neox": {"hidden_size": 32, "num_hidden_layers": 3, "num_attention_heads": 2, "intermediate_size": 64},
        "gpt2": {"n_embd": 32, "n_layer": 3, "n_head": 2},
    }
    torch.manual_seed(0)
    config = AutoConfig.for_model(
        architecture, vocab_size=64, max_position_embeddings=32, pad_token_id=0, **sizes[architecture]
    )
    tokenizer = type("Tokenizer", (), {"pad_token_id": 0})()
    loaded = base.LoadedBase(AutoModelForCausalLM.from_config(config).eval().requires_grad_(False), tokenizer, None)
    before = logits(loaded.model)
    lora = Lora(rank=2, layers="last-third", target_modules="all-linear", init="pissa")
    with peft_adapter.adapted(loaded, lora, 0) as model:
        assert torch.equal(logits(model), before)
        assert len(factors(model)) == 4
        assert all(".2." in name for name in factors(model))
        changed(model)
        live = logits(model)
        peft_adapter.save(model, tmp_path / "adapter")
        if architecture == "gpt_neox":
            fused = "k is a part of query_key_value in this base, and one layer cannot be taken apart"
        else:
            fused = "k is a part of c_attn in this base"
        with pytest.raises(InputError, match=fused):
            derived.switch_off(model, "k")
        derived.switch_off(model, "last-third")
        assert torch.equal(logits(model), before)
    assert torch.equal(logits(loaded.model), before)
    with peft_adapter.borrowed(loaded, tmp_path / "adapter") as model:
        assert close(logits(model), live)


# ---------------------------------------------------------------------- saving and reading


@pytest.mark.parametrize("name", SETTINGS)
def test_trained_adapter_reads_back_unchanged_here_and_in_peft(loaded, rows, spec, tmp_path, name):
    before = logits(loaded.model)
    with peft_adapter.adapted(loaded, Lora(rank=4, alpha=6, **SETTINGS[name]), 0, rows) as model:
        trained(model, loaded, rows, spec)
        live, update = logits(model), factors(model)
        peft_adapter.save(model, tmp_path / "adapter")
    assert not close(live, before, 1e-2), "it has learnt something"
    assert torch.equal(logits(loaded.model), before)
    same = (
        (lambda found: close(found, live))
        if SETTINGS[name].get("init") in CONVERTED
        else lambda found: torch.equal(found, live)
    )
    with peft_adapter.borrowed(loaded, tmp_path / "adapter") as model:
        assert same(logits(model))
        assert not any(weight.requires_grad for weight in model.parameters())
        for layer, (down, up) in factors(model).items():
            assert close(up @ down, update[layer][1] @ update[layer][0])
        derived.strengthen(model, 0.0)
        assert torch.equal(logits(model), before)
    assert torch.equal(logits(loaded.model), before)
    peft = PeftModel.from_pretrained(base.load(spec.base, Hub()).model, str(tmp_path / "adapter"))
    assert same(logits(peft.eval()))


def test_remote_adapter_is_borrowed_like_a_local_one(loaded, place, tmp_path):
    with peft_adapter.adapted(loaded, Lora(rank=2), 0) as model:
        changed(model)
        live = logits(model)
        peft_adapter.save(model, tmp_path / "adapter")
    storage.upload(tmp_path / "adapter", place / "key" / "adapter")
    with peft_adapter.borrowed(loaded, place / "key" / "adapter") as model:
        assert torch.equal(logits(model), live)


def test_adapter_of_another_base_is_refused(loaded, tmp_path):
    before = logits(loaded.model)

    def refused(expected: str) -> None:
        with pytest.raises(InputError, match=expected), peft_adapter.borrowed(loaded, tmp_path):
            pass
        assert torch.equal(logits(loaded.model), before)

    refused("no adapter that can be read")
    with peft_adapter.adapted(loaded, Lora(rank=2), 0) as model:
        peft_adapter.save(model, tmp_path)
    (tmp_path / "adapter_model.safetensors").rename(tmp_path / "adapter_model.bin")  # PEFT would unpickle it
    refused("no adapter that can be read")
    (tmp_path / "adapter_model.bin").rename(tmp_path / "adapter_model.safetensors")
    told = json.loads((tmp_path / "adapter_config.json").read_text())
    (tmp_path / "adapter_config.json").write_text(json.dumps(told | {"r": 3}))
    refused("its rank is 3, its weights have another")
    (tmp_path / "adapter_config.json").write_text(json.dumps(told | {"target_modules": ["q_proj"]}))
    refused("an adapter of another base")
    (tmp_path / "adapter_model.safetensors").write_bytes(b"not one")
    refused("no adapter that can be read")


@pytest.mark.parametrize("init", ["pissa", "eva"])
def test_resumed_training_equals_an_undisturbed_one_to_the_bit(loaded, rows, spec, tmp_path, init):
    lora = Lora(rank=4, init=init, dropout=0.1)

    def states() -> list[trainer.State]:
        kept: list[trainer.State] = []

        def keep(state: trainer.State) -> None:
            values, tensors = state.packed()
            kept.append(trainer.State.unpacked(values, {name: tensor.clone() for name, tensor in tensors.items()}))

        with peft_adapter.adapted(loaded, lora, 0, rows) as model:
            trained(model, loaded, rows, spec, save=keep, pace=EVERY_STEP)
            peft_adapter.save(model, tmp_path / "whole")
        return kept

    middle = next(state for state in states() if state.step == 2)
    with peft_adapter.adapted(loaded, lora, 0, rows) as model:
        trained(model, loaded, rows, spec, start=middle)
        peft_adapter.save(model, tmp_path / "resumed")
    for file in ("adapter_model.safetensors", "adapter_config.json"):
        assert (tmp_path / "whole" / file).read_bytes() == (tmp_path / "resumed" / file).read_bytes()
