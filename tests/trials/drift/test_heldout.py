"""How far a model is from its base, measured against a computation of its own and against what must hold of any measure."""

import pytest
import torch

from trials import mix
from trials.adapters import peft_adapter
from trials.data.batching import collate
from trials.drift import heldout, kl
from trials.hub.hub import Hub
from trials.spec import Data, Lora
from trials.template import IGNORED
from trials.training import trainer

PAD = 0


@pytest.fixture(scope="module")
def rows(loaded) -> dict[str, list[mix.Example]]:
    data = Data(samples=12, mix={"micro/alpaca": 0.5, "micro/gsm8k": 0.5})
    found: dict[str, list[mix.Example]] = {}
    for row in mix.build(data, Hub(), loaded.tokenizer):
        found.setdefault(row.source, []).append(row)
    return found


def moved(model, size: float = 0.3) -> None:
    """An adapter that has been trained, as far as one can see."""
    generator = torch.Generator().manual_seed(7)
    with torch.no_grad():
        for weight in trainer.trainable(model).values():
            weight.add_(torch.randn(weight.shape, generator=generator) * size)


@pytest.mark.parametrize("lora", [Lora(rank=4), Lora(rank=4, use_dora=True), Lora(rank=4, dropout=0.3)], ids=str)
def test_untrained_adapter_has_no_drift(loaded, rows, lora):
    with peft_adapter.adapted(loaded, lora, 0) as model:
        found = heldout.measure(model, PAD, rows, 4).learning
    assert set(found) == set(rows)
    for one in found.values():
        if lora.use_dora:  # its magnitude is a norm of the weights, divided by the same norm computed again
            assert one["kl"] == pytest.approx(0, abs=1e-7)
            assert one["reverse_kl"] == pytest.approx(0, abs=1e-7)
        else:
            assert (one["kl"], one["reverse_kl"], one["loss"]) == (0.0, 0.0, one["base_loss"])


def test_losses_and_divergences_equal_their_definition(loaded, rows):
    with peft_adapter.adapted(loaded, Lora(rank=4), 0) as model:
        moved(model)
        found = heldout.measure(model, PAD, rows, 4).learning
        for source, examples in rows.items():
            sums = torch.zeros(5, dtype=torch.float64)
            for row in examples:  # one by one, so that padding cannot matter
                ids = torch.tensor([row.input_ids])
                with torch.no_grad():
                    tuned = model(input_ids=ids).logits[0].double().softmax(-1)
                    with model.disable_adapter():
                        alone = model(input_ids=ids).logits[0].double().softmax(-1)
                for place, label in enumerate(row.labels[1:]):
                    if label != IGNORED:
                        p, q = alone[place], tuned[place]
                        parts = (1.0, -q[label].log(), -p[label].log(), (p * (p / q).log()).sum(), (q * (q / p).log()).sum())
                        sums += torch.tensor(parts, dtype=torch.float64)
            names = ("loss", "base_loss", "kl", "reverse_kl")
            expected = dict(zip(names, (sums[1:] / sums[0]).tolist(), strict=True))
            assert found[source].pop("tokens") == sums[0]
            assert found[source] == pytest.approx(expected, rel=1e-4)
            assert expected["kl"] > 1e-3


def test_base_runs_once_for_the_same_rows_with_equal_numbers(loaded, rows):
    passes = []
    hook = loaded.model.model.register_forward_hook(lambda *_: passes.append(1))
    found = []
    try:
        for again in (True, False, True):
            if again:
                kl._of_base.clear()
            with peft_adapter.adapted(loaded, Lora(rank=4), 1) as model:  # another adapter each time, which is the same
                moved(model)
                found.append((heldout.measure(model, PAD, rows, 4), len(passes)))
            passes.clear()
    finally:
        hook.remove()
    assert [one for one, _ in found[1:]] == [found[0][0]] * 2
    assert [count for _, count in found] == [8, 4, 8]


def test_logits_changed_after_the_head_are_not_cached(loaded, rows, monkeypatch):
    forward = loaded.model.forward

    def capped(*given, **named):
        out = forward(*given, **named)
        out.logits = 30.0 * torch.tanh(out.logits / 30.0)
        return out

    monkeypatch.setattr(loaded.model, "forward", capped)
    kl._of_base.clear()
    with peft_adapter.adapted(loaded, Lora(rank=4), 0) as model:
        once, twice = (heldout.measure(model, PAD, rows, 4).learning for _ in range(2))
        assert once == twice
        assert all(one["kl"] == 0.0 for one in once.values())  # nothing is trained: both sides are capped
    kl._of_base.clear()


def test_batch_size_changes_drift_by_rounding_only(loaded, rows):
    with peft_adapter.adapted(loaded, Lora(rank=4), 0) as model:
        moved(model)
        one, many = (heldout.measure(model, PAD, rows, size).learning for size in (1, 12))
    for source in rows:
        assert one[source] == pytest.approx(many[source], rel=1e-4)


@pytest.mark.parametrize("training", [True, False])
def test_measuring_changes_no_state_of_the_model(loaded, rows, training):
    with peft_adapter.adapted(loaded, Lora(rank=4, dropout=0.5), 0) as model:
        moved(model)
        frozen = next(weight for name, weight in model.named_parameters() if "lora_A" in name)
        frozen.requires_grad_(False)  # as a second, frozen adapter is; PEFT would thaw it
        model.train(training)
        model(**collate(rows["micro/alpaca"][:2], PAD)).loss.backward()
        before = torch.get_rng_state()
        gradients = {name: weight.grad.clone() for name, weight in trainer.trainable(model).items()}
        heldout.measure(model, PAD, rows, 4)
        assert model.training is training
        assert all(module.training is training for module in model.modules())
        assert torch.equal(torch.get_rng_state(), before)
        assert not frozen.requires_grad
        after = {name: weight.grad for name, weight in trainer.trainable(model).items()}
        assert gradients.keys() == after.keys()
        assert all(torch.equal(gradients[name], after[name]) for name in gradients)


def test_rows_that_are_done_are_counted_over_all_sources(loaded, rows):
    done: list[int] = []
    with peft_adapter.adapted(loaded, Lora(rank=4), 0) as model:
        heldout.measure(model, PAD, rows, 4, done.append)
    assert done == sorted(done) and done[-1] == sum(map(len, rows.values()))
    assert len(done) > len(rows) > 0
