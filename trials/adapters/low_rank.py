"""What LoRA layers add to the base's weights, as low-rank factors: the layer's update is B @ A."""

from typing import Any

import torch
from peft.tuners.lora import LoraLayer
from peft.tuners.lora.layer import LoraVariant
from torch.nn import functional


class Converted(LoraVariant):
    """LoRA whose update is scaling * (B A - up down), where A and B began at `down` and `up`, which are never trained.

    As a second adapter of PEFT's, what is taken off would be rounded to the base's type before it meets what it cancels.
    """

    def __init__(self, down: torch.Tensor, up: torch.Tensor):
        self.down, self.up = down, up

    def forward(  # type: ignore[override]  # PEFT's are static, and called on an instance
        self, module: Any, active_adapter: str, x: torch.Tensor, result: torch.Tensor, **_: Any
    ) -> torch.Tensor:
        learnt = module.lora_B[active_adapter](module.lora_A[active_adapter](module.lora_dropout[active_adapter](x)))
        begun = functional.linear(functional.linear(x, self.down), self.up)
        return result + (learnt - begun) * module.scaling[active_adapter]


def factors(model: Any) -> dict[str, tuple[torch.Tensor, torch.Tensor]]:
    """Layer's name -> A of shape (r, inputs) and B of shape (outputs, r), B with the scale in it; gradients flow through both.

    Of an adapter that began at a part of the base, the part that is taken off is in it, and r is twice the rank. Where several
    adapters are active on a layer, what they add together. Of a DoRA layer it is the direction's update alone.
    """
    found = {}
    for name, module in model.named_modules():
        if isinstance(module, LoraLayer):
            adapters = [one for one in module.active_adapters if one in module.lora_A]
            if adapters:
                downs = [_weight(module.lora_A[one]) for one in adapters]
                ups = [_weight(module.lora_B[one]) * module.scaling[one] for one in adapters]
                for one in adapters:
                    if isinstance(variant := module.lora_variant.get(one), Converted):
                        downs.append(variant.down)
                        ups.append(variant.up * -module.scaling[one])
                found[name] = (torch.cat(downs, dim=0), torch.cat(ups, dim=1))
    return found


def _weight(layer: Any) -> torch.Tensor:
    weight: torch.Tensor = layer.weight
    return weight
