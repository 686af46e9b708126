"""Changes of a trained adapter that need no training: scaled, switched off in a part of the network, or of lower rank."""

from typing import Any

import torch
from peft import PeftModel

from trials.adapters import methods, target_modules
from trials.adapters.init import ADAPTER
from trials.adapters.low_rank import factors, lora_layers, unscaled
from trials.errors import InputError


@torch.no_grad()
def strengthen(model: PeftModel, strength: float, shallow: float | None = None) -> None:
    """Scales the adapter's update of the base's weights: 0 is the base to the bit, 1 the adapter unchanged.

    With `shallow`, the strength of block l of the base's L (from 0) is strength x (shallow + (1 - shallow) l / (L - 1)), LiNeS
    (arXiv 2410.17146, eq. 2). Layers outside the blocks count as the last one.
    """
    if strength == 1 and shallow is None:
        return
    method, layers = methods.of(model.peft_config[ADAPTER]), methods.adapted_layers(model)
    count = target_modules.depth(layers, [name for name, _ in model.named_modules()])
    for name, layer in layers.items():
        block = target_modules.BLOCK.match(name)
        place = int(block[2]) / max(count - 1, 1) if block else 1.0
        method.scale(layer, strength * (1.0 if shallow is None else shallow + (1 - shallow) * place))
    if strength == 0:  # for LoRA a zero update would do, but DoRA's division would round
        model.base_model.disable_adapter_layers()  # type: ignore[operator]  # nn.Module's attributes are untyped


@torch.no_grad()
def switch_off(model: PeftModel, off: str) -> None:
    """Removes the adapter's update from one part of the network (see Derive.off), whose layers become the base's to the bit.

    Raises InputError if the adapter has nothing there, or if q, k and v are one layer.
    """
    method, layers = methods.of(model.peft_config[ADAPTER]), methods.adapted_layers(model)
    count = target_modules.depth(layers, [name for name, _ in model.named_modules()])
    for name in target_modules.part(off, layers, count):
        method.clear(layers[name])


@torch.no_grad()
def truncate(model: PeftModel, rank: int) -> None:
    """Replaces the update of every layer by its best approximation of this rank (Eckart-Young), in float64.

    At the update's full rank (lora.rank, or twice that for a converted adapter) the result equals the update up to float32
    rounding, within 1e-5 of its largest weight. Raises InputError for DoRA, whose update is no product of two factors.
    """
    if any(ADAPTER in module.lora_magnitude_vector for module in lora_layers(model).values()):
        raise InputError("derive.rank: a DoRA adapter has no singular values to cut off; derive a strength instead")
    layers = lora_layers(model)
    for name, (down, up) in factors(model).items():
        _replace(layers[name], *_best(down, up, rank))
    unscaled(model.peft_config[ADAPTER], rank)


def _best(down: torch.Tensor, up: torch.Tensor, rank: int) -> tuple[torch.Tensor, torch.Tensor]:
    """A (rank, inputs) and B (outputs, rank) of the best approximation."""
    # by QR of the factors, so that no matrix of outputs x inputs is made
    right, inner_right = torch.linalg.qr(down.T.double())
    left, inner_left = torch.linalg.qr(up.double())
    u, s, vh = torch.linalg.svd(inner_left @ inner_right.T)
    count = min(rank, len(s))
    root = s[:count].sqrt()
    pad = rank - count  # components beyond the update's own rank are zero
    best_down = torch.nn.functional.pad((root[:, None] * vh[:count]) @ right.T, (0, 0, 0, pad))
    best_up = torch.nn.functional.pad(left @ (u[:, :count] * root), (0, pad))
    return best_down.to(down.dtype), best_up.to(up.dtype)


def _replace(module: Any, down: torch.Tensor, up: torch.Tensor) -> None:
    for holder, weight in ((module.lora_A[ADAPTER], down), (module.lora_B[ADAPTER], up)):
        holder.weight = torch.nn.Parameter(weight, requires_grad=holder.weight.requires_grad)
        holder.out_features, holder.in_features = weight.shape
    module.r[ADAPTER] = module.lora_alpha[ADAPTER] = len(down)
    module.scaling[ADAPTER], module.use_rslora[ADAPTER] = 1.0, False
    module.lora_variant.pop(ADAPTER, None)
