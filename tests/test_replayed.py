"""What a GPU replays of a training is the training: here its blocks run as they would be captured."""

import pytest
import torch

from tests.test_train import PAD, SETTINGS, loaded, mixed, rows  # noqa: F401  # fixtures
from trials import adapter, graphs, replayed, train
from trials.mix import Example
from trials.spec import Lora


def trained(loaded, rows: list[Example], monkeypatch, replay: bool) -> tuple[train.State, set[tuple[int, int]]]:  # noqa: F811
    shapes = set()
    run = replayed._Blocks.blocks

    def noted(self, states: torch.Tensor) -> torch.Tensor:
        shapes.add(tuple(states.shape[:2]))
        return run(self, states)

    monkeypatch.setattr(replayed._Blocks, "blocks", noted)
    with adapter.adapted(loaded, Lora(rank=4), 0) as model:
        usual = model.get_base_model().base_model.forward
        lengths = [64] * 4 if replay else []
        with replayed.replayed(model, SETTINGS.micro_batch_size, lengths):
            start = train.beginning(model, SETTINGS)
            end = train.fit(model, PAD, rows, SETTINGS, start, lambda state: None, train.Pace(seconds=float("inf")))
        assert model.get_base_model().base_model.forward == usual
        return train.State(
            end.step, end.micro_batch_size, {n: w.clone() for n, w in end.weights.items()}, losses=end.losses
        ), set(shapes)


def test_padded_blocks_without_a_mask_train_as_the_model_does(loaded, rows, monkeypatch):  # noqa: F811
    short = [Example(row.source, row.input_ids[-64 + i :], row.labels[-64 + i :]) for i, row in enumerate(rows[:28])]
    (plain, none), (other, shapes) = (trained(loaded, short, monkeypatch, replay) for replay in (False, True))
    assert none == set()
    assert shapes == {(8, 64)}  # and the last batch, of fewer rows, as usual
    for (_, one), (_, two) in zip(plain.losses, other.losses, strict=True):
        assert two == pytest.approx(one, rel=1e-4)
    for name, weight in plain.weights.items():
        assert torch.allclose(weight, other.weights[name], atol=2e-4), name


class Graph:
    """As torch.cuda.CUDAGraph: whatever it writes, it writes into the same tensors."""

    def __init__(self, replay):
        self.replay = replay


def test_gradients_of_several_replays_add_up(monkeypatch):
    weights = [torch.nn.Parameter(torch.randn(3)) for _ in range(2)] + [torch.nn.Parameter(torch.zeros(1))]
    there = object.__new__(replayed._Graphs)
    there.weights, there.states, there.out, there.gradient = weights, torch.zeros(3), torch.zeros(3), torch.zeros(3)
    there.gradients = [torch.zeros(3), torch.zeros(3), None]  # the last one has no part in it

    def backward() -> None:
        there.gradients[0].copy_(there.gradient * there.states * weights[1])
        there.gradients[1].copy_(there.gradient * there.states * weights[0])

    there.forward = Graph(lambda: there.out.copy_(there.states * weights[0].detach() * weights[1].detach()))
    there.backward = Graph(backward)
    inputs = [torch.randn(3) for _ in range(3)]
    for one in inputs:
        (replayed._replay(there, one) ** 2).sum().backward()
    found = [weight.grad for weight in weights]
    for weight in weights:
        weight.grad = None
    for one in inputs:
        ((one * weights[0] * weights[1]) ** 2).sum().backward()
    for one, weight in zip(found[:2], weights[:2], strict=True):
        assert torch.allclose(one, weight.grad)
    assert found[2] is None


def test_a_model_that_cannot_be_captured_is_tried_once_and_says_so(caplog, monkeypatch):
    monkeypatch.setattr(torch.cuda, "synchronize", lambda: None)
    model, asked = torch.nn.Linear(1, 1), []

    def fails() -> None:
        asked.append(1)
        raise RuntimeError("operation not permitted when stream is capturing")

    assert graphs.tried(model, fails) is None
    assert graphs.tried(model, fails) is None
    assert len(asked) == 1
    assert "Linear" in caplog.text
    assert "operation not permitted" in caplog.text
    other = torch.nn.Linear(1, 1)

    def full() -> None:
        raise torch.OutOfMemoryError("CUDA out of memory")

    assert graphs.tried(other, full) is None
    assert graphs.tried(other, lambda: 7) == 7  # another time there may be room


@pytest.mark.parametrize("name", ["attention_dropout", "dropout"])
def test_a_base_with_dropout_of_its_own_is_not_replayed(loaded, name, monkeypatch):  # noqa: F811
    with adapter.adapted(loaded, Lora(rank=4), 0) as model:
        monkeypatch.setattr(model.get_base_model().config, name, 0.1, raising=False)
        assert not replayed.fits(model)


@pytest.mark.parametrize(("lora", "fits"), [(Lora(rank=4), True), (Lora(rank=4, dropout=0.1), False)])
def test_nothing_random_is_replayed(loaded, lora, fits):  # noqa: F811
    with adapter.adapted(loaded, lora, 0) as model:
        assert replayed.fits(model) is fits
