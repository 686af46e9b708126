"""The base model: loaded once, in 4 bits unless asked otherwise."""

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from transformers import MODEL_FOR_CAUSAL_LM_MAPPING, AutoConfig, AutoModelForCausalLM, AutoTokenizer, BitsAndBytesConfig
from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING_NAMES

from trials import gguf, hardware, identity
from trials.errors import InputError
from trials.hub import Hub, is_commit
from trials.spec import Base, Data


@dataclass
class LoadedBase:
    model: Any
    tokenizer: Any
    checksum: str | None


def device() -> torch.device:
    return torch.device("cuda", torch.cuda.current_device()) if torch.cuda.is_available() else torch.device("cpu")


def quantization_config(base: Base) -> BitsAndBytesConfig | None:
    if base.quantization == "none":
        return None
    return BitsAndBytesConfig(
        load_in_4bit=True,
        bnb_4bit_quant_type=base.quantization,
        bnb_4bit_use_double_quant=base.double_quantization,
        bnb_4bit_compute_dtype=getattr(torch, base.dtype),
    )


def check(base: Base, hub: Hub) -> None:
    """Raises InputError when there is no such model or it is none that a trial can tune; reads its configuration alone."""
    if base.dtype == "auto":
        hardware.check(base.dtype)
    try:
        if base.gguf is None:
            config = AutoConfig.from_pretrained(
                hub.locate(base.model), revision=base.revision or "main", trust_remote_code=False
            )
        elif file := gguf.file(base, hub, fetch=False):
            config = AutoConfig.from_pretrained(file.parent, gguf_file=file.name)
        else:
            return  # what it holds is known when it has been fetched
    except (OSError, ValueError) as error:
        if "trust_remote_code" in str(error):
            raise InputError(
                f"base.model {base.model!r} needs code of its own repository (trust_remote_code), which is never run here; "
                "take a model whose architecture transformers knows"
            ) from error
        raise hub.missing("base.model", base.model, error, base.revision) from error
    _check_causal(base, config)


def dropouts(config: Any) -> list[str]:
    """The names of a model's settings by which it draws random numbers as it trains."""
    return [name for name, value in config.to_dict().items() if "drop" in name and isinstance(value, float) and value]


def _check_causal(base: Base, config: Any) -> None:
    named = config.architectures or []
    causal = MODEL_FOR_CAUSAL_LM_MAPPING_NAMES.values()
    if type(config) not in MODEL_FOR_CAUSAL_LM_MAPPING or (named and not any(name in causal for name in named)):
        kind = f"{config.model_type}, {', '.join(named)}" if named else config.model_type
        raise InputError(
            f"base.model {base.model!r} is no causal language model ({kind}): it cannot be tuned to go on with a text"
        )


def check_template(base: Base, data: Data, hub: Hub) -> None:
    """Raises InputError where the data are to be written in the tokenizer's own chat template and it has none."""
    if data.template == "chat" and not tokenizer(base, hub).chat_template:
        raise InputError(
            f"data.template: chat, but the tokenizer of {base.model} has no chat template; take template alpaca or plain, "
            "or an instruct model"
        )


def tokenizer(base: Base, hub: Hub) -> Any:
    """The model's tokenizer, with a padding token; raises InputError where it cannot be had."""
    arguments = {"pretrained_model_name_or_path": hub.locate(base.model), "revision": base.revision or "main"}
    if base.gguf is not None:
        arguments = gguf.tokenizer_arguments(base, hub)
    try:
        made = AutoTokenizer.from_pretrained(**arguments, trust_remote_code=False)
    except (OSError, ValueError) as error:
        raise hub.missing("the tokenizer of base.model", base.model, error, base.revision) from error
    if made.pad_token is None:
        made.pad_token = made.eos_token
    return made


def load(base: Base, hub: Hub) -> LoadedBase:
    """Weights (frozen, evaluation mode) and tokenizer; raises InputError when there is no such model."""
    from trials import dense  # bitsandbytes with it, which what is only checked needs not wait for

    hardware.check(base.dtype)
    check(base, hub)
    identity.check_base(base, hub)
    path, revision, checksum = hub.locate(base.model), base.revision or "main", None
    if base.gguf is not None:
        folder, checksum = gguf.converted(base, hub)
        path, revision = str(folder), "main"
    model = AutoModelForCausalLM.from_pretrained(
        path,
        revision=revision,
        dtype=getattr(torch, base.dtype),
        quantization_config=quantization_config(base),
        device_map={"": device()},
        trust_remote_code=False,
    )
    model.requires_grad_(False)
    if base.dtype != "bfloat16":
        # on a CPU with units for bfloat16 bitsandbytes would evaluate in it all the same, and round the weights for good
        layers: Iterable[Any] = model.modules()
        for layer in layers:
            if hasattr(layer, "support_avx512bf16_for_cpu"):
                layer.support_avx512bf16_for_cpu = False
    dense.unpack(model)
    return LoadedBase(model.eval(), tokenizer(base, hub), checksum or _checksum(path, revision, model))


def _checksum(path: str, revision: str, model: Any) -> str | None:
    """The commit of a model of the hub: transformers does not always note it."""
    folder = Path(path)
    if folder.is_dir():
        return identity.of_weights(folder)
    return revision if is_commit(revision) else getattr(model.config, "_commit_hash", None)
