"""The updates of LoRA layers as low-rank factors: a layer adds B @ A to the base's weight."""

from typing import Any

import torch
from peft.tuners.lora import LoraLayer
from peft.tuners.lora.layer import LoraVariant
from torch.nn import functional


class Converted(LoraVariant):
    """LoRA whose update is scaling * (B A - up down), where `down` and `up` are the frozen initial values of A and B."""

    def __init__(self, down: torch.Tensor, up: torch.Tensor):
        self.down, self.up = down, up

    def forward(  # type: ignore[override]  # PEFT's are static, and called on an instance
        self, module: Any, active_adapter: str, x: torch.Tensor, result: torch.Tensor, **_: Any
    ) -> torch.Tensor:
        trained = module.lora_B[active_adapter](module.lora_A[active_adapter](module.lora_dropout[active_adapter](x)))
        initial = functional.linear(functional.linear(x, self.down), self.up)
        # subtracted here: with a second PEFT adapter, each would be rounded to the base's type before they cancel
        return result + (trained - initial) * module.scaling[active_adapter]


class Square(LoraVariant):
    """LoRA whose A is the identity and whose scale is 1: A is left out, and B's product is computed in the base's type.

    B itself stays in float32, as in any training in mixed precision.
    """

    def forward(  # type: ignore[override]  # PEFT's are static, and called on an instance
        self, module: Any, active_adapter: str, x: torch.Tensor, result: torch.Tensor, **_: Any
    ) -> torch.Tensor:
        return result + functional.linear(x.to(result.dtype), module.lora_B[active_adapter].weight.to(result.dtype))


def sum_weights(layer: Any, adapter: str) -> None:
    """Lets a linear layer multiply by the sum of its weight and a Square update: one product instead of two.

    In 16 bits the sum is rounded to the base's type, as a merged model's weights are.
    """
    separately = layer.forward

    def summed(x: torch.Tensor, *args: Any, **named: Any) -> torch.Tensor:
        if args or named or layer.disable_adapters or layer.merged or layer.active_adapters != [adapter]:
            found: torch.Tensor = separately(x, *args, **named)
            return found
        base = layer.get_base_layer()
        return functional.linear(x, (base.weight + layer.lora_B[adapter].weight).to(base.weight.dtype), base.bias)

    layer.forward = summed


def factors(model: Any) -> dict[str, tuple[torch.Tensor, torch.Tensor]]:
    """A (r, inputs) and B (outputs, r) by layer's name, with the scale in B; gradients flow through both.

    Several active adapters of a layer are concatenated. A converted adapter includes its subtracted part, so r is twice its
    rank. For DoRA, the factors are those of the direction's update only.
    """
    found = {}
    for name, module in lora_layers(model).items():
        downs, ups = [], []
        for adapter in (one for one in module.active_adapters if one in module.lora_A):
            scale = module.scaling[adapter]
            downs.append(module.lora_A[adapter].weight)
            ups.append(module.lora_B[adapter].weight * scale)
            if isinstance(variant := module.lora_variant.get(adapter), Converted):
                downs.append(variant.down)
                ups.append(variant.up * -scale)
        if downs:
            found[name] = (torch.cat(downs, dim=0), torch.cat(ups, dim=1))
    return found


def lora_layers(model: Any) -> dict[str, Any]:
    return {name: module for name, module in model.named_modules() if isinstance(module, LoraLayer)}


def unscaled(config: Any, rank: int) -> None:
    """Sets the rank in PEFT's settings, and a scale of 1, because B includes the scale."""
    config.r = config.lora_alpha = rank
    config.rank_pattern, config.alpha_pattern = {}, {}
    config.use_rslora = False
