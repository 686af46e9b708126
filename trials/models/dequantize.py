"""The 4-bit layers' weights dequantised once and kept, where the device is large enough: the same numbers, less unpacking.

bitsandbytes unpacks a layer's weights at every call, forward and backward, into the type that it computes in. What it
unpacks them into is kept here beside them. On a CPU every result is the same bit by bit.
"""

from typing import Any

import bitsandbytes as bnb
import torch
from bitsandbytes.functional import dequantize_4bit

from trials.models import devices

SHARE = 0.1
"""The unpacked weights take at most so much of all memory; what is free depends on the neighbours, and numbers must not."""


class Unpacked(bnb.nn.Linear4bit):
    """A 4-bit layer that has its unpacked weights at hand; PEFT adapts it as it does any other."""

    unpacked: torch.Tensor
    """(out, in), of the type that the layer computes in."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        bias = None if self.bias is None else self.bias.to(self.unpacked.dtype)
        return torch.nn.functional.linear(x.to(self.unpacked.dtype), self.unpacked, bias).to(x.dtype)


def unpack(model: Any) -> bool:
    """Has every 4-bit layer of the model keep its unpacked weights, if all of them fit; whether it does."""
    layers: list[Any] = [module for module in model.modules() if type(module) is bnb.nn.Linear4bit]
    if not layers or any(layer.compute_dtype is None for layer in layers):
        return False
    wanted = sum(layer.in_features * layer.out_features * layer.compute_dtype.itemsize for layer in layers)
    if wanted > SHARE * devices.memory(layers[0].weight.device):
        return False
    for layer in layers:
        unpacked = dequantize_4bit(layer.weight.data, layer.weight.quant_state).to(layer.compute_dtype)
        layer.__class__ = Unpacked
        layer.register_buffer("unpacked", unpacked, persistent=False)
    return True
