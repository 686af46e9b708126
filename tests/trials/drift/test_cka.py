"""How alike hidden states are: what must hold of any such measure, and on micro what no other part of a record can tell."""

import math

import pytest
import torch

from trials import mix
from trials.adapters import peft_adapter
from trials.drift import cka, heldout
from trials.hub.hub import Hub
from trials.spec import Data, Lora
from trials.training import trainer

PAD = 0


@pytest.fixture(scope="module")
def rows(loaded) -> dict[str, list[mix.Example]]:
    return mix.heldout(Data(samples=12, mix={"micro/alpaca": 1.0}), Hub(), loaded.tokenizer)


def drawn(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def test_rotation_and_scale_leave_cka_at_one():
    states, rotation = drawn(60, 8), torch.linalg.qr(drawn(8, 8, seed=1))[0]
    assert cka.alignment(states, 3 * states @ rotation) == pytest.approx(1.0, abs=1e-6)
    spread = torch.cat([states, torch.zeros(60, 1)], dim=1)
    assert cka.alignment(states, spread) == pytest.approx(1.0, abs=1e-6)


def test_independent_states_are_near_zero_with_few_tokens():
    found = [cka.alignment(drawn(40, 300, seed=2 * i), drawn(40, 300, seed=2 * i + 1)) for i in range(20)]
    assert abs(sum(found) / 20) < 0.05 and max(map(abs, found)) < 0.3


def test_independence_equals_its_definition():
    one, other = ((lambda x: x @ x.T)(drawn(7, 3, seed=seed).double()) for seed in (0, 1))
    for kernel in (one, other):
        kernel.fill_diagonal_(0.0)
    total, n = 0.0, 7
    for i in range(n):
        for j in range(n):
            for q in range(n):
                for r in range(n):
                    if len({i, j, q, r}) == 4:
                        total += float(one[i, j] * (other[i, j] + other[q, r] - 2 * other[i, q]))
    # Song et al., equation 3: over ordered quadruples of distinct indices
    assert cka.independence(one, other) == pytest.approx(total / math.perm(n, 4), abs=1e-9)


def test_training_a_block_moves_it_and_later_ones_only(loaded, rows):
    with peft_adapter.adapted(loaded, Lora(rank=4, layers=(2,)), 0) as model:
        blocks = model.config.num_hidden_layers
        same = heldout.measure(model, PAD, rows, 8).similarity["micro/alpaca"]
        assert len(same) == blocks + 1 and same == pytest.approx([1.0] * (blocks + 1), abs=1e-9)
        with torch.no_grad():
            for weight in trainer.trainable(model).values():
                weight.add_(drawn(*weight.shape, seed=7) * 0.3)
        moved = heldout.measure(model, PAD, rows, 8).similarity["micro/alpaca"]
    assert moved[:3] == pytest.approx([1.0] * 3, abs=1e-9)
    assert all(one < 0.999 for one in moved[3:])


def test_cka_ignores_batch_size_and_too_few_tokens(loaded, rows):
    with peft_adapter.adapted(loaded, Lora(rank=4), 0) as model:
        with torch.no_grad():
            for weight in trainer.trainable(model).values():
                weight.add_(drawn(*weight.shape, seed=7) * 0.3)
        one, many = (heldout.measure(model, PAD, rows, size).similarity["micro/alpaca"] for size in (1, 16))
        assert one == pytest.approx(many, abs=1e-4)
        few = {"x": [mix.Example("x", [1, 2, 3], [-100, 2, 3])], "none": []}
        assert heldout.measure(model, PAD, few, 8).similarity == {}


def test_first_tokens_of_the_first_rows_are_compared():
    rows = [mix.Example("x", [1] * 301, [-100] + [1] * 300) for _ in range(3)]
    assert cka.compared(rows) == [300, 212, 0]
    assert cka.compared([mix.Example("x", [1, 2, 3], [1, -100, 3])]) == [1]  # nothing predicts a row's first token
