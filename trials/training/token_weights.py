"""Weights of the tokens in the training loss: which tokens a training learns from, and how much.

The loss of a step is the sum of weight x negative log-likelihood over the counted tokens, divided by their number. Weights are
constants: no gradient flows through them.
"""

import math

import torch

_TOP = 20  # logits from which the entropy is taken, as in the paper


def dft(nll: torch.Tensor) -> torch.Tensor:
    """The probability of each token, (tokens,): improbable tokens move the model least (DFT, arXiv 2508.05629)."""
    return torch.exp(-nll)


def eaft(logits: torch.Tensor) -> torch.Tensor:
    """Entropy of each prediction over its 20 largest logits, (tokens,), as a share of the largest possible one.

    A token that the model is sure of has little weight, whether it is right or wrong (EAFT, arXiv 2601.02151).
    """
    top = torch.log_softmax(logits.topk(min(_TOP, logits.shape[-1]), dim=-1).values, dim=-1)
    return -(top.exp() * top).sum(dim=-1) / math.log(top.shape[-1])


def masked(nll_of_base: torch.Tensor, above: float) -> torch.Tensor:
    """1 for tokens whose perplexity under the base is at most `above`, else 0, (tokens,) (STM, arXiv 2501.14315)."""
    return (nll_of_base <= math.log(above)).to(nll_of_base.dtype)
