"""A replayed training equals the usual one. Here the blocks run as they would be captured, without a GPU."""

import functools
from dataclasses import replace
from itertools import pairwise
from types import SimpleNamespace

import pytest
import torch
from transformers import MixtralConfig, MixtralForCausalLM

from tests.factories.training import PAD, SETTINGS, fitted
from tests.fuzz import miniatures
from trials.adapters import peft_adapter
from trials.mix import Example
from trials.models import base
from trials.spec import Lora
from trials.training import graphed_blocks, packing, trainer


def trained(
    loaded, rows: list[Example], monkeypatch, replay: bool, packed: bool = False
) -> tuple[trainer.State, set[tuple[int, int]]]:
    shapes = set()

    def noted(self, states: torch.Tensor, given) -> torch.Tensor:
        shapes.add(tuple(states.shape[:2]))
        return self.blocks(states, given)

    def uncaptured(self, some: list[tuple[int, int]], longest: int) -> None:
        self.ready = {shape: functools.partial(noted, self) for shape in some}

    monkeypatch.setattr(graphed_blocks._Blocks, "prepare", uncaptured)
    with peft_adapter.adapted(loaded, Lora(rank=4), 0) as model:
        usual = model.get_base_model().base_model.forward
        lengths = [len(row.input_ids) for row in rows]
        passes = [lengths[i : i + 8] for i in range(0, len(rows), 8)] if replay else []
        with graphed_blocks.replayed(model, passes * 2, packed=False):
            start = trainer.beginning(model, SETTINGS)
            never = trainer.Pace(seconds=float("inf"))
            end = trainer.fit(trainer.TrainingInputs(model, PAD, rows, SETTINGS, lambda state: None, never), start)
        assert model.get_base_model().base_model.forward == usual
        return trainer.State(
            end.step, end.micro_batch_size, {n: w.clone() for n, w in end.weights.items()}, losses=end.losses
        ), set(shapes)


def test_padded_blocks_without_a_mask_train_like_the_model(loaded, rows, monkeypatch):
    short = [Example(row.source, row.input_ids[-64 + i :], row.labels[-64 + i :]) for i, row in enumerate(rows[:28])]
    plain, none = trained(loaded, short, monkeypatch, replay=False)
    other, shapes = trained(loaded, short, monkeypatch, replay=True)
    assert none == set()
    assert shapes == {(8, 64)}  # the last batch has fewer rows and is not replayed
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
    there.owner, there.given = SimpleNamespace(waiting=False), None
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
    with peft_adapter.adapted(loaded, Lora(rank=4), 0) as model:
        monkeypatch.setattr(model.get_base_model().config, name, 0.1, raising=False)
        assert not graphed_blocks.fits(model, False)


def test_unused_dropout_setting_does_not_prevent_replay():
    pythia = miniatures.miniature("gpt_neox", classifier_dropout=0.1)
    assert base.dropouts(pythia) == []
    assert base.dropouts(miniatures.miniature("gpt_neox", hidden_dropout=0.1)) == ["hidden_dropout"]


@pytest.mark.parametrize(
    ("lora", "fits"),
    [
        (Lora(rank=4), True),
        (Lora(method="full"), True),
        (Lora(rank=4, dropout=0.1), False),
        (Lora(method="oft"), False),
        (Lora(method="shira"), False),
    ],
)
def test_adapter_with_dropout_or_without_a_plain_pass_is_not_replayed(loaded, lora, fits):
    with peft_adapter.adapted(loaded, lora, 0) as model:
        assert graphed_blocks.fits(model, False) is fits


def test_checkpointed_blocks_are_not_replayed(loaded):
    """As Unsloth's are: their backward pass runs the forward one again."""
    with peft_adapter.adapted(loaded, Lora(rank=4), 0) as model:
        assert graphed_blocks.fits(model, False)
        model.gradient_checkpointing_enable()
        try:
            assert not graphed_blocks.fits(model, False)
        finally:
            model.gradient_checkpointing_disable()


# ---- packed passes with fixed addresses, as a GPU runs them


def by_starts(query, key, value, starts, _, longest, __, scale=None, window_size=(-1, -1), enable_gqa=False):
    """Like varlen_attn: rows are where `starts` says, and what lies beyond `longest` in a row is never computed."""
    assert window_size == (-1, 0)
    found = torch.full_like(query, float("nan"))
    usual = torch.nn.functional.scaled_dot_product_attention
    for first, last in pairwise(starts.tolist()):
        last = min(last, first + longest)
        if last > first:
            q, k, v = (one[first:last].transpose(0, 1)[None] for one in (query, key, value))
            found[first:last] = usual(q, k, v, is_causal=True, scale=scale, enable_gqa=enable_gqa)[0].transpose(0, 1)
    return found


def without_groups(query, key, value, starts, _, longest, __, scale=None, window_size=(-1, -1)):
    assert query.shape == key.shape == value.shape
    return by_starts(query, key, value, starts, _, longest, __, scale, window_size)


class Rerun:
    """Like a captured graph: it reads its inputs and writes its outputs at fixed addresses, by running the blocks again."""

    def __init__(self, graphs, blocks):
        self.graphs, self.blocks = graphs, blocks
        graphs.out = torch.zeros_like(graphs.states)
        graphs.gradients = [torch.zeros_like(weight) for weight in graphs.weights]
        graphs.forward = SimpleNamespace(replay=self.forward, pool=lambda: None)
        graphs.backward = SimpleNamespace(replay=self.backward)

    def forward(self) -> None:
        self.graphs.out.copy_(self.blocks.blocks(self.graphs.states, self.graphs.given).detach())

    @torch.enable_grad()
    def backward(self) -> None:
        found = self.graphs._back(self.blocks.blocks(self.graphs.states, self.graphs.given))
        for kept, one in zip(self.graphs.gradients, found, strict=True):
            kept.copy_(torch.zeros_like(kept) if one is None else one)


@pytest.fixture
def like_a_gpu(monkeypatch):
    """The shapes that were captured."""
    shapes = []

    def capture(self, blocks, pool) -> bool:
        shapes.append(tuple(self.states.shape[:2]))
        return bool(Rerun(self, blocks))

    def tried(core, run, capture):
        run()  # a warm-up
        return capture()

    monkeypatch.setattr(packing, "has_kernel", lambda device, kind: True)
    monkeypatch.setattr(packing, "varlen_attn", by_starts)
    monkeypatch.setattr(graphed_blocks._Graphs, "capture", capture)
    monkeypatch.setattr(graphed_blocks.cuda_graphs, "tried", tried)
    return shapes


def test_packed_passes_at_fixed_addresses_train_like_padded_ones(loaded, rows, like_a_gpu):
    short = [Example(row.source, row.input_ids[-20 - i % 9 :], row.labels[-20 - i % 9 :]) for i, row in enumerate(rows[:29])]
    whole = Example("x", rows[0].input_ids * 6, rows[0].labels * 6)
    given = [*short, Example("x", whole.input_ids[:300], whole.labels[:300])]  # the longest row is in the last, smaller pass
    padded, _ = fitted(loaded, given, SETTINGS)
    with peft_adapter.adapted(loaded, Lora(rank=4), 0) as model:
        lengths = [len(row.input_ids) for row in given]
        passes = [lengths[i : i + 8] for i in range(0, len(given), 8)]
        assert len(passes[-1]) < 8
        with graphed_blocks.replayed(model, passes * 4, packed=True):
            start = replace(trainer.beginning(model, SETTINGS), packed_rows=True)
            never = trainer.Pace(seconds=float("inf"))
            end = trainer.fit(trainer.TrainingInputs(model, PAD, given, SETTINGS, lambda state: None, never), start)
        assert set(like_a_gpu) == {(1, 256), (1, 512)}
        assert [loss for _, loss in end.losses] == pytest.approx([loss for _, loss in padded.losses], rel=1e-4)
        for name, weight in padded.weights.items():
            assert torch.allclose(weight, end.weights[name], atol=2e-4), name


@pytest.mark.parametrize("takes_groups", [True, False])
def test_packed_rows_with_fewer_heads_of_keys_attend_alike_in_every_torch(monkeypatch, takes_groups):
    """The kernel of an earlier torch has no option for them."""
    q, k, v = (torch.randn(1, heads, 7, 8) for heads in (4, 2, 2))
    monkeypatch.setattr(packing, "_active", [packing.Rows.of([3, 4], q.device)])
    wanted, _ = packing.attention(torch.nn.Identity(), q, k, v, None)
    monkeypatch.setattr(packing, "has_kernel", lambda device, kind: True)
    monkeypatch.setattr(packing, "_TAKES_GROUPS", takes_groups)
    monkeypatch.setattr(packing, "varlen_attn", by_starts if takes_groups else without_groups)
    found, _ = packing.attention(torch.nn.Identity(), q, k, v, None)
    assert torch.allclose(found, wanted, atol=1e-6)


def test_positions_of_a_warm_up_are_in_every_table():
    """A pass may have more tokens than the model has positions."""
    given = graphed_blocks._room(2560, 8, 300, torch.device("cpu"))
    assert given.positions.shape == (1, 2560)
    assert int(given.positions.max()) == 0
    assert given.rows.starts.tolist() == [0, 300, 600, 900, 1200, 1500, 1800, 2100, 2400, 2560]
