"""What an adapter's weights begin at: PEFT's own ways, and those that begin at a part of the base's weights.

pissa (arXiv 2404.02948), olora (2406.01775) and corda (2406.05223, in its mode that keeps knowledge) take that part out of the
base in PEFT, so that what is left when the adapter is switched off is not the base. Here the base stays: a frozen second
adapter, `INITIAL`, takes the part off again, so the function before the first step is the base's up to rounding, and with both
switched off it is the base's to the bit. On a 4-bit base this differs from QPiSSA in that the rest is not quantised anew.
"""

from collections.abc import Callable, Sequence
from typing import Any

import torch
from peft import EvaConfig, LoraConfig
from peft.tuners.lora import LoraLayer, initialize_lora_eva_weights
from peft.utils.integrations import dequantize_module_weight
from transformers import AutoModelForCausalLM

from trials.batch import collate
from trials.errors import InputError
from trials.mix import Example
from trials.spec import Lora

INITIAL = "initial"
CONVERTED = ("pissa", "olora", "corda")
_ROWS = 64  # training rows that eva and corda look at
_BATCH = 8

Pair = tuple[torch.Tensor, torch.Tensor]


def fields(lora: Lora) -> dict[str, Any]:
    """LoraConfig's arguments for the way of PEFT that comes nearest; `fill` does the rest."""
    if lora.init == "eva":
        return {"init_lora_weights": "eva", "eva_config": EvaConfig(rho=1.0)}  # every layer keeps its rank
    return {"init_lora_weights": lora.init if lora.init == "gaussian" else True}


def fill(model: Any, config: LoraConfig, lora: Lora, rows: Sequence[Example], pad_id: int) -> None:
    """Puts the weights of `lora.init` into the adapter "default" of a PEFT model, where PEFT has not done so already.

    `rows` are training rows, for eva and corda; all else depends on the base alone, and default, gaussian and orthogonal on
    torch's random numbers. Raises InputError where the way cannot be gone.
    """
    if lora.init in CONVERTED and lora.use_dora:
        raise InputError(f"lora.init {lora.init} with lora.use_dora: what a DoRA layer begins at cannot be taken off again")
    if lora.init in ("eva", "corda") and not rows:
        raise InputError(f"lora.init {lora.init} looks at training rows, and there are none")
    if lora.init == "eva":
        batches = [{**batch} for batch in _batches(rows, pad_id, model.device)]
        initialize_lora_eva_weights(model, batches, show_progress_bar=False)
    elif lora.init == "loftq":
        _loftq(model)
    elif lora.init == "orthogonal":
        _orthogonal(model, lora.rank)
    elif lora.init in CONVERTED:
        ways: dict[str, Callable[[], Callable[[str, torch.Tensor, float, int], Pair]]] = {
            "pissa": lambda: lambda name, weight, scale, rank: pissa(weight / scale, rank),
            "olora": lambda: lambda name, weight, scale, rank: olora(weight, rank),
            "corda": lambda: _corda(model, rows, pad_id),
        }
        _begin_at_a_part(model, config, ways[lora.init]())


def _orthogonal(model: Any, rank: int) -> None:
    """A and B span complementary halves of the rank's space, so that B A is 0 though neither is. As PEFT's, which gives the
    adapter of a 4-bit layer the type of its packed weights, and fails."""
    if rank % 2:
        raise InputError(f"lora.init orthogonal needs an even lora.rank, but got {rank}")
    with torch.no_grad():
        for _, layer in _layers(model):
            q, _ = torch.linalg.qr(torch.randn(rank, rank))
            down = torch.randn(layer.in_features, rank // 2) @ q[0::2] / 10.0
            up = torch.randn(layer.out_features, rank // 2) @ q[1::2] / 10.0
            layer.lora_A["default"].weight.copy_(down.T)
            layer.lora_B["default"].weight.copy_(up)


def _loftq(model: Any) -> None:
    """The base stays as it was quantised, the adapter begins at the best approximation of what quantising lost (2310.08659).

    PEFT's own function does the same on a GPU alone. The unquantised weights pass through the host's memory.
    """
    config = model.config
    if getattr(config, "quantization_config", None) is None:
        raise InputError("lora.init loftq makes up for quantisation, and base.quantization is none")
    whole = AutoModelForCausalLM.from_pretrained(
        config._name_or_path, revision=getattr(config, "_commit_hash", None) or "main", dtype=torch.float32
    )
    with torch.no_grad():
        for name, layer in _layers(model):
            original: Any = whole.get_submodule(name.removeprefix("base_model.model.")).weight
            lost = original.to(model.device) - dequantize_module_weight(layer.get_base_layer()).to(torch.float32)
            down, up = pissa(lost / layer.scaling["default"], layer.r["default"])
            layer.lora_A["default"].weight.copy_(down)
            layer.lora_B["default"].weight.copy_(up)


def pissa(weight: torch.Tensor, rank: int) -> Pair:
    """(A, B) of shapes (rank, inputs) and (outputs, rank): the principal part of a weight of shape (outputs, inputs)."""
    u, s, vh = torch.linalg.svd(weight, full_matrices=False)
    root = s[:rank].sqrt()
    return root[:, None] * vh[:rank], u[:, :rank] * root


def olora(weight: torch.Tensor, rank: int) -> Pair:
    """As `pissa`, of the QR decomposition."""
    q, r = torch.linalg.qr(weight)
    return r[:rank].contiguous(), q[:, :rank].contiguous()


def corda(weight: torch.Tensor, covariance: torch.Tensor, rank: int) -> Pair:
    """As `pissa`: the part of the weight that matters least for inputs of this covariance, of shape (inputs, inputs)."""
    damped = covariance + 0.01 * covariance.diagonal().mean() * torch.eye(len(covariance), device=covariance.device)
    u, s, vh = torch.linalg.svd(weight @ damped, full_matrices=False)
    root = s[-rank:].sqrt()
    return torch.linalg.solve(damped, (root[:, None] * vh[-rank:]).T).T.contiguous(), u[:, -rank:] * root


def _corda(model: Any, rows: Sequence[Example], pad_id: int) -> Callable[[str, torch.Tensor, float, int], Pair]:
    covariances = _covariances(model, rows, pad_id)
    return lambda name, weight, scale, rank: corda(weight / scale, covariances[name], rank)


def _begin_at_a_part(model: Any, config: LoraConfig, part: Callable[[str, torch.Tensor, float, int], Pair]) -> None:
    model.add_adapter(INITIAL, config)
    with torch.no_grad():
        for name, layer in _layers(model):
            weight = dequantize_module_weight(layer.get_base_layer()).to(torch.float32)
            down, up = part(name, weight, layer.scaling["default"], layer.r["default"])
            for adapter, sign in (("default", 1.0), (INITIAL, -1.0)):
                layer.lora_A[adapter].weight.copy_(down)
                layer.lora_B[adapter].weight.copy_(sign * up)
    model.base_model.set_adapter(["default", INITIAL])
    for _, layer in _layers(model):
        for half in (layer.lora_A[INITIAL], layer.lora_B[INITIAL]):
            frozen = half.weight.detach()
            del half.weight  # PEFT makes the parameters of every active adapter trainable whenever it is switched on again
            half.register_buffer("weight", frozen)


def _layers(model: Any) -> list[tuple[str, Any]]:
    return [(name, module) for name, module in model.named_modules() if isinstance(module, LoraLayer)]


def _batches(rows: Sequence[Example], pad_id: int, device: torch.device) -> list[dict[str, torch.Tensor]]:
    plain = [{"input_ids": row.input_ids, "labels": row.labels} for row in rows[:_ROWS]]
    batches = [collate(plain[first : first + _BATCH], pad_id) for first in range(0, len(plain), _BATCH)]
    return [{name: tensor.to(device) for name, tensor in batch.items()} for batch in batches]


def _covariances(model: Any, rows: Sequence[Example], pad_id: int) -> dict[str, torch.Tensor]:
    """Of each adapted layer's inputs at the tokens of these rows, uncentred; float32, (inputs, inputs)."""
    found: dict[str, torch.Tensor] = {}
    mask = torch.empty(0)
    hooks = []

    def hook(name: str) -> Callable[[Any, tuple[torch.Tensor, ...]], None]:
        def add(_: Any, inputs: tuple[torch.Tensor, ...]) -> None:
            tokens = inputs[0][mask.bool()].to(torch.float32)
            found[name] = found.get(name, 0) + tokens.T @ tokens

        return add

    for name, layer in _layers(model):
        hooks.append(layer.get_base_layer().register_forward_pre_hook(hook(name)))
    try:
        with torch.no_grad(), model.disable_adapter():
            for batch in _batches(rows, pad_id, model.device):
                mask = batch["attention_mask"]
                model(input_ids=batch["input_ids"], attention_mask=mask)
    finally:
        for one in hooks:
            one.remove()
    tokens = sum(len(row.input_ids) for row in rows[:_ROWS])
    return {name: total / tokens for name, total in found.items()}
