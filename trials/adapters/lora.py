"""The base lent to one adapter after the other; adapters saved, read again, and made into others without a training.

A saved adapter is a plain LoRA (or DoRA) of PEFT on the base as it is, however it began: PeftModel.from_pretrained reads it.
"""

import copy
import hashlib
import json
import re
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import safetensors.torch
import torch
from peft import LoraConfig, PeftModel, get_peft_model, get_peft_model_state_dict, set_peft_model_state_dict
from peft.tuners.lora import LoraLayer
from transformers.pytorch_utils import Conv1D

from trials.adapters import init, target_modules
from trials.adapters.init import ADAPTER
from trials.adapters.low_rank import Converted, factors
from trials.errors import InputError
from trials.ledger import storage
from trials.mix import Example
from trials.models import layout, meta_model
from trials.models.base import LoadedBase
from trials.models.dequantize import Unpacked
from trials.spec import Lora

_LAYER = re.compile(r"[A-Za-z0-9_.-]+")
_READ = (
    "r",
    "lora_alpha",
    "target_modules",
    "layers_to_transform",
    "layers_pattern",
    "fan_in_fan_out",
    "use_rslora",
    "use_dora",
)
"""What of a saved adapter's settings counts when it is read: all that `adapted` sets, and nothing that loads code."""


@contextmanager
def adapted(loaded: LoadedBase, lora: Lora, seed: int, rows: Sequence[Example] = ()) -> Iterator[PeftModel]:
    """The base with a fresh adapter on it; afterwards the base is as it was, whatever happened meanwhile.

    Some of lora.init look at `rows`. Raises InputError where the base has no such layers or blocks, or cannot begin so.
    """
    torch.manual_seed(seed)
    with _lent(loaded, _config(loaded.model, lora)) as model:
        init.begin(model, loaded.tokenizer.pad_token_id, lora, rows)
        yield model


@contextmanager
def borrowed(loaded: LoadedBase, folder: Path) -> Iterator[PeftModel]:
    """The base with a saved adapter on it, for evaluation; afterwards the base is as it was.

    `folder` may lie in a store. Nothing in it is unpickled or imported. Raises InputError where it holds none
    of this base.
    """
    with tempfile.TemporaryDirectory(prefix="slimsweep-adapter-") as temporary:
        try:
            if not storage.is_local(folder):
                storage.download(folder, Path(temporary))
            local = folder if storage.is_local(folder) else Path(temporary)
            told = json.loads((local / "adapter_config.json").read_text(encoding="utf-8"))
            _check_settings(told)
            config = LoraConfig(task_type="CAUSAL_LM", inference_mode=True, **{name: told[name] for name in _READ})
            weights = safetensors.torch.load_file(local / "adapter_model.safetensors")
            if told["r"] not in {weight.shape[0] for name, weight in weights.items() if name.endswith("lora_A.weight")}:
                raise ValueError(f"its rank is {told['r']}, its weights have another")  # PEFT would allocate what it says
        except (OSError, ValueError, KeyError, TypeError, RecursionError, safetensors.SafetensorError) as error:
            raise InputError(f"{folder}: no adapter that can be read: {error}") from error
    with _lent(loaded, config) as model:
        wanted = {name: weight.shape for name, weight in _state(model).items()}
        if wanted != {name: weight.shape for name, weight in weights.items()}:
            raise InputError(f"{folder}: an adapter of another base")
        set_peft_model_state_dict(model, weights)
        model.requires_grad_(False)
        yield model


def _check_settings(told: dict[str, Any]) -> None:
    """Raises ValueError for names of layers that PEFT would take for regular expressions: some never end."""
    for field in ("target_modules", "layers_pattern"):
        named = told[field] or []
        if not isinstance(named, list) or not all(isinstance(name, str) and _LAYER.fullmatch(name) for name in named):
            raise ValueError(f"{field} is no list of layers' names")


@contextmanager
def merged(model: PeftModel) -> Iterator[Any]:
    """The model for evaluation with the adapter's sums in its weights where all are of float32; the same model else.

    In 16 bits a merged weight is rounded once more, and the numbers would be others than the adapter's.
    """
    base: Any = model.get_base_model()
    layers = {name: module for name, module in base.named_modules() if isinstance(module, LoraLayer)}
    if not all(_mergeable(layer) for layer in layers.values()):
        yield model
        return
    try:
        for name, layer in layers.items():
            base.set_submodule(name, _sum(layer))
        yield base
    finally:
        for name, layer in layers.items():
            base.set_submodule(name, layer)


def _mergeable(layer: Any) -> bool:
    base = layer.get_base_layer()
    weight = base.unpacked if isinstance(base, Unpacked) else base.weight
    linear = isinstance(base, Unpacked) or type(base) is torch.nn.Linear
    return linear and weight.dtype == torch.float32 and not layer.lora_variant and not layer.disable_adapters


@torch.no_grad()
def _sum(layer: Any) -> torch.nn.Linear:
    base = layer.get_base_layer()
    weight = base.unpacked if isinstance(base, Unpacked) else base.weight
    (name,) = layer.active_adapters
    with torch.device("meta"):
        made = torch.nn.Linear(base.in_features, base.out_features, bias=base.bias is not None)
    made.weight = torch.nn.Parameter(weight + layer.get_delta_weight(name), requires_grad=False)
    made.bias = base.bias
    return made.eval()


@contextmanager
def _lent(loaded: LoadedBase, config: LoraConfig) -> Iterator[PeftModel]:
    base = loaded.model
    try:
        yield get_peft_model(base, config).eval()
    finally:  # not PEFT's unload: there is nothing to call it on where the adapter could not be made whole
        for name, module in list(base.named_modules()):
            if isinstance(module, LoraLayer):
                base.set_submodule(name, module.get_base_layer())
        if hasattr(base, "peft_config"):
            del base.peft_config
        base.eval().requires_grad_(False)


def _config(base: Any, lora: Lora) -> LoraConfig:
    found = meta_model.layout(base)
    names = layout.adapted(lora, found)
    match = {name: place for name in names if (place := target_modules.BLOCK.match(name))}
    numbers = sorted({int(place[2]) for place in match.values()})
    return LoraConfig(
        task_type="CAUSAL_LM",
        r=lora.rank,
        lora_alpha=lora.alpha,  # type: ignore[arg-type]  # PEFT divides by it; a float is as good
        lora_dropout=lora.dropout,
        target_modules=target_modules.chosen(lora.target_modules, found.candidates(lora), found.modules),
        layers_to_transform=None if lora.layers == "all" else numbers,
        layers_pattern=None if lora.layers == "all" else sorted({place[1] for place in match.values()}),
        fan_in_fan_out=all(isinstance(base.get_submodule(name), Conv1D) for name in names),
        use_rslora=lora.use_rslora,
        use_dora=lora.use_dora,
        **init.settings(lora),
    )


def _layers(model: Any) -> dict[str, Any]:
    return {name: module for name, module in model.named_modules() if isinstance(module, LoraLayer)}


def _state(model: Any) -> dict[str, torch.Tensor]:
    found: dict[str, torch.Tensor] = get_peft_model_state_dict(model, save_embedding_layers=False)
    return found


# ---------------------------------------------------------------------- saved


def save(model: PeftModel, folder: Path) -> None:
    """Writes the adapter into a local folder.

    One that began at a part of the base is written with twice its rank: [A; A0] and [B, -B0].
    """
    config, weights = copy.deepcopy(model.peft_config[ADAPTER]), _state(model)
    assert isinstance(config, LoraConfig)
    converted = {name for name, module in _layers(model).items() if isinstance(module.lora_variant.get(ADAPTER), Converted)}
    for name, (down, up) in factors(model).items() if converted else ():
        weights |= {f"{name}.lora_A.weight": down, f"{name}.lora_B.weight": up}
        _unscaled(config, len(down))
    config.init_lora_weights, config.eva_config, config.inference_mode = True, None, True  # it begins at what is written
    config.target_modules = sorted(config.target_modules or ())
    folder.mkdir(parents=True, exist_ok=True)
    config.save_pretrained(str(folder))
    tensors = {name: weight.detach().cpu().contiguous() for name, weight in weights.items()}
    safetensors.torch.save_file(tensors, folder / "adapter_model.safetensors", metadata={"format": "pt"})


def checksum(folder: Path) -> str:
    """sha256 of a saved adapter's weights."""
    return hashlib.sha256((folder / "adapter_model.safetensors").read_bytes()).hexdigest()


def _unscaled(config: LoraConfig, rank: int) -> None:
    """Of this rank, and with the scale in B."""
    config.r = config.lora_alpha = rank
    config.use_rslora = False


# ---------------------------------------------------------------------- made into others


@torch.no_grad()
def strengthen(model: PeftModel, strength: float) -> None:
    """Scales what the adapter adds to the base's weights: 0 is the base to the bit, 1 the adapter as it is.

    With DoRA too the weights lie on the straight line between the base's and the tuned ones, which another B and other
    magnitudes give exactly: W + t (c (W + s B A) - W) = g W + t c s B A, where g = 1 - t + t c and c is a row's magnitude over
    its norm.
    """
    if strength == 1:
        return
    for module in _layers(model).values():
        variant, up = module.lora_variant.get(ADAPTER), module.lora_B[ADAPTER].weight.data
        if isinstance(variant, Converted):
            variant.up *= strength
        if ADAPTER not in module.lora_magnitude_vector:
            up *= strength
            continue
        magnitude, down = module.lora_magnitude_vector[ADAPTER].weight.data, module.lora_A[ADAPTER].weight.data
        weight, scale = init.dense(module), module.scaling[ADAPTER]
        ratio = magnitude / torch.linalg.norm(weight + scale * up @ down, dim=1)
        kept = 1 - strength + strength * ratio
        up *= (strength * ratio / kept)[:, None]
        magnitude.copy_(kept * torch.linalg.norm(weight + scale * up @ down, dim=1))
    if strength == 0:  # adding nothing would be enough for LoRA, but not for DoRA's division
        model.base_model.disable_adapter_layers()  # type: ignore[operator]  # nn.Module's attributes are untyped


@torch.no_grad()
def switch_off(model: PeftModel, off: str) -> None:
    """Takes away what the adapter adds in one part of the network (see Derive.off): there the layers are the base's to the bit.

    InputError where the adapter has nothing there, or where q, k and v are one layer.
    """
    layers = _layers(model)
    count = target_modules.depth(layers, [name for name, _ in model.named_modules()])
    for name in target_modules.part(off, layers, count):
        module, variant = layers[name], layers[name].lora_variant.get(ADAPTER)
        module.lora_B[ADAPTER].weight.zero_()
        if isinstance(variant, Converted):
            variant.up.zero_()
        elif variant is not None:  # DoRA's magnitudes: those of the base again
            variant.init(module, adapter_name=ADAPTER)


@torch.no_grad()
def truncate(model: PeftModel, rank: int) -> None:
    """Replaces the update of every layer by its best approximation of this rank (Eckart-Young), in float64.

    At the update's full rank, that is lora.rank, or twice that where the adapter began at a part of the base, it stays as it is
    up to the rounding of float32: within 1e-5 of its largest weight. DoRA's is no product of two factors: InputError.
    """
    if any(ADAPTER in module.lora_magnitude_vector for module in _layers(model).values()):
        raise InputError("derive.rank: a DoRA adapter has no singular values to cut off; derive a strength instead")
    layers = _layers(model)
    for name, (down, up) in factors(model).items():
        _replace(layers[name], *_best(down, up, rank))
    _unscaled(model.peft_config[ADAPTER], rank)  # type: ignore[arg-type]


def _best(down: torch.Tensor, up: torch.Tensor, rank: int) -> tuple[torch.Tensor, torch.Tensor]:
    """A (rank, inputs) and B (outputs, rank) through the factors' own QR: no matrix of outputs x inputs is made."""
    right, inner_right = torch.linalg.qr(down.T.double())
    left, inner_left = torch.linalg.qr(up.double())
    u, s, vh = torch.linalg.svd(inner_left @ inner_right.T)
    count = min(rank, len(s))
    root = s[:count].sqrt()
    pad = rank - count  # where there is no more to find, zeros
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
