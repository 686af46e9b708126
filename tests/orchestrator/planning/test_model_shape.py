"""Sizes from config.json are those of the model."""

import pytest

from orchestrator.planning import model_shape
from trials.errors import InputError
from trials.hub.hub import Hub
from trials.spec import Base, Lora


def test_dora_adapter_is_counted_with_its_magnitudes(spec):
    from trials.adapters import peft_adapter
    from trials.models import base

    spec = spec.model_copy(update={"lora": Lora(rank=2, use_dora=True)})
    with peft_adapter.adapted(base.load(spec.base, Hub()), spec.lora, seed=0) as model:
        trained = sum(p.numel() for p in model.parameters() if p.requires_grad)
    assert trained == model_shape.read_shape(spec.base, Hub()).adapter(spec)


@pytest.mark.parametrize("kind", model_shape._LLAMA_LIKE)
def test_weights_equal_those_of_transformers(kind):
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM

    sizes = {"hidden_size": 64, "intermediate_size": 160, "num_hidden_layers": 3, "num_attention_heads": 4, "vocab_size": 512}
    made = AutoConfig.for_model(kind, **sizes, num_key_value_heads=2, head_dim=16, pad_token_id=0)
    with torch.device("meta"):
        model = AutoModelForCausalLM.from_config(made)
    shape = model_shape.shape_of(kind, made.to_dict())
    linear = sum(
        module.weight.numel()
        for name, module in model.named_modules()
        if isinstance(module, torch.nn.Linear) and "lm_head" not in name
    )
    assert linear == shape.linear
    norms_and_biases = 20 * made.hidden_size * made.num_hidden_layers
    assert abs(sum(p.numel() for p in model.parameters()) - shape.linear - shape.rest) < norms_and_biases


def test_other_architecture_is_refused():
    with pytest.raises(InputError, match="this is gpt_neox"):
        model_shape.shape_of("pythia", {"model_type": "gpt_neox"})


def test_missing_model_is_requested_once(monkeypatch):
    requested = []

    def unreachable(model, *_, **__):
        requested.append(model)
        raise OSError("no network")

    monkeypatch.setattr(model_shape.huggingface_hub, "hf_hub_download", unreachable)
    for _ in range(3):
        with pytest.raises(InputError, match="nor to be had from the hub: no network"):
            model_shape.read_shape(Base(model="nobody/nowhere"), Hub())
    assert requested == ["nobody/nowhere"]
