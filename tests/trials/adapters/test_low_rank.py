"""The factors of a layer multiply to its update."""

import pytest
import torch

from trials.adapters import peft_adapter
from trials.adapters.low_rank import factors
from trials.spec import Lora
from trials.training import loss as objective


def test_factors_equal_the_merged_update(loaded):
    """The factors include the scale, here alpha / sqrt(rank)."""
    with peft_adapter.adapted(loaded, Lora(rank=4, alpha=3, use_rslora=True), 0) as model:
        torch.nn.init.normal_(next(weight for name, weight in model.named_parameters() if "lora_B" in name))
        name, (a, b) = next(iter(factors(model).items()))
        assert torch.allclose(b @ a, model.get_submodule(name).get_delta_weight("default"), atol=1e-6)
        assert float(objective.squared_update(model)) == pytest.approx(float(((b @ a) ** 2).sum()), rel=1e-5)
