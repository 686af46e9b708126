"""What LoRA layers add to the base's weights, as low-rank factors: the layer's update is B @ A."""

from typing import Any

import torch
from peft.tuners.lora import LoraLayer


def factors(model: Any) -> dict[str, tuple[torch.Tensor, torch.Tensor]]:
    """Layer's name -> A of shape (r, inputs) and B of shape (outputs, r), B with the scale in it; gradients flow through both.

    Where several adapters are active on a layer, what they add together. Of a DoRA layer it is the direction's update alone.
    """
    found = {}
    for name, module in model.named_modules():
        if isinstance(module, LoraLayer):
            adapters = [one for one in module.active_adapters if one in module.lora_A]
            if adapters:
                downs = [_weight(module.lora_A[one]) for one in adapters]
                ups = [_weight(module.lora_B[one]) * module.scaling[one] for one in adapters]
                found[name] = (torch.cat(downs, dim=0), torch.cat(ups, dim=1))
    return found


def _weight(layer: Any) -> torch.Tensor:
    weight: torch.Tensor = layer.weight
    return weight
