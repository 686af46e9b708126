"""The base model: loaded once, in 4 bits unless asked otherwise."""

import hashlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer, BitsAndBytesConfig

from trials.hub import Hub
from trials.spec import Base


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
    """Raises InputError when there is no such model; reads its configuration alone."""
    try:
        AutoConfig.from_pretrained(hub.locate(base.model), revision=base.revision or "main", trust_remote_code=False)
    except (OSError, ValueError) as error:
        raise hub.missing("base.model", base.model, error) from error


def load(base: Base, hub: Hub) -> LoadedBase:
    """Weights (frozen, evaluation mode) and tokenizer; raises InputError when there is no such model."""
    check(base, hub)
    path, revision = hub.locate(base.model), base.revision or "main"
    model = AutoModelForCausalLM.from_pretrained(
        path,
        revision=revision,
        dtype=getattr(torch, base.dtype),
        quantization_config=quantization_config(base),
        device_map={"": device()},
        trust_remote_code=False,
    )
    tokenizer = AutoTokenizer.from_pretrained(path, revision=revision, trust_remote_code=False)
    if tokenizer.pad_token is None:
        tokenizer.pad_token = tokenizer.eos_token
    model.requires_grad_(False)
    return LoadedBase(model.eval(), tokenizer, _checksum(path, model))


def _checksum(path: str, model: Any) -> str | None:
    if not Path(path).is_dir():
        return getattr(model.config, "_commit_hash", None)
    digest = hashlib.sha256()
    for file in sorted([*Path(path).glob("*.safetensors"), *Path(path).glob("*.bin")]):
        with file.open("rb") as opened:
            digest.update(hashlib.file_digest(opened, "sha256").digest())
    return digest.hexdigest()
