"""Dequantises 4-bit layers once and keeps the weights, if the device is large enough.

bitsandbytes dequantises a layer's weights into the compute type at every call, forward and backward. The kept weights are the
same numbers; on a CPU every result is equal bit by bit.
"""

from typing import Any

import bitsandbytes as bnb
import torch
from bitsandbytes.functional import dequantize_4bit

from trials.models import devices

SHARE = 0.1
"""Limit of the kept weights as a share of total memory. Free memory depends on other processes, and results must not."""


class Unpacked(bnb.nn.Linear4bit):
    """A 4-bit layer with its dequantised weights; PEFT adapts it like any Linear4bit."""

    unpacked: torch.Tensor
    """(out, in), in the layer's compute type."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        bias = None if self.bias is None else self.bias.to(self.unpacked.dtype)
        return torch.nn.functional.linear(x.to(self.unpacked.dtype), self.unpacked, bias).to(x.dtype)


def unpack(model: Any) -> bool:
    """Makes every 4-bit layer keep its dequantised weights, if all of them fit; returns whether they do."""
    # exact type: a subclass may have a forward of its own
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
