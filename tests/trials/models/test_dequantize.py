"""Dequantised 4-bit layers compute what the 4-bit layers compute."""

import torch

from trials.hub.hub import Hub
from trials.models import base, dequantize
from trials.spec import Base

IDS = torch.tensor([[5, 6, 7, 200, 31, 8]])


@torch.no_grad()
def test_kept_weights_give_the_same_logits_to_the_bit(monkeypatch):
    spec = Base(model="micro", dtype="float32")
    kept = base.load(spec, Hub()).model
    monkeypatch.setattr(dequantize, "SHARE", 0.0)
    packed = base.load(spec, Hub()).model
    assert any(isinstance(module, dequantize.Unpacked) for module in kept.modules())
    assert not any(isinstance(module, dequantize.Unpacked) for module in packed.modules())
    assert torch.equal(kept(input_ids=IDS).logits, packed(input_ids=IDS).logits)


def test_model_without_4_bit_layers_is_left_alone():
    assert not dequantize.unpack(torch.nn.Sequential(torch.nn.Linear(2, 2)))
