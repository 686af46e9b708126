"""Fixtures of this folder."""

import pytest
import torch
from transformers import GPTNeoXConfig, GPTNeoXForCausalLM, LlamaConfig, LlamaForCausalLM

from tests.factories.models import SIZES
from trials.hub.hub import Hub
from trials.models import base
from trials.spec import Base


@pytest.fixture(params=["llama", "grouped heads", "neox", "eager"])
def model(request):
    torch.manual_seed(0)
    if request.param == "neox":
        return GPTNeoXForCausalLM(GPTNeoXConfig(**SIZES)).eval()
    heads = 2 if request.param == "grouped heads" else 4
    made = LlamaForCausalLM(LlamaConfig(**SIZES, num_key_value_heads=heads, initializer_range=0.2)).eval()
    made.config._attn_implementation = "eager" if request.param == "eager" else "sdpa"
    return made


@pytest.fixture(scope="module")
def micro():
    """Micro with its 4-bit layers unpacked."""
    return base.load(Base(model="micro", dtype="float32"), Hub())
