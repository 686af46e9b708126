"""Loss and penalties follow their formulas for every micro-batch size."""

import tempfile

import pytest
import torch
from pydantic import ValidationError

from tests.factories.configs import CONFIG, deep
from tests.factories.training import PAD, PENALTIES, SETTINGS, WEIGHTS, changed, fitted
from trials.adapters import peft_adapter
from trials.adapters.low_rank import factors
from trials.data.batching import collate
from trials.drift import heldout as heldout_drift
from trials.hub.hub import Hub
from trials.models import base
from trials.spec import Base, Lora, TrialSpec
from trials.template import IGNORED
from trials.training import loss as objective
from trials.training import trainer

NEVER = trainer.Pace(seconds=float("inf"))


def test_without_penalties_adapter_equals_the_trainers_and_head_sees_counted_tokens(loaded, rows, monkeypatch):
    seen: list[int] = []
    head = loaded.model.get_output_embeddings()
    hook = head.register_forward_hook(lambda _, given, out: seen.append(given[0].shape[:-1].numel()))
    ours, _ = fitted(loaded, rows, SETTINGS, Lora(rank=4, dropout=0.2))
    hook.remove()
    assert sum(seen) == sum(label != IGNORED for row in rows for label in row.labels[1:])
    monkeypatch.delattr(objective.Regularised, "compute_loss")
    theirs, _ = fitted(loaded, rows, SETTINGS, Lora(rank=4, dropout=0.2))
    assert all(torch.equal(weight, theirs.weights[name]) for name, weight in ours.weights.items())
    assert [loss for _, loss in ours.losses] == pytest.approx([loss for _, loss in theirs.losses], rel=1e-6)
    assert ours.penalties == {}


@pytest.mark.parametrize(
    "values", [*(pytest.param(one, marks=pytest.mark.slow) for one in [*PENALTIES[:2], *WEIGHTS]), PENALTIES[2]], ids=str
)
def test_micro_batch_size_changes_the_result_by_rounding_only(loaded, rows, values):
    whole, _ = fitted(loaded, rows[:30], changed(**values))
    plain, _ = fitted(loaded, rows[:30], SETTINGS)
    for micro_batch_size in (4, 1):
        cut, _ = fitted(loaded, rows[:30], changed(**values, micro_batch_size=micro_batch_size))
        assert [loss for _, loss in cut.losses] == pytest.approx([loss for _, loss in whole.losses], rel=1e-4)
        assert cut.penalties == pytest.approx(whole.penalties, rel=1e-3)
        for name, weight in whole.weights.items():
            moved = (weight - plain.weights[name]).abs().max()
            assert (weight - cut.weights[name]).abs().max() < 0.02 * moved, "rounding is small beside what the penalty does"


def test_penalties_pull_towards_the_base_and_are_recorded(loaded, rows, heldout):
    def distance(values) -> tuple[float, float, trainer.State]:
        with peft_adapter.adapted(loaded, Lora(rank=4), 0) as model:
            settings = changed(**values, batch_size=4, micro_batch_size=4)
            inputs = trainer.TrainingInputs(model, PAD, rows, settings, lambda _: None, NEVER)
            end = trainer.fit(inputs, trainer.beginning(model, settings))
            kl = heldout_drift.learning(model, PAD, heldout, 8)["kl"]
            return kl, float(objective.squared_update(model).detach()), end

    free, kept, small = (distance(values) for values in ({}, {"kl": 3.0}, {"l2": 1.0}))
    assert kept[0] < 0.7 * free[0]
    assert small[1] < 0.3 * free[1]
    summary = trainer.summary(rows, kept[2], changed(kl=3.0))
    assert 0 < summary["final_kl"] < summary["final_loss"]
    assert "stopped_early" not in summary
    # without an update there is no penalty
    assert kept[2].losses[0][1] == pytest.approx(free[2].losses[0][1], rel=1e-6)


def test_kl_penalty_sees_the_base_without_noise_and_draws_no_random_number(loaded, rows):
    lora = Lora(rank=4, dropout=0.2)
    without, _ = fitted(loaded, rows, changed(neftune=5.0), lora)
    hardly, _ = fitted(loaded, rows, changed(neftune=5.0, kl=1e-12), lora)
    assert [loss for _, loss in hardly.losses] == pytest.approx([loss for _, loss in without.losses], rel=1e-6)
    assert hardly.penalties["kl"] > 0


def test_kl_in_the_loss_equals_the_measured_kl(loaded, rows):
    """In one step with a learning rate of almost 0, the penalty is kl x the KL per counted token."""
    with peft_adapter.adapted(loaded, Lora(rank=4), 0) as model:
        generator = torch.Generator().manual_seed(7)
        with torch.no_grad():
            for weight in trainer.trainable(model).values():
                weight.add_(torch.randn(weight.shape, generator=generator) * 0.3)
        settings = changed(kl=0.25, learning_rate=1e-12, micro_batch_size=4)
        inputs = trainer.TrainingInputs(model, PAD, rows[:8], settings, lambda _: None, NEVER)
        end = trainer.fit(inputs, trainer.beginning(model, settings))
        found = heldout_drift.learning(model, PAD, rows[:8], 8)
    assert end.penalties["kl"] == pytest.approx(0.25 * found["kl"], rel=1e-4)
    assert end.losses[0][1] == pytest.approx(found["loss"] + 0.25 * found["kl"], rel=1e-4)


@pytest.mark.parametrize(
    "lora",
    [Lora(rank=4), Lora(rank=4, use_rslora=True, alpha=3, target_modules="all-linear"), Lora(method="full")],
    ids=str,
)
def test_squared_update_and_its_gradient_equal_the_dense_ones(loaded, lora):
    with peft_adapter.adapted(loaded, lora, 0) as model:
        generator = torch.Generator().manual_seed(7)
        with torch.no_grad():
            for weight in trainer.trainable(model).values():
                weight.add_(torch.randn(weight.shape, generator=generator) * 0.1)
        weights = list(trainer.trainable(model).values())
        by_gram = objective.squared_update(model)
        dense = sum(((b.double() @ a.double()) ** 2).sum() for a, b in factors(model).values())
        assert float(by_gram.detach()) == pytest.approx(float(dense.detach()), rel=1e-5)
        for one, other in zip(torch.autograd.grad(by_gram, weights), torch.autograd.grad(dense, weights), strict=True):
            assert torch.allclose(one, other, rtol=1e-4, atol=1e-5)


def test_dora_excludes_l2_but_not_kl(loaded, rows):
    parts = deep(CONFIG)
    parts = {name: parts[name] for name in TrialSpec.model_fields if name in parts}
    parts["lora"]["use_dora"] = True
    parts["train"]["l2"] = 0.1
    with pytest.raises(ValidationError, match=r"train\.l2 is the size of B @ A"):
        TrialSpec.model_validate(parts)
    end, _ = fitted(loaded, rows[:8], changed(kl=1.0), Lora(rank=4, use_dora=True))
    assert "kl" in end.penalties


@pytest.mark.parametrize("values", [*PENALTIES, {"neftune": 5.0}], ids=str)
def test_nonfinite_loss_ends_a_training_with_penalties(loaded, rows, values):
    with pytest.raises(trainer.NonFiniteLoss):
        fitted(loaded, rows, changed(**values, learning_rate=1000, max_grad_norm=1e9))


@pytest.mark.parametrize("values", WEIGHTS, ids=str)
def test_weighted_loss_is_that_of_its_formula(loaded, rows, values):
    """The first step's loss, from the model's plain logits."""
    few = rows[:8]
    end, _ = fitted(loaded, few, changed(**{**values, "kl": 0.0, "l2": 0.0}))
    total, counted = 0.0, 0
    for row in few:
        with torch.no_grad():
            logits = loaded.model(input_ids=torch.tensor([row.input_ids])).logits[0].float()
        for place, label in enumerate(row.labels[1:]):
            if label == IGNORED:
                continue
            chances = torch.softmax(logits[place], dim=-1)
            top = torch.softmax(logits[place].topk(20).values, dim=-1)
            weight = {  # an adapter without a step is the base
                "dft": chances[label],
                "eaft": -(top * top.log()).sum() / torch.tensor(20.0).log(),
                "masked": (1 / chances[label] <= 4.0).float(),
            }[values["loss"]]
            total, counted = total - float(weight * chances[label].log()), counted + 1
    assert end.losses[0][1] == pytest.approx(total / counted, rel=1e-3)


def test_the_three_weights_learn_differently(loaded, rows):
    ends = [fitted(loaded, rows, changed(loss=name))[0] for name in ("nll", "dft", "eaft", "masked")]
    weights = [torch.cat([end.weights[name].flatten() for name in sorted(end.weights)]) for end in ends]
    for i, one in enumerate(weights):
        assert not any(torch.allclose(one, other, rtol=1e-3) for other in weights[:i])


def test_gradients_in_float16_are_those_of_a_small_batch_however_large_it_is(rows):
    half = base.load(Base(model="micro", dtype="float16"), Hub())

    def gradient(tokens: int) -> torch.Tensor:
        with peft_adapter.adapted(half, Lora(rank=4), 0) as model, tempfile.TemporaryDirectory() as folder:
            made = objective.Regularised(model=model, args=trainer.arguments(SETTINGS, 8, folder), settings=SETTINGS)
            with made.scaled():
                made.compute_loss(model.train(), collate(rows[:8], PAD), num_items_in_batch=torch.tensor(tokens)).backward()
            assert not any(weight._backward_hooks for weight in model.parameters())
            return torch.cat([weight.grad.flatten() for weight in trainer.trainable(model).values()]) * tokens

    small, large = gradient(256), gradient(2**18)
    assert torch.cosine_similarity(small, large, dim=0) > 0.99999
    assert (small - large).norm() < 1e-3 * small.norm()
