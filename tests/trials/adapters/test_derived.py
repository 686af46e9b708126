"""Adapters are derived from others exactly: scaled, truncated, and switched off in a part of the network."""

import pytest
import torch
from peft.tuners.tuners_utils import BaseTunerLayer
from safetensors.torch import load_file, save_file

from tests.factories.adapters import SETTINGS, changed, close, logits
from trials.adapters import derived, peft_adapter
from trials.adapters.low_rank import factors
from trials.adapters.target_modules import BLOCK
from trials.errors import InputError
from trials.spec import Lora


@pytest.mark.parametrize("name", ["default", "pissa", "dora", "shira"])
def test_strength_interpolates_between_base_and_adapter(loaded, rows, tmp_path, name):
    lora = Lora(rank=4, **SETTINGS[name])

    def weights(strength: float) -> dict[str, torch.Tensor]:
        with peft_adapter.adapted(loaded, lora, 0, rows) as model:
            changed(model)
            whole = logits(model)
            derived.strengthen(model, strength)
            if strength == 1:
                assert torch.equal(logits(model), whole)
            return {name: seen(module) for name, module in model.named_modules() if isinstance(module, BaseTunerLayer)}

    none, part, half, whole, more = (weights(strength) for strength in (0.0, 0.25, 0.5, 1.0, 1.25))
    for layer in whole:
        step = whole[layer] - none[layer]
        assert step.norm() > 0.01 * none[layer].norm()
        for found, strength in ((part, 0.25), (half, 0.5), (more, 1.25)):
            assert close(found[layer] - none[layer], strength * step, 1e-3)


@pytest.mark.parametrize("name", ["default", "pissa", "dora"])
def test_strength_rises_with_depth_up_to_that_of_the_last_block(loaded, rows, name):
    lora = Lora(rank=4, **SETTINGS[name])

    def weights(strength: float, shallow: float | None) -> dict[str, torch.Tensor]:
        with peft_adapter.adapted(loaded, lora, 0, rows) as model:
            changed(model)
            derived.strengthen(model, strength, shallow)
            return {name: seen(module) for name, module in model.named_modules() if isinstance(module, BaseTunerLayer)}

    none, rising, whole = weights(0.0, None), weights(0.8, 0.25), weights(1.0, None)
    last = max(int(BLOCK.match(layer)[2]) for layer in whole)
    assert last > 0
    for layer in whole:
        expected = 0.8 * (0.25 + 0.75 * int(BLOCK.match(layer)[2]) / last)
        assert close(rising[layer] - none[layer], expected * (whole[layer] - none[layer]), 1e-3)


@torch.no_grad()
def seen(module: BaseTunerLayer) -> torch.Tensor:
    """A layer's effective weight, from its output on the identity."""
    return module(torch.eye(module.in_features))


def test_strength_changes_no_other_scaling(loaded):
    """Attention modules also have a float called `scaling`."""
    with peft_adapter.adapted(loaded, Lora(rank=2), 0) as model:
        scalings = [m.scaling for m in model.modules() if isinstance(getattr(m, "scaling", None), float)]
        assert scalings
        derived.strengthen(model, 0.5)
        assert scalings == [m.scaling for m in model.modules() if isinstance(getattr(m, "scaling", None), float)]


@pytest.mark.parametrize(("init", "full"), [("default", 4), ("pissa", 8)])
def test_truncation_is_the_best_of_its_rank_and_exact_at_full_rank(loaded, rows, tmp_path, init, full):
    lora = Lora(rank=4, alpha=6, use_rslora=True, init=init, target_modules="all-linear")
    for rank in (full, 2):
        with peft_adapter.adapted(loaded, lora, 0, rows) as model:
            changed(model)
            whole = {name: up @ down for name, (down, up) in factors(model).items()}
            before = logits(model)
            derived.truncate(model, rank)
            after, cut = logits(model), factors(model)
            peft_adapter.save(model, tmp_path / str(rank))
        for name, (down, up) in cut.items():
            assert (len(down), up.shape[1]) == (rank, rank)
            u, s, vh = torch.linalg.svd(whole[name].double())
            assert close((up @ down).double(), (u[:, :rank] * s[:rank]) @ vh[:rank], 1e-5)
        assert close(after, before) == (rank == full)
        with peft_adapter.borrowed(loaded, tmp_path / str(rank)) as model:
            assert torch.equal(logits(model), after)
        tensors = load_file(tmp_path / str(rank) / "adapter_model.safetensors")
        assert {weight.shape[0] for name, weight in tensors.items() if "lora_A" in name} == {rank}


OFF = ["q", "k", "v", "first-third", "middle-third", "last-third"]
BLOCKS = {"first-third": {0}, "middle-third": {1, 2}, "last-third": {3}}  # micro has four


def in_part(layer: str, off: str) -> bool:
    if off in BLOCKS:
        return int(layer.split(".layers.")[1].split(".")[0]) in BLOCKS[off]
    return layer.endswith(f".{off}_proj")


@pytest.mark.parametrize("off", OFF)
@pytest.mark.parametrize("name", ["default", "pissa", "dora", "dora-loftq", "rslora", "oft", "shira", "full"])
def test_part_switched_off_equals_the_base_and_the_rest_is_unchanged(loaded, rows, tmp_path, name, off):
    settings = {"use_rslora": True} if name == "rslora" else SETTINGS[name]
    settings = {**settings, "layers": "all", "target_modules": "all-linear"}
    with peft_adapter.adapted(loaded, Lora(rank=4, alpha=6, **settings), 0, rows) as model:
        changed(model)
        peft_adapter.save(model, tmp_path / "whole")
        model.base_model.disable_adapter_layers()
        base_weights = {name: seen(module) for name, module in model.named_modules() if isinstance(module, BaseTunerLayer)}
    with peft_adapter.borrowed(loaded, tmp_path / "whole") as model:
        whole = {name: seen(module) for name, module in model.named_modules() if isinstance(module, BaseTunerLayer)}
        derived.switch_off(model, off)
        peft_adapter.save(model, tmp_path / "part")
    with peft_adapter.borrowed(loaded, tmp_path / "part") as model:
        found = {name: seen(module) for name, module in model.named_modules() if isinstance(module, BaseTunerLayer)}
    assert 0 < sum(in_part(layer, off) for layer in found) < len(found) == 28
    for layer, weight in found.items():
        assert not torch.equal(whole[layer], base_weights[layer])
        assert torch.equal(weight, (base_weights if in_part(layer, off) else whole)[layer])


@pytest.mark.parametrize("parts", [OFF[:3], OFF[3:]])
def test_switching_off_all_parts_gives_the_base(loaded, parts):
    before = logits(loaded.model)
    with peft_adapter.adapted(loaded, Lora(rank=4), 0) as model:
        changed(model)
        for off in parts:
            assert not torch.equal(logits(model), before)
            derived.switch_off(model, off)
        assert torch.equal(logits(model), before)


def test_switching_off_q_equals_zeroing_its_b(loaded, tmp_path):
    with peft_adapter.adapted(loaded, Lora(rank=4), 0) as model:
        changed(model)
        peft_adapter.save(model, tmp_path / "whole")
        derived.switch_off(model, "q")
        without = logits(model)
    weights = load_file(tmp_path / "whole" / "adapter_model.safetensors")
    for name, weight in weights.items():
        if "q_proj.lora_B" in name:
            weight.zero_()
    save_file(weights, tmp_path / "whole" / "adapter_model.safetensors")
    with peft_adapter.borrowed(loaded, tmp_path / "whole") as model:
        assert torch.equal(logits(model), without)


@pytest.mark.parametrize(
    ("lora", "off", "expected"),
    [
        ({"target_modules": ("up_proj",)}, "k", "nothing in k; it is on up_proj"),
        ({"layers": (0, 1)}, "last-third", "nothing in last-third"),
    ],
)
def test_part_without_an_adapter_cannot_be_switched_off(loaded, lora, off, expected):
    with peft_adapter.adapted(loaded, Lora(rank=2, **lora), 0) as model, pytest.raises(InputError, match=expected):
        derived.switch_off(model, off)


def test_third_counts_the_bases_blocks_not_the_adapted_ones(loaded):
    with peft_adapter.adapted(loaded, Lora(rank=2, layers=(0, 1)), 0) as model:
        changed(model)
        derived.switch_off(model, "first-third")
        assert {name: bool(up.any()) for name, (_, up) in factors(model).items()} == {
            name: ".1." in name for name in factors(model)
        }


def test_full_update_is_truncated_to_a_lora_of_that_rank(loaded, tmp_path):
    """Wide and tall layers alike; the update that is left is the best of its rank."""
    with peft_adapter.adapted(loaded, Lora(method="full", target_modules=("q_proj", "up_proj", "down_proj")), 0) as model:
        changed(model)
        whole = {name: up @ down for name, (down, up) in factors(model).items()}
        derived.truncate(model, 3)
        peft_adapter.save(model, tmp_path)
        live = logits(model)
    with peft_adapter.borrowed(loaded, tmp_path) as model:
        assert torch.equal(logits(model), live)
        for name, (down, up) in factors(model).items():
            assert down.shape[0] == 3
            u, s, vh = torch.linalg.svd(whole[name])
            assert close(up @ down, u[:, :3] * s[:3] @ vh[:3], 1e-3)


def test_dora_adapter_cannot_be_truncated(loaded):
    with peft_adapter.adapted(loaded, Lora(rank=4, use_dora=True), 0) as model, pytest.raises(InputError, match="DoRA"):
        derived.truncate(model, 2)
