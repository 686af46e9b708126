"""Adapters leave the base unchanged, read back as saved, and derive others exactly."""

import json

import pytest
import torch
from peft import PeftModel
from peft.tuners.lora import LoraLayer
from safetensors.torch import load_file, save_file

from tests.factories.adapters import CONVERTED, INITS, changed, close, logits, trained
from trials.adapters import lora as adapter
from trials.adapters.low_rank import factors
from trials.adapters.target_modules import BLOCK
from trials.errors import InputError
from trials.hub.hub import Hub
from trials.ledger import storage
from trials.models import base
from trials.spec import Lora
from trials.training import trainer

EVERY_STEP = trainer.Pace(seconds=0.0, share=float("inf"))


@pytest.mark.parametrize(
    ("layers", "expected"),
    [("all", {0, 1, 2, 3}), ("first-third", {0}), ("middle-third", {1, 2}), ("last-third", {3}), ((2, 0), {0, 2})],
)
def test_only_selected_blocks_get_an_adapter(loaded, layers, expected):
    with adapter.adapted(loaded, Lora(rank=2, layers=layers), 0) as model:
        assert {int(name.split(".layers.")[1].split(".")[0]) for name in factors(model)} == expected


@pytest.mark.parametrize("architecture", ["gpt_neox", "gpt2"])
def test_blocks_of_other_architectures_are_found_and_read_back(architecture, tmp_path):
    from transformers import AutoConfig, AutoModelForCausalLM

    sizes = {
        "gpt_neox": {"hidden_size": 32, "num_hidden_layers": 3, "num_attention_heads": 2, "intermediate_size": 64},
        "gpt2": {"n_embd": 32, "n_layer": 3, "n_head": 2},
    }
    torch.manual_seed(0)
    config = AutoConfig.for_model(
        architecture, vocab_size=64, max_position_embeddings=32, pad_token_id=0, **sizes[architecture]
    )
    tokenizer = type("Tokenizer", (), {"pad_token_id": 0})()
    loaded = base.LoadedBase(AutoModelForCausalLM.from_config(config).eval().requires_grad_(False), tokenizer, None)
    before = logits(loaded.model)
    lora = Lora(rank=2, layers="last-third", target_modules="all-linear", init="pissa")
    with adapter.adapted(loaded, lora, 0) as model:
        assert torch.equal(logits(model), before)
        assert len(factors(model)) == 4
        assert all(".2." in name for name in factors(model))
        changed(model)
        live = logits(model)
        adapter.save(model, tmp_path / "adapter")
        if architecture == "gpt_neox":
            fused = "k is a part of query_key_value in this base, and one layer cannot be taken apart"
        else:
            fused = "k is a part of c_attn in this base"
        with pytest.raises(InputError, match=fused):
            adapter.switch_off(model, "k")
        adapter.switch_off(model, "last-third")
        assert torch.equal(logits(model), before)
    assert torch.equal(logits(loaded.model), before)
    with adapter.borrowed(loaded, tmp_path / "adapter") as model:
        assert close(logits(model), live)


# ---------------------------------------------------------------------- saving and reading


SETTINGS = {
    **{init: {"init": init} for init in INITS},
    "dora": {"use_dora": True, "dropout": 0.1},
    "dora-loftq": {"use_dora": True, "init": "loftq"},
    "rslora-pissa": {
        "use_rslora": True,
        "init": "pissa",
        "dropout": 0.1,
        "layers": "last-third",
        "target_modules": "all-linear",
    },
}


@pytest.mark.parametrize("name", SETTINGS)
def test_trained_adapter_reads_back_unchanged_here_and_in_peft(loaded, rows, spec, tmp_path, name):
    before = logits(loaded.model)
    with adapter.adapted(loaded, Lora(rank=4, alpha=6, **SETTINGS[name]), 0, rows) as model:
        trained(model, loaded, rows, spec)
        live, update = logits(model), factors(model)
        adapter.save(model, tmp_path / "adapter")
    assert not close(live, before, 1e-2), "it has learnt something"
    assert torch.equal(logits(loaded.model), before)
    same = (
        (lambda found: close(found, live))
        if SETTINGS[name].get("init") in CONVERTED
        else lambda found: torch.equal(found, live)
    )
    with adapter.borrowed(loaded, tmp_path / "adapter") as model:
        assert same(logits(model))
        assert not any(weight.requires_grad for weight in model.parameters())
        for layer, (down, up) in factors(model).items():
            assert close(up @ down, update[layer][1] @ update[layer][0])
        adapter.strengthen(model, 0.0)
        assert torch.equal(logits(model), before)
    assert torch.equal(logits(loaded.model), before)
    peft = PeftModel.from_pretrained(base.load(spec.base, Hub()).model, str(tmp_path / "adapter"))
    assert same(logits(peft.eval()))


def test_remote_adapter_is_borrowed_like_a_local_one(loaded, place, tmp_path):
    with adapter.adapted(loaded, Lora(rank=2), 0) as model:
        changed(model)
        live = logits(model)
        adapter.save(model, tmp_path / "adapter")
    storage.upload(tmp_path / "adapter", place / "key" / "adapter")
    with adapter.borrowed(loaded, place / "key" / "adapter") as model:
        assert torch.equal(logits(model), live)


def test_adapter_of_another_base_is_refused(loaded, tmp_path):
    before = logits(loaded.model)

    def refused(expected: str) -> None:
        with pytest.raises(InputError, match=expected), adapter.borrowed(loaded, tmp_path):
            pass
        assert torch.equal(logits(loaded.model), before)

    refused("no adapter that can be read")
    with adapter.adapted(loaded, Lora(rank=2), 0) as model:
        adapter.save(model, tmp_path)
    (tmp_path / "adapter_model.safetensors").rename(tmp_path / "adapter_model.bin")  # PEFT would unpickle it
    refused("no adapter that can be read")
    (tmp_path / "adapter_model.bin").rename(tmp_path / "adapter_model.safetensors")
    told = json.loads((tmp_path / "adapter_config.json").read_text())
    (tmp_path / "adapter_config.json").write_text(json.dumps(told | {"r": 3}))
    refused("its rank is 3, its weights have another")
    (tmp_path / "adapter_config.json").write_text(json.dumps(told | {"target_modules": ["q_proj"]}))
    refused("an adapter of another base")
    (tmp_path / "adapter_model.safetensors").write_bytes(b"not one")
    refused("no adapter that can be read")


@pytest.mark.parametrize("init", ["pissa", "eva"])
def test_resumed_training_equals_an_undisturbed_one_to_the_bit(loaded, rows, spec, tmp_path, init):
    lora = Lora(rank=4, init=init, dropout=0.1)

    def states() -> list[trainer.State]:
        kept: list[trainer.State] = []

        def keep(state: trainer.State) -> None:
            values, tensors = state.packed()
            kept.append(trainer.State.unpacked(values, {name: tensor.clone() for name, tensor in tensors.items()}))

        with adapter.adapted(loaded, lora, 0, rows) as model:
            trained(model, loaded, rows, spec, save=keep, pace=EVERY_STEP)
            adapter.save(model, tmp_path / "whole")
        return kept

    middle = next(state for state in states() if state.step == 2)
    with adapter.adapted(loaded, lora, 0, rows) as model:
        trained(model, loaded, rows, spec, start=middle)
        adapter.save(model, tmp_path / "resumed")
    for file in ("adapter_model.safetensors", "adapter_config.json"):
        assert (tmp_path / "whole" / file).read_bytes() == (tmp_path / "resumed" / file).read_bytes()


# ---------------------------------------------------------------------- derived adapters


@pytest.mark.parametrize("name", ["default", "pissa", "dora"])
def test_strength_interpolates_between_base_and_adapter(loaded, rows, tmp_path, name):
    lora = Lora(rank=4, **SETTINGS[name])

    def weights(strength: float) -> dict[str, torch.Tensor]:
        with adapter.adapted(loaded, lora, 0, rows) as model:
            changed(model)
            whole = logits(model)
            adapter.strengthen(model, strength)
            if strength == 1:
                assert torch.equal(logits(model), whole)
            return {name: seen(module) for name, module in model.named_modules() if isinstance(module, LoraLayer)}

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
        with adapter.adapted(loaded, lora, 0, rows) as model:
            changed(model)
            adapter.strengthen(model, strength, shallow)
            return {name: seen(module) for name, module in model.named_modules() if isinstance(module, LoraLayer)}

    none, rising, whole = weights(0.0, None), weights(0.8, 0.25), weights(1.0, None)
    last = max(int(BLOCK.match(layer)[2]) for layer in whole)
    assert last > 0
    for layer in whole:
        expected = 0.8 * (0.25 + 0.75 * int(BLOCK.match(layer)[2]) / last)
        assert close(rising[layer] - none[layer], expected * (whole[layer] - none[layer]), 1e-3)


@torch.no_grad()
def seen(module: LoraLayer) -> torch.Tensor:
    """A layer's effective weight, from its output on the identity."""
    return module(torch.eye(module.in_features))


def test_strength_changes_no_other_scaling(loaded):
    """Attention modules also have a float called `scaling`."""
    with adapter.adapted(loaded, Lora(rank=2), 0) as model:
        scalings = [m.scaling for m in model.modules() if isinstance(getattr(m, "scaling", None), float)]
        assert scalings
        adapter.strengthen(model, 0.5)
        assert scalings == [m.scaling for m in model.modules() if isinstance(getattr(m, "scaling", None), float)]


@pytest.mark.parametrize(("init", "full"), [("default", 4), ("pissa", 8)])
def test_truncation_is_the_best_of_its_rank_and_exact_at_full_rank(loaded, rows, tmp_path, init, full):
    lora = Lora(rank=4, alpha=6, use_rslora=True, init=init, target_modules="all-linear")
    for rank in (full, 2):
        with adapter.adapted(loaded, lora, 0, rows) as model:
            changed(model)
            whole = {name: up @ down for name, (down, up) in factors(model).items()}
            before = logits(model)
            adapter.truncate(model, rank)
            after, cut = logits(model), factors(model)
            adapter.save(model, tmp_path / str(rank))
        for name, (down, up) in cut.items():
            assert (len(down), up.shape[1]) == (rank, rank)
            u, s, vh = torch.linalg.svd(whole[name].double())
            assert close((up @ down).double(), (u[:, :rank] * s[:rank]) @ vh[:rank], 1e-5)
        assert close(after, before) == (rank == full)
        with adapter.borrowed(loaded, tmp_path / str(rank)) as model:
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
@pytest.mark.parametrize("name", ["default", "pissa", "dora", "dora-loftq", "rslora"])
def test_part_switched_off_equals_the_base_and_the_rest_is_unchanged(loaded, rows, tmp_path, name, off):
    settings = {"use_rslora": True} if name == "rslora" else SETTINGS[name]
    with adapter.adapted(loaded, Lora(rank=4, alpha=6, **settings, target_modules="all-linear"), 0, rows) as model:
        changed(model)
        adapter.save(model, tmp_path / "whole")
        model.base_model.disable_adapter_layers()
        base_weights = {name: seen(module) for name, module in model.named_modules() if isinstance(module, LoraLayer)}
    with adapter.borrowed(loaded, tmp_path / "whole") as model:
        whole = {name: seen(module) for name, module in model.named_modules() if isinstance(module, LoraLayer)}
        adapter.switch_off(model, off)
        adapter.save(model, tmp_path / "part")
    with adapter.borrowed(loaded, tmp_path / "part") as model:
        found = {name: seen(module) for name, module in model.named_modules() if isinstance(module, LoraLayer)}
    assert 0 < sum(in_part(layer, off) for layer in found) < len(found) == 28
    for layer, weight in found.items():
        assert not torch.equal(whole[layer], base_weights[layer])
        assert torch.equal(weight, (base_weights if in_part(layer, off) else whole)[layer])


@pytest.mark.parametrize("parts", [OFF[:3], OFF[3:]])
def test_switching_off_all_parts_gives_the_base(loaded, parts):
    before = logits(loaded.model)
    with adapter.adapted(loaded, Lora(rank=4), 0) as model:
        changed(model)
        for off in parts:
            assert not torch.equal(logits(model), before)
            adapter.switch_off(model, off)
        assert torch.equal(logits(model), before)


def test_switching_off_q_equals_zeroing_its_b(loaded, tmp_path):
    with adapter.adapted(loaded, Lora(rank=4), 0) as model:
        changed(model)
        adapter.save(model, tmp_path / "whole")
        adapter.switch_off(model, "q")
        without = logits(model)
    weights = load_file(tmp_path / "whole" / "adapter_model.safetensors")
    for name, weight in weights.items():
        if "q_proj.lora_B" in name:
            weight.zero_()
    save_file(weights, tmp_path / "whole" / "adapter_model.safetensors")
    with adapter.borrowed(loaded, tmp_path / "whole") as model:
        assert torch.equal(logits(model), without)


@pytest.mark.parametrize(
    ("lora", "off", "expected"),
    [
        ({"target_modules": ("up_proj",)}, "k", "nothing in k; it is on up_proj"),
        ({"layers": (0, 1)}, "last-third", "nothing in last-third"),
    ],
)
def test_part_without_an_adapter_cannot_be_switched_off(loaded, lora, off, expected):
    with adapter.adapted(loaded, Lora(rank=2, **lora), 0) as model, pytest.raises(InputError, match=expected):
        adapter.switch_off(model, off)


def test_third_counts_the_bases_blocks_not_the_adapted_ones(loaded):
    with adapter.adapted(loaded, Lora(rank=2, layers=(0, 1)), 0) as model:
        changed(model)
        adapter.switch_off(model, "first-third")
        assert {name: bool(up.any()) for name, (_, up) in factors(model).items()} == {
            name: ".1." in name for name in factors(model)
        }


def test_dora_adapter_cannot_be_truncated(loaded):
    with adapter.adapted(loaded, Lora(rank=4, use_dora=True), 0) as model, pytest.raises(InputError, match="DoRA"):
        adapter.truncate(model, 2)
