"""Where in the network a tuned model has moved: how alike its hidden states and its base's are, layer by layer.

Linear centred kernel alignment (Kornblith et al. 2019, arXiv 1905.00414) with the unbiased estimate of the Hilbert-Schmidt
independence criterion (Song et al. 2012, JMLR 13, equation 5): of fewer tokens than dimensions the usual one is near 1 whatever
the states are. 1: alike up to rotation and scale; about 0: nothing in common.
"""

import functools
from collections.abc import Mapping, Sequence
from typing import Any

import torch

from trials.data.batching import collate, counted
from trials.drift.kl import evaluating, of_base
from trials.mix import Example

_TOKENS = 512  # of a source; the kernels are so many squared
_FEWEST = 4  # below, the unbiased estimate is not defined


def measure(model: Any, pad_id: int, rows: Mapping[str, Sequence[Example]], batch_size: int) -> dict[str, list[float]]:
    """By source: the alignment of the embeddings' output and then of each block's, at the tokens that the loss counts.

    At most 512 tokens of a source, the same ones for every trial; a source with fewer than 4 is left out. The model, its
    gradients and the random generators stay as they are.
    """
    found = {}
    for source, examples in rows.items():
        tuned, base = _states(model, pad_id, examples, batch_size)
        if tuned and len(tuned[0]) >= _FEWEST:
            found[source] = [alignment(one, other) for one, other in zip(tuned, base, strict=True)]
    return found


def alignment(one: torch.Tensor, other: torch.Tensor) -> float:
    """Of two representations of the same n >= 4 tokens, (n, d) and (n, e). 0 where one of them does not vary at all."""
    kernels = [states @ states.T for states in (one.double(), other.double())]
    for kernel in kernels:
        kernel.fill_diagonal_(0.0)
    own = [independence(kernel, kernel) for kernel in kernels]
    return independence(kernels[0], kernels[1]) / (own[0] * own[1]) ** 0.5 if min(own) > 0 else 0.0


def independence(one: torch.Tensor, other: torch.Tensor) -> float:
    """HSIC of two kernels (n, n) whose diagonals are 0, unbiased."""
    n = len(one)
    sums, others = one.sum(0), other.sum(0)
    trace = (one * other).sum()
    product = sums.sum() * others.sum() / ((n - 1) * (n - 2))
    return float((trace + product - 2 * (sums @ others) / (n - 2)) / (n * (n - 3)))


def _states(model: Any, pad_id: int, rows: Sequence[Example], batch_size: int) -> tuple[list[torch.Tensor], list[torch.Tensor]]:
    """By layer: (tokens, hidden), float32, with the adapter and without it; on the model's device, whose products are fast."""
    sides: tuple[list[list[torch.Tensor]], list[list[torch.Tensor]]] = ([], [])
    taken = 0
    with evaluating(model):
        for first in range(0, len(rows), batch_size):
            if taken >= _TOKENS:
                break
            batch = collate(rows[first : first + batch_size], pad_id)
            inputs = {name: tensor.to(model.device) for name, tensor in batch.items()}
            hidden = functools.partial(_hidden, model, inputs, _TOKENS - taken)
            sides[0].append(hidden())
            sides[1].append(of_base(model, f"{_TOKENS - taken} hidden", inputs, hidden))
            taken += len(sides[0][-1][0])
    tuned, base = ([torch.cat(layer).to(model.device) for layer in zip(*side, strict=True)] for side in sides)
    return tuned, base


def _hidden(model: Any, inputs: Mapping[str, torch.Tensor], most: int) -> list[torch.Tensor]:
    """By layer, at the first so many of the places that predict a token which the loss counts."""
    inner = model.get_base_model().base_model  # without the head
    states = inner(
        input_ids=inputs["input_ids"], attention_mask=inputs["attention_mask"], output_hidden_states=True
    ).hidden_states
    predicts = counted(inputs["labels"])
    return [layer[:, :-1][predicts][:most].float().cpu() for layer in states]  # the base's are kept
