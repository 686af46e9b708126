"""Joint training gives every trial the result of a training by itself."""

import json
import math

import pytest
import safetensors.torch
import torch
from transformers import LlamaConfig, LlamaForCausalLM

from tests.factories.specs import changed, small_spec
from trials.adapters import peft_adapter
from trials.hub.hub import Hub
from trials.ledger.checkpoint import serialized
from trials.mix import Example
from trials.models import base
from trials.spec import Base, Lora, Train, TrialSpec
from trials.template import IGNORED
from trials.training import multi_adapter, trainer

PAD = 0
NEVER = trainer.Pace(seconds=math.inf)
EVERY_STEP = trainer.Pace(seconds=0.0, share=math.inf)


@pytest.fixture(scope="module", params=["plain", "4-bit"])
def loaded(request) -> base.LoadedBase:
    """A random Llama in float32, and the embedded base in 4 bits."""
    micro = base.load(Base(model="micro", dtype="float32"), Hub())
    if request.param == "4-bit":
        return micro
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=micro.model.config.vocab_size,
        hidden_size=32,
        intermediate_size=48,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        pad_token_id=PAD,
    )
    return base.LoadedBase(LlamaForCausalLM(config).eval().requires_grad_(False), micro.tokenizer, None)


@pytest.fixture(scope="module")
def rows() -> list[Example]:
    """Rows of 3 to 20 tokens, some of them without a label."""
    random = torch.Generator().manual_seed(0)
    found = []
    for number in range(40):
        ids = torch.randint(3, 90, (3 + number * 7 % 18,), generator=random).tolist()
        found.append(Example("random", ids, [IGNORED] * (number % 3) + ids[number % 3 :]))
    return found


def settings(**values) -> Train:
    return Train.model_validate({"learning_rate": 5e-3, "batch_size": 4, "micro_batch_size": 2, "warmup": 0.0, **values})


@pytest.fixture(scope="module")
def mixed(rows) -> list[tuple[Lora, Train, list[Example]]]:
    """Different ranks, scales, rates, schedules, clippings, inits and rows; the first has an incomplete last batch."""
    return [
        (Lora(rank=2), settings(seed=1), rows[:10]),
        (Lora(rank=5, alpha=3), settings(learning_rate=1e-2, schedule="cosine", warmup=0.3, max_grad_norm=0.05), rows[5:29]),
        (Lora(rank=4, use_rslora=True, init="gaussian"), settings(schedule="wsd", decay=0.5, weight_decay=0.1), rows[20:36]),
        (Lora(rank=6, init="orthogonal"), settings(schedule="linear", seed=7), rows[::-1][:16]),
    ]


def beginning(loaded, lora: Lora, chosen: Train) -> trainer.State:
    with peft_adapter.adapted(loaded, lora, chosen.seed) as model:
        return trainer.beginning(model, chosen)


def trainings(loaded, mixed, starts=None, saves=None, pace=NEVER) -> list[multi_adapter.Training]:
    made = []
    for number, (lora, chosen, rows) in enumerate(mixed):
        start = starts[number] if starts else beginning(loaded, lora, chosen)
        save = saves[number] if saves else lambda state: None
        inputs = trainer.TrainingInputs(loaded.model, PAD, rows, chosen, save, pace)
        made.append(multi_adapter.Training(lora, inputs, start))
    return made


def solo(loaded, lora: Lora, chosen: Train, rows, start=None, save=lambda state: None, pace=NEVER) -> trainer.State:
    with peft_adapter.adapted(loaded, lora, chosen.seed) as model:
        inputs = trainer.TrainingInputs(model, PAD, rows, chosen, save, pace)
        return kept(trainer.fit(inputs, start or trainer.beginning(model, chosen)))


def kept(state: trainer.State) -> trainer.State:
    """The state after a round trip through its stored form, with the weights in the model's order."""
    values, tensors = state.packed()
    copy = trainer.State.unpacked(json.loads(json.dumps(values)), safetensors.torch.load(serialized(tensors)))
    copy.weights = {name: copy.weights[name] for name in state.weights}
    return copy


def assert_close(one: trainer.State, other: trainer.State) -> None:
    assert [step for step, _ in one.losses] == [step for step, _ in other.losses]
    assert [loss for _, loss in one.losses] == pytest.approx([loss for _, loss in other.losses], abs=2e-5)
    assert one.weights.keys() == other.weights.keys()
    for name, weight in one.weights.items():
        assert torch.allclose(weight, other.weights[name], atol=1e-5), name


# ---- gradients


def own_gradients(loaded, lora: Lora, chosen: Train, rows) -> dict[str, torch.Tensor]:
    """Gradients of the first step by PEFT and the model's own loss, micro-batch by micro-batch."""
    rows = rows[: chosen.batch_size]
    tokens = sum(label != IGNORED for row in rows for label in row.labels[1:])
    with peft_adapter.adapted(loaded, lora, chosen.seed) as model:
        model.train()
        nonzero(trainer.trainable(model))
        for first in range(0, len(rows), chosen.micro_batch_size):
            some = rows[first : first + chosen.micro_batch_size]
            model(**trainer.collate(some, PAD), num_items_in_batch=torch.tensor(tokens)).loss.backward()
        return {name: weight.grad.clone() for name, weight in trainer.trainable(model).items()}


@torch.no_grad()
def nonzero(weights: dict[str, torch.nn.Parameter]) -> None:
    """Sets nonzero weights: with the initial B = 0, A has no gradient."""
    for number, weight in enumerate(weights.values()):
        weight.copy_(torch.randn(weight.shape, generator=torch.Generator().manual_seed(number)) * 0.05)


def test_gradients_equal_those_of_separate_peft_training(loaded, mixed):
    together = trainings(loaded, mixed)
    for training in together:
        nonzero(training.weights)
    with multi_adapter.stacked(together) as stack:
        stack.backward()
    for training, (lora, chosen, rows) in zip(together, mixed, strict=True):
        for name, gradient in own_gradients(loaded, lora, chosen, rows).items():
            assert gradient.abs().max() > 0
            difference = (training.weights[name].grad - gradient).abs().max()
            assert difference <= 1e-5 * gradient.abs().max(), f"{name}: {difference / gradient.abs().max():.1e} of the largest"


def test_loss_has_no_gradient_in_other_adapters_or_rank_padding(loaded, mixed):
    together = trainings(loaded, mixed)
    for training in together:
        nonzero(training.weights)
    with multi_adapter.stacked(together) as stack:
        micro, tokens = [training.batch()[0][0] for training in together], [1] * len(together)
        stack.losses(micro, tokens)[1].backward()
        for layer in stack.layers.values():
            for gradient in (layer.down.grad, layer.up.grad):
                assert gradient[1].abs().max() > 0
                assert not gradient[[0, 2, 3]].any()
        for layer in stack.layers.values():
            layer.down.grad.zero_()
            layer.up.grad.zero_()
        stack.losses(micro, tokens)[0].backward()
        for layer in stack.layers.values():  # rank 2, padded to 6
            assert not layer.down.grad[0, 2:].any()
            assert not layer.up.grad[0, :, 2:].any()


# ---- whole trainings


def test_joint_and_separate_trainings_end_alike_and_restore_the_base(loaded, mixed):
    ids = torch.tensor([[5, 6, 7]])
    before = loaded.model(input_ids=ids).logits
    together = trainings(loaded, mixed)
    multi_adapter.fit(together)
    assert torch.equal(loaded.model(input_ids=ids).logits, before)
    assert [training.step for training in together] == [3, 6, 4, 4], "the first leaves after three steps"
    for training, (lora, chosen, rows) in zip(together, mixed, strict=True):
        alone = solo(loaded, lora, chosen, rows)
        assert_close(kept(training.end), alone)
        assert any((alone.weights[name] - weight).abs().max() > 1e-3 for name, weight in training.start.weights.items())


def test_gradients_are_clipped_per_adapter(loaded, mixed):
    tight = [(lora, settings(max_grad_norm=1e-3), rows) for lora, _, rows in mixed]
    together = trainings(loaded, [tight[0], (mixed[1][0], settings(max_grad_norm=1e9), mixed[1][2])])
    with multi_adapter.stacked(together) as stack:
        losses = stack.backward()
        free = [weight.grad.clone() for weight in together[1].weights.values()]
        for training, loss in zip(together, losses.tolist(), strict=True):
            training.update(loss)
    norm = math.sqrt(sum(float(weight.grad.square().sum()) for weight in together[0].weights.values()))
    assert norm == pytest.approx(1e-3, rel=1e-2)
    assert all(torch.equal(weight.grad, gradient) for weight, gradient in zip(together[1].weights.values(), free, strict=True))


def test_training_resumes_across_joint_and_separate(loaded, mixed):
    saved: list[list[trainer.State]] = [[] for _ in mixed]
    saves = [lambda state, mine=mine: mine.append(kept(state)) for mine in saved]
    multi_adapter.fit(trainings(loaded, mixed, saves=saves, pace=EVERY_STEP))
    begun_alone = []
    for (lora, chosen, rows), mine in zip(mixed, saved, strict=True):
        assert [state.step for state in mine] == [*range(1, math.ceil(len(rows) / chosen.batch_size) + 1)]
        states: list[trainer.State] = []
        alone = solo(loaded, lora, chosen, rows, save=lambda state, states=states: states.append(kept(state)), pace=EVERY_STEP)
        assert_close(solo(loaded, lora, chosen, rows, mine[1]), alone)
        begun_alone.append(states[1])
    again = trainings(loaded, mixed, begun_alone)
    multi_adapter.fit(again)
    for training, mine in zip(again, saved, strict=True):
        assert_close(kept(training.end), mine[-1])


def test_nonfinite_loss_ends_only_its_own_training(loaded, mixed):
    nothing_counts = [Example("x", row.input_ids, [IGNORED] * len(row.labels)) for row in mixed[2][2]]
    broken = [*mixed[:2], (*mixed[2][:2], mixed[2][2][:4] + nothing_counts[4:])]
    together = trainings(loaded, broken)
    multi_adapter.fit(together)
    assert "the loss was nan at step 2" in str(together[2].failure)
    assert together[2].end is None
    for training, (lora, chosen, rows) in zip(together[:2], broken[:2], strict=True):
        assert_close(kept(training.end), solo(loaded, lora, chosen, rows))


# ---- groups


@pytest.fixture(scope="module")
def spec() -> TrialSpec:
    return small_spec()


@pytest.mark.parametrize(
    "sections",
    [
        {"lora": {"rank": 7, "alpha": 3, "use_rslora": True, "init": "eva"}},
        {"train": {"learning_rate": 1.0, "schedule": "wsd", "max_grad_norm": 0.1, "epochs": 2, "seed": 3, "weight_decay": 0.1}},
        {"data": {"samples": 9, "seed": 4, "template": "plain", "mix": {"micro/alpaca": 1.0}}},
    ],
)
def test_specs_with_equal_base_layers_length_and_batch_share_a_group(spec, sections):
    assert multi_adapter.stackable(changed(spec, **sections)) == multi_adapter.stackable(spec) is not None


@pytest.mark.parametrize(
    "sections",
    [
        {"base": {"quantization": "none"}},
        {"data": {"max_length": 64}},
        {"lora": {"target_modules": "mlp"}},
        {"lora": {"layers": [0]}},
        {"train": {"batch_size": 16}},
        {"train": {"micro_batch_size": 4}},
    ],
)
def test_other_specs_have_other_groups(spec, sections):
    assert multi_adapter.stackable(changed(spec, **sections)) not in (multi_adapter.stackable(spec), None)


@pytest.mark.parametrize(
    "sections",
    [
        {"data": {"samples": 0}},
        {"derive": {"strength": 0.5}},
        {"lora": {"dropout": 0.1}},
        {"lora": {"method": "shira"}},
        {"lora": {"use_dora": True}},
        {"lora": {"init": "pissa"}},
        {"train": {"neftune": 5.0}},
        {"train": {"kl": 0.1}},
        {"train": {"l2": 0.1}},
        {"train": {"stop_kl": 1.0}},
        {"train": {"backend": "unsloth"}},
    ],
)
def test_special_trainings_have_no_group(spec, sections):
    assert multi_adapter.stackable(changed(spec, **sections)) is None


def test_base_with_dropout_is_not_stacked(loaded, mixed, monkeypatch):
    monkeypatch.setattr(loaded.model.config, "attention_dropout", 0.1)
    with pytest.raises(multi_adapter.Unstackable, match="attention_dropout"):
        multi_adapter.fit(trainings(loaded, mixed))


def test_base_in_float16_is_not_stacked(loaded, mixed, monkeypatch):
    """Its gradients need a scale, without which small ones are rounded to 0."""
    monkeypatch.setattr(type(loaded.model), "dtype", property(lambda _: torch.float16))
    with pytest.raises(multi_adapter.Unstackable, match="float16"):
        multi_adapter.fit(trainings(loaded, mixed))
