"""Reads the layout of a model, either loaded or built on torch's meta device from its configuration."""

import inspect
import re
from dataclasses import replace
from typing import Any

import torch
from transformers import AutoModelForCausalLM
from transformers.pytorch_utils import Conv1D
from transformers.quantizers.base import MODULES_TO_PATCH_FOR_QUANTIZATION, get_keys_to_not_convert
from transformers.quantizers.quantizers_utils import should_convert_module

from trials.hub.hub import Hub
from trials.models import base as bases
from trials.models import positions, rehearsal
from trials.models.modules import Layout, Tokens
from trials.spec import Base

_MAMBA = {"falcon_h1", "falcon_mamba", "mamba", "mamba2", "nemotron_h"}
"""Architectures in which PEFT refuses an adapter on out_proj."""
_SMALL = 0.01  # share of the model's weights below which a matrix outside of linear layers is ignored


def read(base: Base, hub: Hub) -> tuple[Layout, Tokens]:
    """The layout and tokens of a base; raises InputError if it cannot be read, or is no causal language model."""
    bases.check(base, hub)
    config = bases.configuration(base, hub)
    with torch.device("meta"):
        model = AutoModelForCausalLM.from_config(config)
    if base.quantization != "none":
        _patch(model)
    found = layout(model, _quantisable(model) if base.quantization != "none" else set())
    tokens = _tokens(bases.tokenizer(base, hub), model, found.rows)
    if found.weights <= rehearsal.WEIGHTS and tokens.longest > 1:
        found = replace(found, failures=rehearsal.failures(model))
    return found, tokens


def layout(model: Any, four_bit: set[str] | None = None) -> Layout:
    """The layout of a model. `four_bit`: the layers that will be quantised; None for a model that is loaded."""
    head = model.get_output_embeddings()
    linear = {name: module for name, module in model.named_modules() if _carries_adapter(module) and module is not head}
    if four_bit is None:
        four_bit = {name for name, module in linear.items() if hasattr(module.weight, "quant_state")}
    # from the shape, because a loaded 4-bit weight packs two numbers into a byte
    sizes = {name: _size(module) for name, module in linear.items()}
    heads = {name: module for name, module in model.named_modules() if module is head and _carries_adapter(module)}
    every = {**linear, **heads}
    total = sum(sizes.values()) + _rest(model, linear)
    other = _other(model, linear, total)
    reserved = _reserved(model, linear, bool(other))
    return Layout(
        linear={name: size for name, size in sizes.items() if name not in reserved},
        shapes={name: list(_shape(module)) for name, module in every.items()},
        transposed=[name for name, module in every.items() if isinstance(module, Conv1D) and name not in four_bit],
        head=[*heads],
        four_bit=sorted(four_bit & linear.keys()),
        reserved={name: sizes[name] for name in sorted(reserved)},
        other=other,
        modules=[name for name, _ in model.named_modules() if name and (name not in linear or name in reserved)],
        weights=total,
        rows=model.get_input_embeddings().num_embeddings,
        positions=positions.limit(model),
    )


def _carries_adapter(module: Any) -> bool:
    """Whether the module is a linear map and nothing else."""
    # by exact type: some routers derive from torch.nn.Linear and return tuples
    plain = type(module) in (torch.nn.Linear, Conv1D) or type(module).__name__ == "FalconLinear"
    return plain or any(kind.__name__ == "Linear4bit" for kind in type(module).__mro__)


def _size(module: Any) -> int:
    outputs, inputs = _shape(module)
    return outputs * inputs


def _shape(module: Any) -> tuple[int, int]:
    """(outputs, inputs) of a linear layer, in 4 bits or not."""
    if isinstance(module, Conv1D):
        inputs, outputs = module.weight.shape
        return int(outputs), int(inputs)
    return int(module.out_features), int(module.in_features)


def _rest(model: Any, linear: dict[str, Any]) -> int:
    """Number of weights outside of the linear layers."""
    counted = {id(weight) for module in linear.values() for weight in module.parameters()}
    return sum(int(weight.numel()) for weight in model.parameters() if id(weight) not in counted)


def _patch(model: Any) -> None:
    """Splits fused experts into layers, as transformers does before it quantises a model."""
    for name, module in list(model.named_modules()):
        patch: Any = MODULES_TO_PATCH_FOR_QUANTIZATION.get(type(module).__name__)
        if patch:
            with torch.device("meta"):
                model.set_submodule(name, patch["module_name"](model.config.get_text_config()))


def _quantisable(model: Any) -> set[str]:
    """The layers that transformers' bitsandbytes quantisation replaces. It skips subclasses of torch.nn.Linear."""
    skipped = [*get_keys_to_not_convert(model), *(model._keep_in_fp32_modules or [])]
    return {
        name
        for name, module in model.named_modules()
        if (type(module) is torch.nn.Linear or isinstance(module, Conv1D)) and should_convert_module(name, skipped)
    }


def _other(model: Any, linear: dict[str, Any], total: int) -> dict[str, int]:
    """Matrices outside of linear layers, embeddings and convolutions, with a relevant share of the weights."""
    plain = (torch.nn.Embedding, torch.nn.Conv1d, torch.nn.Conv2d, torch.nn.Conv3d)
    known = [*linear.values(), model.get_output_embeddings()]
    known += [module for module in model.modules() if isinstance(module, plain)]
    counted = {id(weight) for module in known if module is not None for weight in module.parameters()}
    found = {}
    for name, weight in model.named_parameters():
        if weight.dim() >= 2 and id(weight) not in counted and weight.numel() >= _SMALL * total:
            kind = type(model.get_submodule(name.rpartition(".")[0])).__name__
            found[name if "expert" in name or "Expert" not in kind else f"{name} (experts)"] = int(weight.numel())
    return found


def _reserved(model: Any, linear: dict[str, Any], fused: bool) -> set[str]:
    """Layers that PEFT does not adapt because of their names, and layers on which an adapter would have no effect."""
    kind = model.config.model_type
    names = {"out_proj"} if kind in _MAMBA else set()  # the mixers' kernels read the weight itself, past the adapter
    if fused:
        # PEFT reads target names as transformers 4 had them, and adapts the experts instead of today's layers of that name
        from peft.utils import transformers_weight_conversion as conversion

        pattern = conversion._MODEL_TO_CONVERSION_PATTERN.get(kind)
        names |= conversion._MOE_TARGET_MODULE_MAPPING.get(pattern or "", {}).keys()
    found, bypassed = set(), dict[str, set[str]]()
    for name in linear:
        above, _, leaf = name.rpartition(".")
        parent = model.get_submodule(above)
        kind = type(parent).__name__
        if kind not in bypassed:
            bypassed[kind] = _bypassed(parent)
        if leaf in names | bypassed[kind]:
            found.add(name)
    return found


def _bypassed(module: Any) -> set[str]:
    """Names of layers whose weight the module's code multiplies itself (Mamba's dt_proj), or which it never calls."""
    methods = [method for name, method in inspect.getmembers(type(module), inspect.isfunction) if "init" not in name]
    ours = [method for method in methods if method.__module__.startswith("transformers.models.")]
    code = "\n".join(map(inspect.getsource, ours))
    read = set(re.findall(r"self\.(\w+)\.weight\b(?!\.(?:dtype|device|shape))", code))
    return set(re.findall(r"self\.(\w+)\.weight @", code)) | (read - set(re.findall(r"self\.(\w+)\(", code)))


def _tokens(tokenizer: Any, model: Any, rows: int) -> Tokens:
    pad = tokenizer.pad_token if tokenizer.pad_token != tokenizer.eos_token else None
    beyond = sorted(token for token, number in tokenizer.get_vocab().items() if number >= rows and token != pad)
    added = tokenizer.convert_ids_to_tokens(tokenizer("a")["input_ids"])
    return Tokens(
        end=tokenizer.eos_token,
        beyond=beyond,
        fed=[token for token in added if token in beyond],
        chat=[token for token in beyond if token in str(tokenizer.chat_template or "")],
        longest=positions.longest(model, tokenizer),
    )
