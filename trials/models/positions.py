"""The most tokens that a model takes at once."""

import re
from typing import Any

import torch
from lm_eval.models.utils import resolve_max_length
from transformers import PreTrainedConfig

_TABLE = re.compile(r"wpe|pos")


def limit(model: Any) -> int | None:
    """The most tokens that tables of positions allow; None where there is no such table."""
    found, towers = [], _towers(model)
    for name, module in model.named_modules():
        if name.startswith(towers):
            continue
        if isinstance(module, torch.nn.Embedding) and _TABLE.search(name.rpartition(".")[2]):
            first = module.padding_idx + 1 if type(module) is torch.nn.Embedding and module.padding_idx is not None else 0
            found.append(module.num_embeddings - int(getattr(module, "offset", first)))
    for name, table in model.named_buffers():
        if not name.startswith(towers) and re.search(r"embed_positions|pos_encoding", name) and table.dim() == 2:
            found.append(len(table))
    if (made := getattr(model.config, "max_seq_len", None)) is not None:  # MPT's ALiBi
        found.append(made)
    return min(found, default=None)


def _towers(model: Any) -> tuple[str, ...]:
    """Prefixes of the modules that read images or sound: their configuration is another than the text's."""
    kinds = (type(model.config), type(model.config.get_text_config()))
    configs = ((name, getattr(module, "config", None)) for name, module in model.named_modules())
    return tuple(f"{name}." for name, config in configs if isinstance(config, PreTrainedConfig) and type(config) not in kinds)


def longest(model: Any, tokenizer: Any) -> int:
    """lm-eval's length of the model, within its table of positions: RoBERTa's configuration counts two more than it has."""
    found: int = resolve_max_length(model.config, tokenizer)
    most = limit(model)
    return found if most is None else min(found, most)
