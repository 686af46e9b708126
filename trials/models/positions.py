"""The maximum number of tokens that a model accepts."""

import re
from typing import Any

import torch
from lm_eval.models.utils import resolve_max_length
from transformers import PreTrainedConfig

_TABLE = re.compile(r"wpe|pos")


def limit(model: Any) -> int | None:
    """The maximum length that the model's position tables allow; None without such a table."""
    found, towers = [], _towers(model)
    for name, module in model.named_modules():
        if name.startswith(towers):
            continue
        if isinstance(module, torch.nn.Embedding) and _TABLE.search(name.rpartition(".")[2]):
            # RoBERTa's positions begin behind the padding index, OPT's at an offset
            first = module.padding_idx + 1 if type(module) is torch.nn.Embedding and module.padding_idx is not None else 0
            found.append(module.num_embeddings - int(getattr(module, "offset", first)))
    for name, table in model.named_buffers():
        if not name.startswith(towers) and re.search(r"embed_positions|pos_encoding", name) and table.dim() == 2:
            found.append(len(table))
    if (made := getattr(model.config, "max_seq_len", None)) is not None:  # MPT's ALiBi
        found.append(made)
    return min(found, default=None)


def _towers(model: Any) -> tuple[str, ...]:
    """Name prefixes of modules for images or sound, recognised by a configuration other than the text's."""
    kinds = (type(model.config), type(model.config.get_text_config()))
    configs = ((name, getattr(module, "config", None)) for name, module in model.named_modules())
    return tuple(f"{name}." for name, config in configs if isinstance(config, PreTrainedConfig) and type(config) not in kinds)


def longest(model: Any, tokenizer: Any) -> int:
    """The maximum length of an evaluation: lm-eval's, limited by the position table."""
    # RoBERTa's configuration, which lm-eval reads, counts two positions more than its table has
    found: int = resolve_max_length(model.config, tokenizer)
    most = limit(model)
    return found if most is None else min(found, most)
