"""Puts adapters on a base, saves and loads them.

A saved adapter is plain PEFT on the unchanged base, whatever its method and initialisation: PeftModel.from_pretrained reads it.
"""

import copy
import hashlib
import json
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import safetensors.torch
import torch
from peft import LoraConfig, PeftConfig, PeftModel, get_peft_model, get_peft_model_state_dict, set_peft_model_state_dict
from peft.tuners.lora import LoraLayer
from pydantic import ValidationError
from transformers.pytorch_utils import Conv1D

from trials.adapters import methods, target_modules
from trials.adapters.init import ADAPTER
from trials.adapters.low_rank import Converted, Square, factors, lora_layers, unscaled
from trials.adapters.methods import METHODS, Method, adapted_layers
from trials.errors import InputError
from trials.ledger import storage
from trials.mix import Example
from trials.models import layout, meta_model
from trials.models.base import LoadedBase
from trials.models.dequantize import Unpacked
from trials.spec import Lora

_READ = {name.upper(): METHODS[name] for name in ("lora", "oft", "shira")}
"""Kinds of saved adapters. A full update is stored as a LoRA."""


@contextmanager
def adapted(loaded: LoadedBase, lora: Lora, seed: int, rows: Sequence[Example] = ()) -> Iterator[PeftModel]:
    """The base with a fresh adapter; the base is restored on exit, even after an exception.

    Some initialisations read `rows`. Raises InputError if the base lacks the layers or blocks, or does not fit lora.init.
    """
    torch.manual_seed(seed)
    with _lent(loaded, _config(loaded.model, lora, seed)) as model:
        METHODS[lora.method].begin(model, loaded.tokenizer.pad_token_id, lora, rows)
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
            method = _READ.get(settings["peft_type"])
            if method is None:
                raise ValueError(f"its kind is {settings['peft_type']}; those that are read are {', '.join(_READ)}")
            saved = _saved(method, settings)
            weights = safetensors.torch.load_file(local / "adapter_model.safetensors")
            method.check(saved, weights, meta_model.layout(loaded.model).shapes)
        except (OSError, ValueError, KeyError, TypeError, RecursionError, safetensors.SafetensorError) as error:
            raise InputError(f"{folder}: no adapter that can be read: {error}") from error
    config = method.config(task_type="CAUSAL_LM", inference_mode=True, **saved.model_dump())
    with _lent(loaded, config) as model:
        wanted = {name: weight.shape for name, weight in _state(model).items()}
        if wanted != {name: weight.shape for name, weight in weights.items()}:
            raise InputError(f"{folder}: an adapter of another base")
        set_peft_model_state_dict(model, weights)
        model.requires_grad_(False)
        yield model


def _saved(method: Method, settings: dict[str, Any]) -> Any:
    """The settings that are read; raises ValueError, in one line, for one of another kind."""
    try:
        return method.saved.model_validate(settings)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        raise ValueError(f"{'.'.join(map(str, first['loc']))}: {first['msg']}") from None


@contextmanager
def merged(model: PeftModel) -> Iterator[Any]:
    """The model for evaluation, with the adapter merged into the weights if all of them are float32, else unchanged."""
    base: Any = model.get_base_model()
    layers = adapted_layers(base)
    if not all(_mergeable(layer) for layer in layers.values()):  # 16-bit weights would be rounded once more
        yield model
        return
    try:
        for name, layer in layers.items():
            base.set_submodule(name, _merged(layer, methods.of(model.peft_config[ADAPTER])))
        yield base
    finally:
        for name, layer in layers.items():
            base.set_submodule(name, layer)


def _mergeable(layer: Any) -> bool:
    base = layer.get_base_layer()
    linear = isinstance(base, Unpacked) or type(base) is torch.nn.Linear
    plain = not isinstance(layer, LoraLayer) or all(isinstance(one, Square) for one in layer.lora_variant.values())
    return linear and _weight(base).dtype == torch.float32 and plain and not layer.disable_adapters


def _weight(base: Any) -> torch.Tensor:
    weight: torch.Tensor = base.unpacked if isinstance(base, Unpacked) else base.weight
    return weight


@torch.no_grad()
def _merged(layer: Any, method: Method) -> torch.nn.Linear:
    base = layer.get_base_layer()
    with torch.device("meta"):
        made = torch.nn.Linear(base.in_features, base.out_features, bias=base.bias is not None)
    made.weight = torch.nn.Parameter(method.tuned(layer, _weight(base)), requires_grad=False)
    made.bias = base.bias
    return made.eval()


@contextmanager
def _lent(loaded: LoadedBase, config: PeftConfig) -> Iterator[PeftModel]:
    base = loaded.model
    try:
        try:
            model = get_peft_model(base, config).eval()
        except ValueError as error:
            raise InputError(f"PEFT makes no such adapter on this base: {error}") from error
        yield model
    finally:  # not PEFT's unload, because there is no PeftModel if its construction failed half-way
        for name, module in adapted_layers(base).items():
            base.set_submodule(name, module.get_base_layer())
        if hasattr(base, "peft_config"):
            del base.peft_config
        base.eval().requires_grad_(False)


def _config(base: Any, lora: Lora, seed: int) -> PeftConfig:
    found = meta_model.layout(base)
    names = layout.adapted(lora, found)
    method = METHODS[lora.method]
    options = method.options(lora, {name: found.shapes[name][1] for name in names})
    options["target_modules"] = target_modules.chosen(lora.target_modules, found.candidates(lora), found.modules)
    if lora.layers != "all" and "layers_to_transform" in method.saved.model_fields:
        places = [place for name in names if (place := target_modules.BLOCK.match(name))]
        options["layers_to_transform"] = sorted({int(place[2]) for place in places})
        options["layers_pattern"] = sorted({place[1] for place in places})
    elif lora.layers != "all":
        options["target_modules"] = names
    if "fan_in_fan_out" in method.saved.model_fields:
        options["fan_in_fan_out"] = all(isinstance(base.get_submodule(name), Conv1D) for name in names)
    return method.configured(options, seed)


def _state(model: Any) -> dict[str, torch.Tensor]:
    found: dict[str, torch.Tensor] = get_peft_model_state_dict(model, save_embedding_layers=False)
    return found


# ---------------------------------------------------------------------- saving


def save(model: PeftModel, folder: Path) -> None:
    """Writes the adapter into a local folder; a converted one with twice its rank: [A; A0] and [B, -B0]."""
    config: Any = copy.deepcopy(model.peft_config[ADAPTER])
    weights = _state(model)
    if isinstance(config, LoraConfig):
        converted = any(isinstance(layer.lora_variant.get(ADAPTER), Converted) for layer in lora_layers(model).values())
        for name, (down, up) in factors(model).items() if converted else ():
            weights |= {f"{name}.lora_A.weight": down, f"{name}.lora_B.weight": up}
            unscaled(config, len(down))
        config.init_lora_weights, config.eva_config = True, None  # a reader takes the weights as written
    config.inference_mode = True
    config.target_modules = sorted(config.target_modules or ())
    folder.mkdir(parents=True, exist_ok=True)
    config.save_pretrained(str(folder))
    tensors = {name: weight.detach().cpu().contiguous() for name, weight in weights.items()}
    safetensors.torch.save_file(tensors, folder / "adapter_model.safetensors", metadata={"format": "pt"})


def checksum(folder: Path) -> str:
    """sha256 of a saved adapter's weights."""
    return hashlib.sha256((folder / "adapter_model.safetensors").read_bytes()).hexdigest()
