"""A replayed training equals the usual one. Here the blocks run as they would be captured, without a GPU."""

import functools

import pytest
import torch
from transformers import MixtralConfig, MixtralForCausalLM

from tests.factories.training import PAD, SETTINGS
from tests.fuzz import miniatures
from trials.adapters import lora as adapter
from trials.mix import Example
from trials.models import base
from trials.spec import Lora
from trials.training import graphed_blocks, trainer


def trained(
    loaded, rows: list[Example], monkeypatch, replay: bool, packed: bool = False
) -> tuple[trainer.State, set[tuple[int, int]]]:
    shapes = set()

    def noted(self, states: torch.Tensor, given) -> torch.Tensor:
        shapes.add(tuple(states.shape[:2]))
        assert (given is not None) is packed
        return self.blocks(states, given)

    def uncaptured(self, some: list[tuple[int, int]], longest: int) -> None:
        self.ready = {shape: functools.partial(noted, self) for shape in some}

    monkeypatch.setattr(graphed_blocks._Blocks, "prepare", uncaptured)
    with adapter.adapted(loaded, Lora(rank=4), 0) as model:
        usual = model.get_base_model().base_model.forward
        lengths = [len(row.input_ids) for row in rows]
        full = [lengths[i : i + 8] for i in range(0, len(rows) - 7, 8)] if replay else []
        with graphed_blocks.replayed(model, full * 2, packed):
            start = trainer.beginning(model, SETTINGS)
            never = trainer.Pace(seconds=float("inf"))
            end = trainer.fit(
                trainer.TrainingInputs(model, PAD, rows, SETTINGS, lambda state: None, never, packed=packed), start
            )
        assert model.get_base_model().base_model.forward == usual
        return trainer.State(
            end.step, end.micro_batch_size, {n: w.clone() for n, w in end.weights.items()}, losses=end.losses
        ), set(shapes)


@pytest.mark.parametrize("packed", [False, True])
def test_replayed_blocks_without_a_mask_train_like_the_model(loaded, rows, monkeypatch, packed):
    short = [Example(row.source, row.input_ids[-64 + i :], row.labels[-64 + i :]) for i, row in enumerate(rows[:28])]
    plain, none = trained(loaded, short, monkeypatch, replay=False)
    other, shapes = trained(loaded, short, monkeypatch, replay=True, packed=packed)
    assert none == set()
    # the last batch has fewer rows; padded, it is not replayed, and its packed size occurs too rarely
    assert shapes == ({(1, 512)} if packed else {(8, 64)})
    for (_, one), (_, two) in zip(plain.losses, other.losses, strict=True):
        assert two == pytest.approx(one, rel=1e-4)
    for name, weight in plain.weights.items():
        assert torch.allclose(weight, other.weights[name], atol=2e-4), name


class Graph:
    """Like torch.cuda.CUDAGraph, it always writes into the same tensors."""

    def __init__(self, replay):
        self.replay = replay


@pytest.fixture
def graphs():
    """Graphs of the product of the states and two weights; a third weight is unused."""
    weights = [torch.nn.Parameter(torch.randn(3)) for _ in range(2)] + [torch.nn.Parameter(torch.zeros(1))]
    there = object.__new__(graphed_blocks._Graphs)
    there.weights, there.states, there.out, there.gradient = weights, torch.zeros(3), torch.zeros(3), torch.zeros(3)
    there.gradients = [torch.zeros(3), torch.zeros(3), None]

    def backward() -> None:
        there.gradients[0].copy_(there.gradient * there.states * weights[1])
        there.gradients[1].copy_(there.gradient * there.states * weights[0])

    there.forward = Graph(lambda: there.out.copy_(there.states * weights[0].detach() * weights[1].detach()))
    there.backward = Graph(backward)
    return there


def test_gradients_of_several_replays_add_up(graphs):
    weights = graphs.weights
    inputs = [torch.randn(3) for _ in range(3)]
    for one in inputs:
        (graphed_blocks._replay(graphs, one, None) ** 2).sum().backward()
    found = [weight.grad for weight in weights]
    for weight in weights:
        weight.grad = None
    for one in inputs:
        ((one * weights[0] * weights[1]) ** 2).sum().backward()
    for one, weight in zip(found[:2], weights[:2], strict=True):
        assert torch.allclose(one, weight.grad)
    assert found[2] is None


def test_output_of_a_replay_outlives_the_next_one(graphs):
    first = graphed_blocks._replay(graphs, torch.ones(3), None)
    before = first.detach().clone()
    first.sum().backward()
    graphed_blocks._replay(graphs, torch.zeros(3), None).sum().backward()
    assert torch.equal(first, before)


def test_replay_before_the_last_ones_backward_pass_is_refused(graphs):
    graphed_blocks._replay(graphs, torch.ones(3), None)
    with pytest.raises(RuntimeError, match="before the backward pass"):
        graphed_blocks._replay(graphs, torch.ones(3), None)


def test_mixture_of_experts_returns_its_own_output_class():
    torch.manual_seed(0)
    sizes = {"vocab_size": 97, "hidden_size": 32, "intermediate_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4}
    experts = MixtralForCausalLM(
        MixtralConfig(**sizes, num_key_value_heads=2, num_local_experts=4, sliding_window=None)
    ).train()
    ids = torch.randint(1, 97, (2, 30))
    usual = experts(input_ids=ids).logits
    blocks = graphed_blocks._Blocks(experts, False, 2)
    blocks.ready = {(2, 64): blocks.blocks}
    experts.model.forward = blocks.forward
    assert torch.allclose(experts(input_ids=ids).logits, usual, atol=1e-5)


@pytest.mark.parametrize("name", ["attention_dropout", "dropout"])
def test_base_with_dropout_is_not_replayed(loaded, name, monkeypatch):
    with adapter.adapted(loaded, Lora(rank=4), 0) as model:
        monkeypatch.setattr(model.get_base_model().config, name, 0.1, raising=False)
        assert not graphed_blocks.fits(model, False)


def test_unused_dropout_setting_does_not_prevent_replay():
    pythia = miniatures.miniature("gpt_neox", classifier_dropout=0.1)
    assert base.dropouts(pythia) == []
    assert base.dropouts(miniatures.miniature("gpt_neox", hidden_dropout=0.1)) == ["hidden_dropout"]


@pytest.mark.parametrize(("lora", "fits"), [(Lora(rank=4), True), (Lora(rank=4, dropout=0.1), False)])
def test_adapter_with_dropout_is_not_replayed(loaded, lora, fits):
    with adapter.adapted(loaded, lora, 0) as model:
        assert graphed_blocks.fits(model, False) is fits
