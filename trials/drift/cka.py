"""Linear centred kernel alignment (CKA) of a tuned model's hidden states with its base's, layer by layer.

Kornblith et al. 2019, arXiv 1905.00414, with the unbiased estimate of the Hilbert-Schmidt independence criterion (Song et al.
2012, JMLR 13, equation 5). 1: equal up to rotation and scale; about 0: nothing in common.
"""

import functools
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch

from trials.data.batching import collate, counted
from trials.drift.kl import evaluating, of_base
from trials.mix import Example

_TOKENS = 512  # per source; a kernel has so many rows and columns
_FEWEST = 4  # below, the unbiased estimate is not defined


def measure(
    model: Any,
    pad_id: int,
    rows: Mapping[str, Sequence[Example]],
    batch_size: int,
    report: Callable[[int], None] = lambda done: None,
) -> dict[str, list[float]]:
    """By source: the alignment of the embeddings' output and of each block's output, at the tokens that the loss counts.

    Takes at most 512 tokens of a source, the same for every trial; leaves out a source with fewer than 4. The model, its
    gradients and the random generators stay as they are. `report` gets the number of rows that are done.
    """
    found, done = {}, 0
    for source, examples in rows.items():
        tuned, base = _states(model, pad_id, examples, batch_size)
        if tuned and len(tuned[0]) >= _FEWEST:
            found[source] = [alignment(one, other) for one, other in zip(tuned, base, strict=True)]
        done += len(examples)
        report(done)
    return found


def alignment(one: torch.Tensor, other: torch.Tensor) -> float:
    """CKA of two representations of the same n >= 4 tokens, (n, d) and (n, e). 0 if one of them does not vary."""
    kernels = [states @ states.T for states in (one.double(), other.double())]
    for kernel in kernels:
        kernel.fill_diagonal_(0.0)
    own = [independence(kernel, kernel) for kernel in kernels]
    return independence(kernels[0], kernels[1]) / (own[0] * own[1]) ** 0.5 if min(own) > 0 else 0.0


def independence(one: torch.Tensor, other: torch.Tensor) -> float:
    """Unbiased HSIC of two kernels (n, n) whose diagonals are 0."""
    # with fewer tokens than dimensions the biased estimate is near 1 whatever the states are
    n = len(one)
    sums, others = one.sum(0), other.sum(0)
    trace = (one * other).sum()
    product = sums.sum() * others.sum() / ((n - 1) * (n - 2))
    return float((trace + product - 2 * (sums @ others) / (n - 2)) / (n * (n - 3)))


def _states(model: Any, pad_id: int, rows: Sequence[Example], batch_size: int) -> tuple[list[torch.Tensor], list[torch.Tensor]]:
    """By layer: hidden states (tokens, hidden) in float32, with the adapter and without it."""
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
    # kept on the CPU, but multiplied on the model's device
    tuned, base = ([torch.cat(layer).to(model.device) for layer in zip(*side, strict=True)] for side in sides)
    return tuned, base


def _hidden(model: Any, inputs: Mapping[str, torch.Tensor], most: int) -> list[torch.Tensor]:
    """By layer, hidden states at the first `most` positions that predict a token which the loss counts."""
    inner = model.get_base_model().base_model  # without the head
    states = inner(
        input_ids=inputs["input_ids"], attention_mask=inputs["attention_mask"], output_hidden_states=True
    ).hidden_states
    predicts = counted(inputs["labels"])
    return [layer[:, :-1][predicts][:most].float().cpu() for layer in states]  # `of_base` keeps the base's
