"""Continuations that share their context share rows of bounded length."""

import pytest
from lm_eval.models.huggingface import HFLM

from tests.factories.requests import fast, instances
from trials.evaluation.engine import loglikelihood


def test_requests_of_one_context_are_rows_of_bounded_length(micro):
    texts = [("", f"Tom has {number} apples and buys {number % 7} more.") for number in range(300)]
    widths = []

    def seen(_, positional: tuple, named: dict) -> None:
        widths.append((positional[0] if positional else named["input_ids"]).shape[1])

    hook = micro.model.register_forward_pre_hook(seen, with_kwargs=True)
    try:
        found = fast(micro.model, micro.tokenizer, 16).loglikelihood(instances("loglikelihood", texts))
    finally:
        hook.remove()
    assert max(widths) <= 260
    stock = HFLM(pretrained=micro.model, tokenizer=micro.tokenizer, batch_size=1)
    some = stock.loglikelihood(instances("loglikelihood", texts[::50]))
    assert [nats for nats, _ in found[::50]] == pytest.approx([nats for nats, _ in some], abs=1e-4)


def test_parts_cover_all_endings_within_the_models_length():
    found = list(loglikelihood.parts(50, [30] * 10, 120))
    assert [number for part in found for number in part] == list(range(10))
    assert {len(part) for part in found} == {2}
    assert list(loglikelihood.parts(50, [300], 120)) == [[0]]  # a single ending is a row however long
