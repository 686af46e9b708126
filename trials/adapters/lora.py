"""Puts adapters on a base, saves and loads them, and derives others from them without training.

A saved adapter is a plain LoRA (or DoRA) of PEFT on the unchanged base, whatever its initialisation: PeftModel.from_pretrained
reads it.
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
from transformers.pytorch_utils import Conv1D

from trials.adapters import init, target_modules
from trials.adapters.init import ADAPTER
from trials.adapters.low_rank import Converted, factors, lora_layers
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
"""Settings of a saved adapter that are read: all that `adapted` sets, and none that makes PEFT load code."""


@contextmanager
def adapted(loaded: LoadedBase, lora: Lora, seed: int, rows: Sequence[Example] = ()) -> Iterator[PeftModel]:
    """The base with a fresh adapter; the base is restored on exit, even after an exception.

    Some initialisations read `rows`. Raises InputError if the base lacks the layers or blocks, or does not fit lora.init.
    """
    torch.manual_seed(seed)
    with _lent(loaded, _config(loaded.model, lora)) as model:
        init.begin(model, loaded.tokenizer.pad_token_id, lora, rows)
        yield model


@contextmanager
def borrowed(loaded: LoadedBase, folder: Path) -> Iterator[PeftModel]:
    """The base with a saved adapter, for evaluation; the base is restored on exit.

    `folder` may be remote. Nothing in it is unpickled or imported. Raises InputError if it holds no adapter of this base.
    """
    with tempfile.TemporaryDirectory(prefix="slimsweep-adapter-") as temporary:
        try:
            if not storage.is_local(folder):
                storage.download(folder, Path(temporary))
            local = folder if storage.is_local(folder) else Path(temporary)
            settings = json.loads((local / "adapter_config.json").read_text(encoding="utf-8"))
            _check_names(settings)
            config = LoraConfig(task_type="CAUSAL_LM", inference_mode=True, **{name: settings[name] for name in _READ})
            weights = safetensors.torch.load_file(local / "adapter_model.safetensors")
            # PEFT would allocate whatever rank the settings claim
            if settings["r"] not in {weight.shape[0] for name, weight in weights.items() if name.endswith("lora_A.weight")}:
                raise ValueError(f"its rank is {settings['r']}, its weights have another")
        except (OSError, ValueError, KeyError, TypeError, RecursionError, safetensors.SafetensorError) as error:
            raise InputError(f"{folder}: no adapter that can be read: {error}") from error
    with _lent(loaded, config) as model:
        wanted = {name: weight.shape for name, weight in _state(model).items()}
        if wanted != {name: weight.shape for name, weight in weights.items()}:
            raise InputError(f"{folder}: an adapter of another base")
        set_peft_model_state_dict(model, weights)
        model.requires_grad_(False)
        yield model


def _check_names(settings: dict[str, Any]) -> None:
    """Raises ValueError for layer names that PEFT would treat as regular expressions, some of which never terminate."""
    for field in ("target_modules", "layers_pattern"):
        named = settings[field] or []
        if not isinstance(named, list) or not all(isinstance(name, str) and _LAYER.fullmatch(name) for name in named):
            raise ValueError(f"{field} is no list of layers' names")


@contextmanager
def merged(model: PeftModel) -> Iterator[Any]:
    """The model for evaluation, with the adapter merged into the weights if all of them are float32, else unchanged."""
    base: Any = model.get_base_model()
    layers = lora_layers(base)
    if not all(_mergeable(layer) for layer in layers.values()):  # 16-bit weights would be rounded once more
        yield model
        return
    try:
        for name, layer in layers.items():
            base.set_submodule(name, _merged(layer))
        yield base
    finally:
        for name, layer in layers.items():
            base.set_submodule(name, layer)


def _mergeable(layer: Any) -> bool:
    base = layer.get_base_layer()
    linear = isinstance(base, Unpacked) or type(base) is torch.nn.Linear
    return linear and _weight(base).dtype == torch.float32 and not layer.lora_variant and not layer.disable_adapters


def _weight(base: Any) -> torch.Tensor:
    weight: torch.Tensor = base.unpacked if isinstance(base, Unpacked) else base.weight
    return weight


@torch.no_grad()
def _merged(layer: Any) -> torch.nn.Linear:
    base = layer.get_base_layer()
    (name,) = layer.active_adapters
    with torch.device("meta"):
        made = torch.nn.Linear(base.in_features, base.out_features, bias=base.bias is not None)
    made.weight = torch.nn.Parameter(_weight(base) + layer.get_delta_weight(name), requires_grad=False)
    made.bias = base.bias
    return made.eval()


@contextmanager
def _lent(loaded: LoadedBase, config: LoraConfig) -> Iterator[PeftModel]:
    base = loaded.model
    try:
        yield get_peft_model(base, config).eval()
    finally:  # not PEFT's unload, because there is no PeftModel if its construction failed half-way
        for name, module in lora_layers(base).items():
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
        lora_alpha=lora.alpha,  # type: ignore[arg-type]  # PEFT only divides by it
        lora_dropout=lora.dropout,
        target_modules=target_modules.chosen(lora.target_modules, found.candidates(lora), found.modules),
        layers_to_transform=None if lora.layers == "all" else numbers,
        layers_pattern=None if lora.layers == "all" else sorted({place[1] for place in match.values()}),
        fan_in_fan_out=all(isinstance(base.get_submodule(name), Conv1D) for name in names),
        use_rslora=lora.use_rslora,
        use_dora=lora.use_dora,
        **init.settings(lora),
    )


def _state(model: Any) -> dict[str, torch.Tensor]:
    found: dict[str, torch.Tensor] = get_peft_model_state_dict(model, save_embedding_layers=False)
    return found


# ---------------------------------------------------------------------- saving


def save(model: PeftModel, folder: Path) -> None:
    """Writes the adapter into a local folder; a converted one with twice its rank: [A; A0] and [B, -B0]."""
    config, weights = copy.deepcopy(model.peft_config[ADAPTER]), _state(model)
    assert isinstance(config, LoraConfig)
    converted = {name for name, module in lora_layers(model).items() if isinstance(module.lora_variant.get(ADAPTER), Converted)}
    for name, (down, up) in factors(model).items() if converted else ():
        weights |= {f"{name}.lora_A.weight": down, f"{name}.lora_B.weight": up}
        _unscaled(config, len(down))
    config.init_lora_weights, config.eva_config, config.inference_mode = (
        True,
        None,
        True,
    )  # a reader takes the weights as written
    config.target_modules = sorted(config.target_modules or ())
    folder.mkdir(parents=True, exist_ok=True)
    config.save_pretrained(str(folder))
    tensors = {name: weight.detach().cpu().contiguous() for name, weight in weights.items()}
    safetensors.torch.save_file(tensors, folder / "adapter_model.safetensors", metadata={"format": "pt"})


def checksum(folder: Path) -> str:
    """sha256 of a saved adapter's weights."""
    return hashlib.sha256((folder / "adapter_model.safetensors").read_bytes()).hexdigest()


def _unscaled(config: LoraConfig, rank: int) -> None:
    """Sets the rank, and a scale of 1, because B includes the scale."""
    config.r = config.lora_alpha = rank
    config.use_rslora = False


# ---------------------------------------------------------------------- derived adapters


@torch.no_grad()
def strengthen(model: PeftModel, strength: float, shallow: float | None = None) -> None:
    """Scales the adapter's update of the base's weights: 0 is the base to the bit, 1 the adapter unchanged.

    With `shallow`, the strength of block l of the base's L (from 0) is strength x (shallow + (1 - shallow) l / (L - 1)), LiNeS
    (arXiv 2410.17146, eq. 2). Layers outside the blocks count as the last one.
    """
    if strength == 1 and shallow is None:
        return
    layers = lora_layers(model)
    count = target_modules.depth(layers, [name for name, _ in model.named_modules()])
    for name, module in layers.items():
        block = target_modules.BLOCK.match(name)
        place = int(block[2]) / max(count - 1, 1) if block else 1.0
        _scale(module, strength * (1.0 if shallow is None else shallow + (1 - shallow) * place))
    if strength == 0:  # for LoRA a zero update would do, but DoRA's division would round
        model.base_model.disable_adapter_layers()  # type: ignore[operator]  # nn.Module's attributes are untyped


def _scale(module: Any, strength: float) -> None:
    variant, up = module.lora_variant.get(ADAPTER), module.lora_B[ADAPTER].weight.data
    if isinstance(variant, Converted):
        variant.up *= strength
    if ADAPTER not in module.lora_magnitude_vector:
        up *= strength
        return
    # DoRA: another B and other magnitudes give the straight line between base and tuned weights exactly:
    # W + t (c (W + s B A) - W) = g W + t c s B A, where g = 1 - t + t c, and c is a row's magnitude over its norm
    magnitude, down = module.lora_magnitude_vector[ADAPTER].weight.data, module.lora_A[ADAPTER].weight.data
    weight, scale = init.dense(module), module.scaling[ADAPTER]
    ratio = magnitude / torch.linalg.norm(weight + scale * up @ down, dim=1)
    kept = 1 - strength + strength * ratio
    up *= (strength * ratio / kept)[:, None]
    magnitude.copy_(kept * torch.linalg.norm(weight + scale * up @ down, dim=1))


@torch.no_grad()
def switch_off(model: PeftModel, off: str) -> None:
    """Removes the adapter's update from one part of the network (see Derive.off), whose layers become the base's to the bit.

    Raises InputError if the adapter has nothing there, or if q, k and v are one layer.
    """
    layers = lora_layers(model)
    count = target_modules.depth(layers, [name for name, _ in model.named_modules()])
    for name in target_modules.part(off, layers, count):
        module, variant = layers[name], layers[name].lora_variant.get(ADAPTER)
        module.lora_B[ADAPTER].weight.zero_()
        if isinstance(variant, Converted):
            variant.up.zero_()
        elif variant is not None:  # DoRA: resets the magnitudes to the base's
            variant.init(module, adapter_name=ADAPTER)


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
    _unscaled(model.peft_config[ADAPTER], rank)  # type: ignore[arg-type]


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
