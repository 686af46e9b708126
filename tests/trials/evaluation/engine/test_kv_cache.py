"""A past that grows in place holds what transformers' own would hold, whatever rows leave, join or are cut off."""

import pytest
import torch
from transformers import LlamaConfig
from transformers.cache_utils import DynamicLayer

from trials.evaluation.engine import kv_cache


def states(rows: int, positions: int, seed: int) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    keys, values = torch.randn(2, rows, positions, 3, 4, generator=generator)
    return keys.transpose(1, 2), values.transpose(1, 2)  # as a model's heads are laid out


class Both:
    """The layer beside transformers' own."""

    def __init__(self) -> None:
        self.ours, self.stock = kv_cache.Growing(), DynamicLayer()

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
def test_rows_that_stay_are_those_and_go_on(chosen):
    both = Both()
    both.update(*states(5, 7, 0))
    both.update(*states(5, 1, 1))
    both.keep(chosen)
    both.update(*states(len(chosen), 1, 2))
    both.keep([0])
    both.update(*states(1, 2, 3))


def test_what_was_cut_off_is_written_over():
    both = Both()
    both.update(*states(2, 5, 0))
    both.update(*states(2, 3, 1))
    for one in (both.ours, both.stock):
        one.crop(-3)
    both.check()
    both.update(*states(2, 1, 2))
    both.update(*states(2, 200, 3))  # more than there is room for
    both.update(*states(2, 1, 4))


def test_a_beginning_that_is_lent_to_several_rows_is_not_written_to():
    both = Both()
    both.update(*states(1, 5, 0))
    both.update(*states(1, 1, 1))
    lent = both.ours.keys.clone()
    for one in (both.ours, both.stock):
        one.batch_repeat_interleave(3)
    both.update(*states(3, 1, 2))
    assert torch.equal(both.ours.keys[:, :, :6], lent.expand(3, -1, -1, -1))


def test_steps_do_not_copy_what_is_there():
    layer = kv_cache.Growing()
    layer.update(*states(2, 5, 0))
    layer.update(*states(2, 1, 1))
    where = layer.keys.data_ptr()
    for seed in range(20):
        layer.update(*states(2, 1, seed))
    layer.keep([1])
    layer.keep([0])
    assert layer.keys.data_ptr() == where
    assert layer.get_seq_length() == 26


def test_every_layer_of_a_model_has_one():
    config = LlamaConfig(num_hidden_layers=3)
    assert [type(layer) for layer in kv_cache.Past(config).layers] == [kv_cache.Growing] * 3
