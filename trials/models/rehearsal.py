"""Rehearses one training step and two generated tokens on random weights, because some architectures raise in one of them.

A small model is built and run on the CPU. A large one is not.
"""

from collections.abc import Callable
from typing import Any

import torch

from trials.models import oom, positions

WEIGHTS = 2 * 10**8
"""Larger models are not run: building one takes seconds and gigabytes."""
_LENGTH = 24
_ALIKE = 1e-3  # tolerance of rounding between different batches, as a share of the logits' standard deviation
_CAUSAL = 1e-4  # the same within one row; smaller, because random weights attend weakly and a later token changes little


def failures(like: Any) -> dict[str, str]:
    """Why the model's architecture fails, by "training" and "evaluation"; empty if both work."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = type(like)(like.config).float().eval()
    ids = _ids(model, min(_LENGTH, positions.limit(model) or _LENGTH))
    tried = {"evaluation": _tried(lambda: _evaluate(model, ids)), "training": _tried(lambda: _train(model, ids))}
    return {kind: reason for kind, reason in tried.items() if reason is not None}


def _ids(model: Any, length: int) -> torch.Tensor:
    """(1, length) token ids without special tokens."""
    config = model.config.get_text_config()
    special = [0, *(getattr(config, f"{kind}_token_id", None) for kind in ("bos", "eos", "pad"))]
    rows = min(model.get_input_embeddings().num_embeddings, 2 * _LENGTH)
    usual = [number for number in range(rows) if number not in special]
    return torch.tensor([(usual * length)[:length]])


def _tried(run: Callable[[], str | None]) -> str | None:
    try:
        return run()
    except (ImportError, NotImplementedError):  # a kernel that the CPU lacks may exist for a GPU
        return None
    except Exception as error:  # an architecture's code may raise anything
        if oom.is_out_of_memory(error):
            raise
        return f"{type(error).__name__}: {' '.join(str(error).split())[:160]}"


@torch.no_grad()
def _evaluate(model: Any, ids: torch.Tensor) -> str | None:
    """Calls the model as lm-eval does for one row."""
    other = torch.cat([ids[:, :-1], ids[:, :1]], dim=1)
    before, after = model(ids).logits[0, :-1], model(other).logits[0, :-1]
    if (before - after).abs().max() > _CAUSAL * before.std():  # BERT without is_decoder
        return "the logits of a token depend on later tokens, so it is no causal language model"
    prompt = ids[:, :-2]
    model.generate(input_ids=prompt, attention_mask=torch.ones_like(prompt), max_new_tokens=2, do_sample=False, use_cache=True)
    return None


@torch.enable_grad()
def _train(model: Any, ids: torch.Tensor) -> str | None:
    """A forward and backward pass of two rows, the second one padded."""
    length = ids.shape[1] * 2 // 3
    rows, seen = ids.repeat(2, 1), torch.ones(2, ids.shape[1], dtype=torch.long)
    rows[1, length:], seen[1, length:] = 0, 0
    with torch.no_grad():
        alone = model(input_ids=ids[:, :length], attention_mask=seen[:1, :length]).logits[0]
        beside = model(input_ids=rows, attention_mask=seen).logits[1, :length]
    if (alone - beside).abs().max() > _ALIKE * alone.std():
        return "the logits of a row depend on the padding behind it"
    start = torch.zeros((), requires_grad=True)  # added to the embeddings: gradients pass through all blocks, as with adapters
    hook = model.get_input_embeddings().register_forward_hook(lambda *call: call[2] + start)
    try:
        model.requires_grad_(False).train()
        model(input_ids=rows, attention_mask=seen).logits.sum().backward()
    finally:
        hook.remove()
    return None
