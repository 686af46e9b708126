"""An adapter starts as its initialisation defines, and leaves the base unchanged."""

import pytest
import torch
from peft.tuners.lora import LoraLayer

from tests.factories.adapters import CONVERTED, INITS, close, logits, trained
from trials.adapters import derived, peft_adapter
from trials.adapters import init as initial
from trials.adapters.low_rank import factors
from trials.errors import InputError
from trials.hub.hub import Hub
from trials.models import base
from trials.spec import Lora, TrialSpec


@pytest.mark.parametrize("init", INITS)
def test_every_init_starts_as_the_base_and_is_reproducible(loaded, rows, init):
    before = logits(loaded.model)
    began = []
    for seed in (0, 0, 1):
        with peft_adapter.adapted(loaded, Lora(rank=4, init=init, use_rslora=True), seed, rows) as model:
            at_start = logits(model)
            began.append(factors(model))
            names = [name for name, weight in model.named_parameters() if weight.requires_grad]
            assert names
            assert all(".default." in name for name in names)
            with model.disable_adapter():
                assert torch.equal(logits(model), before)
            derived.strengthen(model, 0.0)
            assert torch.equal(logits(model), before), "strength 0 is the base to the bit"
        if init == "loftq":
            assert not close(at_start, before, 1e-3)
        elif init == "orthogonal":  # B A is zero up to rounding
            assert close(at_start, before, 1e-5)
        else:
            assert torch.equal(at_start, before)
        assert torch.equal(logits(loaded.model), before)
    one, again, other = (torch.cat([part.flatten() for pair in found.values() for part in pair]) for found in began)
    assert torch.equal(one, again)
    assert torch.equal(one, other) == (init in ("eva", "olora", "corda")), "those that draw nothing"


@pytest.mark.parametrize("init", ["default", "eva", "orthogonal"])
def test_dora_starts_as_the_base_up_to_rounding(loaded, rows, init):
    before = logits(loaded.model)
    with peft_adapter.adapted(loaded, Lora(rank=4, init=init, use_dora=True, target_modules="all-linear"), 0, rows) as model:
        assert any("magnitude" in name for name, weight in model.named_parameters() if weight.requires_grad)
        assert close(logits(model), before, 1e-5)
    assert torch.equal(logits(loaded.model), before)


def test_initial_factors_of_a_converted_adapter_are_frozen(loaded, rows, spec):
    with peft_adapter.adapted(loaded, Lora(rank=4, init="pissa"), 0, rows) as model:
        began = {name: (down[4:].clone(), up[:, 4:].clone()) for name, (down, up) in factors(model).items()}
        with model.disable_adapter():  # on exit PEFT requires gradients of all active adapters
            pass
        trained(model, loaded, rows, spec)
        for name, (down, up) in factors(model).items():
            assert torch.equal(down[4:], began[name][0])
            assert torch.equal(up[:, 4:], began[name][1])
            assert not torch.equal(down[:4], down[4:])


@pytest.mark.parametrize("init", CONVERTED)
def test_converted_init_starts_from_a_part_of_the_weight(loaded, rows, init):
    with peft_adapter.adapted(loaded, Lora(rank=4, alpha=6, init=init, target_modules="mlp"), 0, rows) as model:
        for module in model.modules():
            if isinstance(module, LoraLayer):
                weight = initial.dense(module)
                part = module.scaling["default"] * module.lora_B["default"].weight @ module.lora_A["default"].weight
                if init == "pissa":
                    smallest = torch.linalg.svdvals(weight)[4:].norm()
                    assert (weight - part).norm() <= 1.001 * smallest
                    assert torch.linalg.matrix_rank(part, rtol=1e-4) == 4
                elif init == "olora":
                    q, r = torch.linalg.qr(weight)
                    assert close(part, module.scaling["default"] * q[:, :4] @ r[:4])
                else:  # it carries far less of the rows' covariance than the leading part
                    assert torch.linalg.matrix_rank(part, rtol=1e-4) == 4
                    assert part.norm() < 0.5 * weight.norm()


def test_corda_starts_where_the_rows_lose_least(loaded, rows):
    """Removing corda's component hardly changes the outputs on the rows; removing pissa's does."""
    lost = {}
    for init in ("corda", "pissa"):
        with peft_adapter.adapted(loaded, Lora(rank=16, init=init, target_modules=("up_proj",), layers=(1,)), 0, rows) as model:
            (module,) = (module for module in model.modules() if isinstance(module, LoraLayer))
            (covariance,) = initial._covariances(model, [module], rows).values()
            part = module.scaling["default"] * module.lora_B["default"].weight @ module.lora_A["default"].weight
            lost[init] = float(torch.trace(part @ covariance @ part.T))
    assert lost["corda"] < 1e-2 * lost["pissa"]


def test_eva_starts_with_the_main_directions_at_the_given_rank(loaded, rows):
    with peft_adapter.adapted(loaded, Lora(rank=4, init="eva"), 0, rows) as model:
        found = factors(model)
        assert {len(down) for down, _ in found.values()} == {4}
        assert len(found) == 12
        for down, up in found.values():
            assert torch.allclose(down @ down.T, torch.eye(4), atol=1e-4), "orthonormal rows"
            assert not up.any()


def test_loftq_starts_nearer_to_the_unquantised_base(loaded, spec):
    whole = base.load(spec.base.model_copy(update={"quantization": "none"}), Hub())
    wanted, quantised = logits(whole.model), logits(loaded.model)
    with peft_adapter.adapted(loaded, Lora(rank=32, init="loftq", target_modules="all-linear"), 0) as model:
        assert (logits(model) - wanted).norm() < 0.9 * (quantised - wanted).norm()
    with (
        pytest.raises(InputError, match=r"base\.quantization is none"),
        peft_adapter.adapted(whole, Lora(init="loftq"), 0),
    ):
        pass
    assert torch.equal(logits(whole.model), wanted)


@pytest.mark.parametrize(
    ("lora", "rows_given", "expected"),
    [
        (Lora(init="pissa", rank=200), True, "200 is more than lora.init pissa finds in a layer of 128 x 128"),
        (Lora(init="eva"), False, "there are none"),
        (Lora(init="eva", rank=128), True, "no 128 stable directions"),
        (Lora(layers=(1, 4)), True, "the base has 4 blocks, 0 to 3, but got 1, 4"),
        (Lora(target_modules=("nowhere",)), True, "the base has no nowhere"),
    ],
)
def test_impossible_init_is_refused_and_restores_the_base(loaded, rows, lora, rows_given, expected, monkeypatch):
    monkeypatch.setattr(initial, "_EVA_PASSES", 2)
    before = logits(loaded.model)
    with pytest.raises(InputError, match=expected), peft_adapter.adapted(loaded, lora, 0, rows[:8] if rows_given else ()):
        pass
    assert not any(isinstance(module, LoraLayer) or module._forward_hooks for module in loaded.model.modules())
    assert torch.equal(logits(loaded.model), before)


@pytest.mark.parametrize(
    ("lora", "expected"),
    [
        ({"init": "pissa", "use_dora": True}, "choose one of the two"),
        ({"init": "orthogonal", "rank": 3}, "even rank"),
    ],
)
def test_incompatible_settings_are_refused(lora, expected):
    with pytest.raises(ValueError, match=expected):
        Lora.model_validate(lora)


@pytest.mark.parametrize("change", [{"quantization": "none"}, {"gguf": "model.gguf"}])
def test_loftq_needs_a_quantisation_of_known_weights(spec, change):
    parts = spec.model_dump(mode="json")
    parts["lora"]["init"] = "loftq"
    TrialSpec.model_validate(parts)
    parts["base"] |= change
    with pytest.raises(ValueError, match="loftq"):
        TrialSpec.model_validate(parts)
