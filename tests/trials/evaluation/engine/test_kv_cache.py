"""The cache holds what transformers' own would hold, whatever rows leave or join, and never changes a shared beginning."""

import pytest
import torch
from transformers import LlamaConfig, LlamaForCausalLM
from transformers.cache_utils import DynamicLayer

from tests.factories.models import SIZES
from trials.evaluation.engine.kv_cache import GrowingLayer, PrefixCache


def states(rows: int, positions: int, seed: int) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    keys, values = torch.randn(2, rows, positions, 3, 4, generator=generator)
    return keys.transpose(1, 2), values.transpose(1, 2)  # as a model's heads are laid out


class Both:
    """The layer beside transformers' own."""

    def __init__(self) -> None:
        self.ours, self.stock = GrowingLayer(), DynamicLayer()

    def update(self, *added: torch.Tensor) -> None:
        given = [one.clone() for one in added]
        for one, other in zip(self.ours.update(*added), self.stock.update(*given), strict=True):
            assert torch.equal(one, other)
        self.check()

    def keep(self, chosen: list[int]) -> None:
        self.ours.keep(chosen)
        self.stock.batch_select_indices(torch.tensor(chosen))
        self.check()

    def check(self) -> None:
        assert torch.equal(self.ours.keys, self.stock.keys)
        assert torch.equal(self.ours.values, self.stock.values)
        assert self.ours.get_seq_length() == self.stock.get_seq_length()


@pytest.mark.parametrize("chosen", [[0, 1, 2, 4], [0, 4, 2], [3, 1], [4], [2, 0, 1], [1, 2, 3]])
def test_kept_rows_are_transformers_selection_and_grow_on(chosen):
    both = Both()
    both.update(*states(5, 7, 0))
    both.update(*states(5, 1, 1))
    both.keep(chosen)
    both.update(*states(len(chosen), 1, 2))
    both.keep([0])
    both.update(*states(1, 2, 3))


def test_cropped_positions_are_overwritten():
    both = Both()
    both.update(*states(2, 5, 0))
    both.update(*states(2, 3, 1))
    for one in (both.ours, both.stock):
        one.crop(-3)
    both.check()
    both.update(*states(2, 1, 2))
    both.update(*states(2, 200, 3))  # more than there is room for
    both.update(*states(2, 1, 4))


def test_repeated_row_is_not_written_to():
    both = Both()
    both.update(*states(1, 5, 0))
    both.update(*states(1, 1, 1))
    lent = both.ours.keys.clone()
    for one in (both.ours, both.stock):
        one.batch_repeat_interleave(3)
    both.update(*states(3, 1, 2))
    assert torch.equal(both.ours.keys[:, :, :6], lent.expand(3, -1, -1, -1))


def test_steps_copy_no_earlier_positions():
    layer = GrowingLayer()
    layer.update(*states(2, 5, 0))
    layer.update(*states(2, 1, 1))
    where = layer.keys.data_ptr()
    for seed in range(20):
        layer.update(*states(2, 1, seed))
    layer.keep([1])
    layer.keep([0])
    assert layer.keys.data_ptr() == where
    assert layer.get_seq_length() == 26


def test_every_layer_grows_in_place():
    config = LlamaConfig(num_hidden_layers=3)
    assert [type(layer) for layer in PrefixCache(config).layers] == [GrowingLayer] * 3


@pytest.fixture
def model():
    torch.manual_seed(0)
    return LlamaForCausalLM(LlamaConfig(**SIZES)).eval()


@pytest.fixture
def filled(model) -> PrefixCache:
    """A cache of three rows of five tokens."""
    cache = PrefixCache(model.config)
    with torch.no_grad():
        model(torch.arange(15).reshape(3, 5), past_key_values=cache, use_cache=True)
    return cache


def test_a_copy_of_some_rows_leaves_the_cache_as_it_is(filled):
    keys = filled.layers[0].keys.clone()
    some = filled.of([2, 0])
    assert torch.equal(some.layers[0].keys, keys[[2, 0]])
    some.update(torch.zeros_like(keys[:2, :, :1]), torch.zeros_like(keys[:2, :, :1]), 0)
    assert some.get_seq_length() == 6
    assert torch.equal(filled.layers[0].keys, keys)


def test_a_beginning_is_no_part_of_the_rows_own_positions(filled):
    lent = filled.of([0]).as_beginning()
    assert (lent.shared, lent.get_seq_length()) == (5, 0)
    assert lent.emptied().beginning is lent.beginning
    assert PrefixCache(LlamaConfig(**SIZES)).as_beginning().shared == 0
