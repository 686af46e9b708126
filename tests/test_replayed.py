"""What a GPU replays of a training is the training: here its blocks run as they would be captured."""

import pytest
import torch

from tests.test_train import PAD, SETTINGS, loaded, mixed, rows  # noqa: F401  # fixtures
from trials import adapter, replayed, train
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


@pytest.mark.parametrize(("lora", "fits"), [(Lora(rank=4), True), (Lora(rank=4, dropout=0.1), False)])
def test_nothing_random_is_replayed(loaded, lora, fits):  # noqa: F811
    with adapter.adapted(loaded, lora, 0) as model:
        assert replayed.fits(model) is fits
