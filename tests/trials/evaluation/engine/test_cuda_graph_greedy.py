"""Decoding in slots chooses the tokens that decoding with a past that grows does."""

import pytest
import torch
from transformers import GPT2Config, GPT2LMHeadModel

from tests.factories.models import prompts
from trials.evaluation.engine import cuda_graph_greedy
from trials.evaluation.engine import greedy as decode


def decoded(greedy, model, rows: list[decode.Row], batch: int) -> list[decode.Row]:
    with torch.no_grad():
        greedy(model, rows, 12, batch, lambda tokens: tokens[-1] % 7 == 0)
    return rows


@pytest.mark.parametrize("columns", [1, 7, 256])
@pytest.mark.parametrize("batch", [1, 3, 8, 64])
@pytest.mark.parametrize("shared", [True, False], ids=["few-shot rows shared", "nothing shared"])
def test_tokens_are_greedys(model, batch, shared, columns, monkeypatch):
    monkeypatch.setattr(cuda_graph_greedy, "_COLUMNS", columns)

    def rows() -> list[decode.Row]:
        begin = [] if shared else [[3 + i] for i in range(len(prompts()))]
        given = [[*(begin[i] if begin else []), *prompt] for i, prompt in enumerate(prompts())]
        return [decode.Row(prompt, gold=[3, 1, 4][: 1 + i % 3]) for i, prompt in enumerate(given)]

    found = zip(
        decoded(cuda_graph_greedy.greedy, model, rows(), batch), decoded(decode.greedy, model, rows(), batch), strict=True
    )
    for one, other in found:
        assert (one.generated, one.stopped) == (other.generated, other.stopped)
        assert one.gold_nats == pytest.approx(other.gold_nats, abs=1e-5)


def test_no_rows_are_no_work(model):
    cuda_graph_greedy.greedy(model, [], 12, 4, lambda tokens: True)


def test_positions_stay_within_the_longest_row_and_memory_is_freed(monkeypatch):
    torch.manual_seed(0)
    most, given = 12, prompts()
    limit = max(map(len, given)) + most  # which the model's learnt positions end at
    small = {"n_embd": 32, "n_layer": 2, "n_head": 4, "vocab_size": 97, "n_positions": limit}
    gpt = GPT2LMHeadModel(GPT2Config(**small)).eval()
    made = []
    monkeypatch.setattr(
        cuda_graph_greedy.Slots,
        "put",
        lambda self, *given, usual=cuda_graph_greedy.Slots.put: made.append(self) or usual(self, *given),
    )
    rows = [decode.Row(prompt) for prompt in given]
    with torch.no_grad():
        cuda_graph_greedy.greedy(gpt, rows, most, 4, lambda tokens: len(tokens) % 5 == 0)
    assert {len(row.generated) for row in rows} == {5}
    assert all(not one.cache.layers and not one._graphs for one in made)


def test_one_long_prompt_makes_no_room_for_itself_in_every_slot(model, monkeypatch):
    made, usual = [], cuda_graph_greedy.Slots.__init__
    monkeypatch.setattr(
        cuda_graph_greedy.Slots,
        "__init__",
        lambda self, *given: usual(self, *given) or made.append((len(self.numbers), self.width)),
    )
    short = [[3 + i, 5, 7] for i in range(6)]
    prompts = [short[0], [9] * 120, *short[1:]]
    found = decoded(cuda_graph_greedy.greedy, model, [decode.Row(prompt) for prompt in prompts], 8)
    assert made == [(1, 144), (6, 16)]
    alone = [decoded(decode.greedy, model, [decode.Row(prompt)], 8)[0] for prompt in prompts]
    assert [row.generated for row in found] == [row.generated for row in alone]
