"""OFT, SHiRA and full updates begin as the base, learn what their form allows, and are merged and scaled exactly."""

import copy
import math

import pytest
import torch
from peft import get_peft_model

from orchestrator.planning import model_shape
from tests.factories.adapters import changed, close, logits, trained
from trials.adapters import derived, peft_adapter
from trials.adapters.methods import METHODS, adapted_layers
from trials.data.batching import collate
from trials.errors import InputError
from trials.hub.hub import Hub
from trials.models import base
from trials.spec import Base, Lora
from trials.training import trainer

OTHERS = {
    "oft": Lora(method="oft", block_size=16),
    "shira": Lora(method="shira", rank=3, target_modules="all-linear"),
    "full": Lora(method="full", target_modules="all-linear"),
}
BASES = {"4 bits": Base(model="micro", dtype="float32"), "none": Base(model="micro", dtype="float32", quantization="none")}
each = pytest.mark.parametrize("method", OTHERS)


@pytest.fixture(scope="module", params=BASES)
def loaded(request) -> base.LoadedBase:
    return base.load(BASES[request.param], Hub())


@each
def test_adapter_begins_as_the_base_and_strength_0_is_the_base_again(loaded, method):
    before = logits(loaded.model)
    with peft_adapter.adapted(loaded, OTHERS[method], 0) as model:
        assert torch.equal(logits(model), before)
        changed(model)
        whole = logits(model)
        assert not close(whole, before, 1e-3)
        derived.strengthen(model, 1.0)
        assert torch.equal(logits(model), whole)
        derived.strengthen(model, 0.0)
        assert torch.equal(logits(model), before)
    assert torch.equal(logits(loaded.model), before)
    assert not any(weight.requires_grad for weight in loaded.model.parameters())


@each
def test_adapter_on_16_bit_weights_begins_as_the_base_and_moves_from_it(loaded, rows, spec, method):
    quantization = "nf4" if getattr(loaded.model, "is_quantized", False) else "none"
    half = base.load(Base(model="micro", dtype="bfloat16", quantization=quantization), Hub())
    before = logits(half.model)
    with peft_adapter.adapted(half, OTHERS[method], 0) as model:
        assert torch.equal(logits(model), before)
        assert all(weight.dtype == torch.float32 for weight in trainer.trainable(model).values())
        trained(model, half, rows, spec)
        after = logits(model)
        assert bool(torch.isfinite(after).all()) and not torch.equal(after, before)
    assert torch.equal(logits(half.model), before)


@each
def test_merged_model_computes_what_the_adapter_does(loaded, method):
    with peft_adapter.adapted(loaded, OTHERS[method], 0) as model:
        changed(model)
        live = logits(model)
        with peft_adapter.merged(model) as whole:
            assert not adapted_layers(whole)
            assert close(logits(whole), live)
        assert torch.equal(logits(model), live)


@each
def test_strength_rises_with_depth(loaded, method):
    @torch.no_grad()
    def moved(*strength) -> dict[str, float]:
        with peft_adapter.adapted(loaded, OTHERS[method], 0) as model:
            layers = adapted_layers(model)
            none = {name: layer(torch.eye(layer.in_features)) for name, layer in layers.items()}
            changed(model)
            derived.strengthen(model, *strength)
            return {name: float((layer(torch.eye(layer.in_features)) - none[name]).norm()) for name, layer in layers.items()}

    rising, whole = moved(1.0, 0.0), moved(1.0)
    shares = {name: rising[name] / whole[name] for name in whole}
    count = len({name.split(".layers.")[1].split(".")[0] for name in shares})
    for name, share in shares.items():
        assert share == pytest.approx(int(name.split(".layers.")[1].split(".")[0]) / (count - 1), abs=0.02)


@each
def test_plan_counts_the_weights_that_are_trained(spec, method):
    spec = spec.model_copy(update={"lora": OTHERS[method]})
    with peft_adapter.adapted(base.load(spec.base, Hub()), spec.lora, seed=0) as model:
        counted = sum(weight.numel() for weight in trainer.trainable(model).values())
    assert counted == model_shape.read_shape(spec.base, Hub()).adapter(spec)


@each
def test_training_that_resumes_ends_as_one_that_was_never_cut(loaded, rows, spec, tmp_path, method):
    lora, kept = OTHERS[method], []
    with peft_adapter.adapted(loaded, lora, 0) as model:
        trained(
            model,
            loaded,
            rows,
            spec,
            save=lambda state: kept.append(copy.deepcopy(state)),
            pace=trainer.Pace(seconds=0.0, share=float("inf")),
        )
        peft_adapter.save(model, tmp_path / "whole")
    with peft_adapter.adapted(loaded, lora, 0) as model:
        trained(model, loaded, rows, spec, start=kept[0])
        peft_adapter.save(model, tmp_path / "resumed")
    assert peft_adapter.checksum(tmp_path / "whole") == peft_adapter.checksum(tmp_path / "resumed")


# ---------------------------------------------------------------------- planted truths


def fitted(lora: Lora, target: torch.Tensor) -> float:
    """The error that is left after fitting one linear layer to `target`, as a share of the error at the start."""
    torch.manual_seed(0)
    size = len(target)
    layer = torch.nn.Sequential(torch.nn.Linear(size, size, bias=False))
    layer[0].weight.data = torch.eye(size)
    method = METHODS[lora.method]
    options = method.options(lora, {"0": size})
    model = get_peft_model(layer, method.config(target_modules=["0"], **options))
    method.begin(model, 0, lora, [])
    optimizer = torch.optim.AdamW([weight for weight in model.parameters() if weight.requires_grad], lr=0.02, weight_decay=0)
    losses = []
    for _ in range(600):
        loss = (model(torch.eye(size)) - target.T).square().sum()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    return losses[-1] / losses[0]


def rotation(size: int, block: int) -> torch.Tensor:
    turned = torch.randn(size // block, block, block, generator=torch.Generator().manual_seed(1)) * 0.1
    return torch.block_diag(*torch.linalg.matrix_exp(turned - turned.mT))


def test_oft_learns_a_rotation_of_its_blocks_that_a_low_rank_cannot():
    assert fitted(Lora(method="oft", block_size=8), rotation(32, 8)) < 1e-3
    assert fitted(Lora(rank=2, alpha=2), rotation(32, 8)) > 0.3


def test_oft_cannot_change_the_size_of_a_weight_that_a_low_rank_can():
    longer = torch.eye(32)
    longer[0, 0] = 2.0
    assert fitted(Lora(method="oft", block_size=8), longer) > 0.9
    assert fitted(Lora(rank=2, alpha=2), longer) < 1e-3


def test_shira_learns_a_change_of_full_rank_at_its_own_places_and_no_other():
    layer = torch.nn.Sequential(torch.nn.Linear(32, 32, bias=False))
    lora = Lora(method="shira", rank=2)
    model = get_peft_model(layer, METHODS["shira"].config(target_modules=["0"], **METHODS["shira"].options(lora, {"0": 32})))
    (adapted,) = adapted_layers(model).values()
    places = tuple(adapted.shira_indices["default"].long())
    inside, outside = torch.eye(32), torch.eye(32)
    inside[places] += 1.0
    outside[places] += 1.0
    outside = 2 * torch.eye(32) + 1.0 - outside  # the same change everywhere else
    assert torch.linalg.matrix_rank(inside - torch.eye(32)) > 16
    assert fitted(lora, inside) < 1e-3
    assert fitted(Lora(rank=2, alpha=2), inside) > 0.3
    assert fitted(lora, outside) > 0.9


def test_a_full_update_learns_what_the_others_cannot():
    target = torch.eye(32) + 0.1 * torch.randn(32, 32, generator=torch.Generator().manual_seed(0))
    assert fitted(Lora(method="full"), target) < 1e-3
    for lora in (Lora(rank=2, alpha=2), Lora(method="oft", block_size=8), Lora(method="shira", rank=2)):
        assert fitted(lora, target) > 0.3


def test_a_full_update_equals_training_the_layers_weights(loaded, rows):
    """The gradient of B is that of the weight, and a step of B one of the weight."""
    if getattr(loaded.model, "is_quantized", False):
        pytest.skip("4-bit weights have no gradient")
    inputs = collate(rows[:4], 0)
    with peft_adapter.adapted(loaded, Lora(method="full"), 0) as model:
        model(input_ids=inputs["input_ids"], attention_mask=inputs["attention_mask"], labels=inputs["labels"]).loss.backward()
        ours = {name: layer.lora_B["default"].weight.grad.clone() for name, layer in adapted_layers(model).items()}
        weights = {name: layer.get_base_layer().weight for name, layer in adapted_layers(model).items()}
    for weight in weights.values():
        weight.requires_grad_(True)
    try:
        loaded.model(
            input_ids=inputs["input_ids"], attention_mask=inputs["attention_mask"], labels=inputs["labels"]
        ).loss.backward()
        for name, weight in weights.items():
            assert close(ours[name], weight.grad, 1e-4)
    finally:
        for weight in weights.values():
            weight.requires_grad_(False)
            weight.grad = None


def updated(model):
    """A layer with a full update, inputs for it, and the update, which is drawn; the identity is not to be read."""
    layer = next(iter(adapted_layers(model).values()))
    inputs = torch.randn(3, layer.in_features, generator=torch.Generator().manual_seed(0)).to(model.dtype)
    update = layer.lora_B["default"].weight
    update.data.normal_(generator=torch.Generator().manual_seed(1))
    layer.lora_A["default"].weight.data.fill_(math.nan)  # it would show
    return layer, inputs, update


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_a_full_update_is_one_product_with_the_weights_that_a_merge_has(dtype):
    loaded = base.load(Base(model="micro", quantization="none", dtype=dtype), Hub())
    with peft_adapter.adapted(loaded, Lora(method="full"), 0) as model:
        layer, inputs, update = updated(model)
        products = 0

        def count(*_: object) -> None:
            nonlocal products
            products += 1

        layer.get_base_layer().register_forward_hook(count)
        found = layer(inputs)
        merged = (layer.weight.float() + update).to(inputs.dtype)
        assert torch.equal(found, inputs @ merged.T)
        assert products == 0
        found.float().sum().backward()
        assert update.dtype == update.grad.dtype == torch.float32 and found.dtype == inputs.dtype
        with model.disable_adapter():
            assert torch.equal(layer(inputs), layer.get_base_layer()(inputs))


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_a_full_update_of_4_bit_weights_is_computed_without_its_identity_in_the_base_s_type(dtype):
    loaded = base.load(Base(model="micro", quantization="nf4", dtype=dtype), Hub())
    with peft_adapter.adapted(loaded, Lora(method="full"), 0) as model:
        layer, inputs, update = updated(model)
        found = layer(inputs)
        assert torch.equal(found, layer.get_base_layer()(inputs) + inputs @ update.to(inputs.dtype).T)
        found.float().sum().backward()
        assert update.dtype == update.grad.dtype == torch.float32 and found.dtype == inputs.dtype


def test_places_of_shira_differ_between_layers_and_seeds_and_are_saved(loaded, tmp_path):
    def places(seed: int) -> dict[str, torch.Tensor]:
        with peft_adapter.adapted(loaded, OTHERS["shira"], seed) as model:
            peft_adapter.save(model, tmp_path / str(seed))
            return {name: layer.shira_indices["default"].clone() for name, layer in adapted_layers(model).items()}

    first, same, other = places(0), places(0), places(1)
    queries = [name for name in first if name.endswith("q_proj")]
    assert all(torch.equal(first[name], same[name]) for name in first)
    assert not any(torch.equal(first[name], other[name]) for name in first)
    assert not torch.equal(first[queries[0]], first[queries[1]])
    with peft_adapter.borrowed(loaded, tmp_path / "1") as model:
        assert all(torch.equal(layer.shira_indices["default"], other[name]) for name, layer in adapted_layers(model).items())


# ---------------------------------------------------------------------- refusals


@pytest.mark.parametrize(
    ("lora", "expected"),
    [
        ({"method": "oft", "block_size": 48}, "48 does not divide the 128 inputs of .*; 32 or 64 would"),
        ({"method": "shira", "rank": 65}, "has fewer weights than shira of rank 65; 64 at most"),
    ],
)
def test_adapter_that_does_not_fit_a_layer_is_refused(loaded, lora, expected):
    with pytest.raises(InputError, match=expected), peft_adapter.adapted(loaded, Lora(**lora), 0):
        pass
