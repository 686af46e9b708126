"""The adapter: it begins where it should, leaves the base alone, is saved as plain PEFT, and so is what is derived of it."""

import json

import pytest
import torch
from peft import PeftModel

from trials import adapter, base, mix, train
from trials.errors import InputError
from trials.hub import Hub
from trials.initial import CONVERTED
from trials.spec import Base, Data, Derive, Lora, Train

DATA = Data(samples=32, mix={"micro/alpaca": 0.5, "micro/gsm8k": 0.5})
FAST = Train(learning_rate=5e-3, batch_size=8, micro_batch_size=8)
IDS = torch.tensor([[5, 6, 7, 8, 9, 40, 41, 42]])
INITS = ("default", "gaussian", "orthogonal", "eva", "loftq", *CONVERTED)


@pytest.fixture(scope="module")
def loaded():
    torch.set_num_threads(1)
    return base.load(Base(model="micro", dtype="float32"), Hub())


@pytest.fixture(scope="module")
def rows(loaded):
    return mix.build(DATA, Hub(), loaded.tokenizer)


def logits(model) -> torch.Tensor:
    with torch.no_grad():
        return model(input_ids=IDS).logits


def trained(model, rows, pad_id, spec=FAST):
    return train.fit(model, pad_id, rows, spec, train.beginning(model, spec), lambda state: None, train.Pace())


@pytest.mark.parametrize("init", INITS)
def test_every_initialisation_leaves_the_base_itself_and_what_was_trained_is_loaded_again(loaded, rows, tmp_path, init):
    before = logits(loaded.model)
    lora = Lora(rank=4, init=init)
    with adapter.adapted(loaded, lora, 0, rows) as model:
        if init not in ("loftq",):  # which begins at what quantising lost
            assert torch.allclose(logits(model.eval()), before, atol=2e-4)
        with model.disable_adapter():
            assert torch.equal(logits(model), before)
        assert all(".default." in name for name in train.trainable(model))
        trained(model, rows, loaded.tokenizer.pad_token_id)
        live = logits(model.eval())
        assert not torch.allclose(live, before, atol=1e-2)
        adapter.save(model, tmp_path / "adapter")
    assert torch.equal(logits(loaded.model), before)
    with adapter.borrowed(loaded, tmp_path / "adapter") as model:
        assert torch.allclose(logits(model), live, atol=2e-4)
    assert torch.equal(logits(loaded.model), before)
    plain = PeftModel.from_pretrained(base.load(Base(model="micro", dtype="float32"), Hub()).model, tmp_path / "adapter")
    assert torch.allclose(logits(plain.eval()), live, atol=2e-4)


@pytest.mark.parametrize("init", CONVERTED)
@pytest.mark.parametrize("use_rslora", [False, True])
def test_what_begins_at_a_part_of_the_base_is_saved_at_its_own_scale(loaded, rows, tmp_path, init, use_rslora):
    with adapter.adapted(loaded, Lora(rank=4, alpha=24, init=init, use_rslora=use_rslora), 0, rows) as model:
        assert torch.allclose(logits(model.eval()), logits(loaded.model), atol=2e-4)
        trained(model, rows, loaded.tokenizer.pad_token_id)
        live = logits(model.eval())
        adapter.save(model, tmp_path)
    assert json.loads((tmp_path / "adapter_config.json").read_text())["r"] == 8
    with adapter.borrowed(loaded, tmp_path) as model:
        assert torch.allclose(logits(model), live, atol=2e-4)


@pytest.mark.parametrize("init", ["pissa", "eva", "corda"])
def test_an_initialisation_is_a_function_of_base_rows_and_seed(loaded, rows, init):
    found = []
    for _ in range(2):
        with adapter.adapted(loaded, Lora(rank=4, init=init), 3, rows) as model:
            found.append({name: weight.detach().clone() for name, weight in model.named_parameters() if "lora_" in name})
    assert all(torch.equal(weight, found[1][name]) for name, weight in found[0].items())


def test_pissa_begins_at_the_principal_and_corda_at_the_least_part(loaded):
    from trials.initial import corda, olora, pissa

    weight = torch.randn(12, 8, generator=torch.Generator().manual_seed(0))
    spectrum = torch.linalg.svdvals(weight)
    down, up = pissa(weight, 3)
    assert torch.linalg.svdvals(up @ down)[:3] == pytest.approx(spectrum[:3], abs=1e-4)
    assert torch.linalg.svdvals(weight - up @ down)[:5] == pytest.approx(spectrum[3:], abs=1e-4)
    down, up = corda(weight, torch.eye(8), 3)
    assert torch.linalg.svdvals(up @ down)[:3] == pytest.approx(spectrum[-3:], abs=1e-4)
    down, up = olora(weight, 8)
    assert torch.allclose(up @ down, weight, atol=1e-5)


@pytest.mark.parametrize(
    ("layers", "expected"),
    [("first-third", {0}), ("middle-third", {1, 2}), ("last-third", {3}), ((2, 0), {0, 2}), ("all", {0, 1, 2, 3})],
)
def test_the_blocks_that_get_an_adapter_are_those_asked_for(loaded, layers, expected):
    with adapter.adapted(loaded, Lora(rank=2, layers=layers), 0) as model:
        touched = {int(name.split(".layers.")[1].split(".")[0]) for name in train.trainable(model)}
    assert touched == expected


@pytest.mark.parametrize(
    ("group", "expected"),
    [
        ("qkv", {"q_proj", "k_proj", "v_proj"}),
        ("attention", {"q_proj", "k_proj", "v_proj", "o_proj"}),
        ("mlp", {"gate_proj", "up_proj", "down_proj"}),
        ("all-linear", {"q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"}),
        (("v_proj",), {"v_proj"}),
    ],
)
def test_a_group_of_layers_is_what_its_name_says(loaded, group, expected):
    with adapter.adapted(loaded, Lora(rank=2, target_modules=group), 0) as model:
        assert {name.split(".lora_")[0].rpartition(".")[2] for name in train.trainable(model)} == expected


@pytest.mark.parametrize(
    ("lora", "rows_too", "expected"),
    [
        ({"layers": (4,)}, True, "there is no block 4; the base has 4"),
        ({"init": "pissa", "use_dora": True}, True, "cannot be taken off again"),
        ({"init": "eva"}, False, "looks at training rows"),
        ({"target_modules": ("query",)}, True, "the base has no query"),
    ],
)
def test_what_cannot_be_put_on_is_one_line_and_leaves_the_base_itself(loaded, rows, lora, rows_too, expected):
    before = logits(loaded.model)
    with (
        pytest.raises(InputError, match=expected),
        adapter.adapted(loaded, Lora(rank=2, **lora), 0, rows if rows_too else ()),
    ):
        pass
    assert torch.equal(logits(loaded.model), before)


# ---------------------------------------------------------------------- derived


@pytest.fixture(scope="module")
def saved(loaded, rows, tmp_path_factory):
    """A trained adapter on all linear layers."""
    folder = tmp_path_factory.mktemp("adapter")
    with adapter.adapted(loaded, Lora(rank=4, target_modules="all-linear"), 0) as model:
        trained(model, rows, loaded.tokenizer.pad_token_id)
        adapter.save(model, folder)
    return folder


def logits_of(loaded, folder) -> torch.Tensor:
    with adapter.borrowed(loaded, folder) as model:
        return logits(model)


def test_strength_0_is_the_base_to_the_bit_and_1_the_adapter(loaded, saved, tmp_path):
    for strength in (0.0, 0.5, 1.0):
        adapter.derive(saved, tmp_path / str(strength), Derive(strength=strength))
    base_logits, whole = logits(loaded.model), logits_of(loaded, saved)
    assert torch.equal(logits_of(loaded, tmp_path / "0.0"), base_logits)
    assert torch.equal(logits_of(loaded, tmp_path / "1.0"), whole)
    half = logits_of(loaded, tmp_path / "0.5")
    assert 0 < (half - base_logits).norm() < (whole - base_logits).norm()


def test_the_full_rank_is_the_adapter_and_less_is_the_nearest_of_that_rank(loaded, saved, tmp_path):
    for rank in (4, 2):
        adapter.derive(saved, tmp_path / str(rank), Derive(rank=rank))
    assert torch.allclose(logits_of(loaded, tmp_path / "4"), logits_of(loaded, saved), atol=1e-4)
    assert json.loads((tmp_path / "2" / "adapter_config.json").read_text())["r"] == 2
    down, up = torch.randn(6, 20), torch.randn(30, 6)
    a, b = adapter.truncated(down, up, 2)
    s = torch.linalg.svdvals(up @ down)
    assert torch.linalg.matrix_norm(up @ down - b @ a) == pytest.approx(float(s[2:6].norm()), rel=1e-4), "Eckart-Young"


def test_a_truncated_adapter_keeps_its_scale_under_rslora(loaded, rows, tmp_path):
    with adapter.adapted(loaded, Lora(rank=4, use_rslora=True), 0) as model:
        trained(model, rows, loaded.tokenizer.pad_token_id)
        adapter.save(model, tmp_path / "whole")
    adapter.derive(tmp_path / "whole", tmp_path / "same", Derive(rank=4))
    adapter.derive(tmp_path / "whole", tmp_path / "less", Derive(rank=3))
    whole = logits_of(loaded, tmp_path / "whole")
    assert torch.allclose(logits_of(loaded, tmp_path / "same"), whole, atol=1e-4)
    assert (logits_of(loaded, tmp_path / "less") - whole).norm() < (logits(loaded.model) - whole).norm()


def test_a_dora_adapter_is_loaded_again_and_has_neither_strength_nor_rank(loaded, rows, tmp_path):
    with adapter.adapted(loaded, Lora(rank=4, use_dora=True), 0) as model:
        trained(model, rows, loaded.tokenizer.pad_token_id)
        live = logits(model.eval())
        adapter.save(model, tmp_path / "dora")
    assert torch.allclose(logits_of(loaded, tmp_path / "dora"), live, atol=2e-4)
    with pytest.raises(InputError, match="DoRA"):
        adapter.derive(tmp_path / "dora", tmp_path / "half", Derive(strength=0.5))


def test_an_adapter_that_is_a_pickle_is_not_read(loaded, tmp_path):
    (tmp_path / "adapter_config.json").write_text("{}")
    (tmp_path / "adapter_model.bin").write_bytes(b"")
    with pytest.raises(InputError, match="holds no adapter_model"), adapter.borrowed(loaded, tmp_path):
        pass
