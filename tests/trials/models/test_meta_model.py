"""The layout of a model is read from its modules."""

import pytest
import torch

from tests.fuzz import miniatures
from trials.hub.hub import Hub
from trials.models import layout, meta_model
from trials.spec import Base, Lora


def of(name: str, **fields) -> layout.Layout:
    return meta_model.layout(miniatures.miniature(name, **fields))


@pytest.mark.parametrize(("name", "leaf"), [("mamba", "dt_proj"), ("jamba", "dt_proj"), ("longcat_flash", "classifier")])
def test_layer_that_is_never_called_gets_no_adapter(name, leaf):
    found = of(name)
    assert leaf in {layer.rpartition(".")[2] for layer in found.reserved}
    assert leaf not in {layer.rpartition(".")[2] for layer in layout.adapted(Lora(target_modules="all-linear"), found)}
    assert not of("bloom").reserved


def test_loaded_model_and_its_configuration_have_one_layout(tmp_path):
    folder = miniatures.save("mixtral", tmp_path / "base")
    built, _ = meta_model.read(Base(model=str(folder), quantization="none", dtype="float32"), Hub())
    assert built == meta_model.layout(miniatures.miniature("mixtral"))
    assert torch.get_default_device().type == "cpu"
