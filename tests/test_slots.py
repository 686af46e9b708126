"""Decoding in slots chooses the tokens that decoding with a past that grows does."""

import pytest
import torch

from tests.test_prefix import model, prompts  # noqa: F401
from trials import decode, slots


def decoded(greedy, model, rows: list[decode.Row], batch: int) -> list[decode.Row]:  # noqa: F811
    with torch.no_grad():
        greedy(model, rows, 12, batch, lambda tokens: tokens[-1] % 7 == 0)
    return rows


@pytest.mark.parametrize("batch", [1, 3, 8, 64])
@pytest.mark.parametrize("shared", [True, False], ids=["few-shot rows shared", "nothing shared"])
def test_the_tokens_are_those_of_a_past_that_grows(model, batch, shared):  # noqa: F811
    def rows() -> list[decode.Row]:
        begin = [] if shared else [[3 + i] for i in range(len(prompts()))]
        given = [[*(begin[i] if begin else []), *prompt] for i, prompt in enumerate(prompts())]
        return [decode.Row(prompt, gold=[3, 1, 4][: 1 + i % 3]) for i, prompt in enumerate(given)]

    found = zip(decoded(slots.greedy, model, rows(), batch), decoded(decode.greedy, model, rows(), batch), strict=True)
    for one, other in found:
        assert (one.generated, one.stopped) == (other.generated, other.stopped)
        assert one.gold_nats == pytest.approx(other.gold_nats, abs=1e-5)


def test_no_rows_are_no_work(model):  # noqa: F811
    slots.greedy(model, [], 12, 4, lambda tokens: True)
