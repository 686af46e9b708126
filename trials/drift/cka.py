"""Linear centred kernel alignment (CKA) of a tuned model's hidden states with its base's, layer by layer.

Kornblith et al. 2019, arXiv 1905.00414, with the unbiased estimate of the Hilbert-Schmidt independence criterion (Song et al.
2012, JMLR 13, equation 5). 1: equal up to rotation and scale; about 0: nothing in common.
"""

from collections.abc import Sequence

import torch

from trials.mix import Example
from trials.template import IGNORED

FEWEST = 4
"""Tokens; below, the unbiased estimate is not defined."""
_TOKENS = 512  # per source; a kernel has so many rows and columns


def compared(rows: Sequence[Example]) -> list[int]:
    """By row: how many of its counted tokens are compared, the first ones. They are 512 in all at most, of the first rows."""
    taken, left = [], _TOKENS
    for row in rows:
        taken.append(min(left, sum(label != IGNORED for label in row.labels[1:])))
        left -= taken[-1]
    return taken


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
