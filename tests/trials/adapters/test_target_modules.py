"""Groups select the same kinds of layers in every architecture."""

import pytest
import torch

from tests.factories.bases import ARCHITECTURES, miniature
from trials.adapters import target_modules
from trials.errors import InputError


@pytest.mark.parametrize("kind", ARCHITECTURES)
def test_groups_select_the_layers_of_each_architecture(kind):
    from transformers.pytorch_utils import Conv1D

    linear = [name for name, module in miniature(kind).named_modules() if isinstance(module, torch.nn.Linear | Conv1D)]
    qkv, output, mlp = (set(ARCHITECTURES[kind][1][name].split()) for name in ("qkv", "output", "mlp"))
    for group, wanted in {"qkv": qkv, "attention": qkv | output, "mlp": mlp}.items():
        assert set(target_modules.chosen(group, linear)) == wanted
    everything = target_modules.chosen("all-linear", linear)
    assert [name for name in linear if not target_modules.matches(name, everything)] in (["lm_head"], [])
    assert not target_modules.matches("lm_head", everything)


def test_layers_may_be_named_and_an_unknown_name_lists_the_known_ones():
    linear = ["h.0.attn.c_attn", "h.0.attn.c_proj", "h.0.mlp.c_proj", "lm_head"]
    assert target_modules.chosen(["attn.c_proj"], linear) == ["attn.c_proj"]
    assert target_modules.chosen(["c_proj"], linear) == ["c_proj"]
    with pytest.raises(InputError, match=r"no o_proj; did you mean 'c_proj'\? It has c_attn, c_proj, lm_head, and the groups"):
        target_modules.chosen(["o_proj"], linear)
