"""The training rows of a trial: nested, in their shares, as the tokens that the loss should see."""

from collections import Counter

import pytest

from trials import mix, template
from trials.errors import InputError
from trials.hub import Hub
from trials.spec import Data


class Letters:
    """A tokenizer with a token a character and 0 as its end."""

    eos_token_id = 0

    def __call__(self, text, add_special_tokens=True):
        return {"input_ids": [ord(letter) for letter in text]}


def data(**values) -> Data:
    return Data.model_validate(
        {"samples": 40, "mix": {"micro/alpaca": 0.75, "micro/gsm8k": 0.25}, "max_length": 4096, **values}
    )


def build(**values) -> list[mix.Example]:
    return mix.build(data(**values), Hub(), Letters())


def test_a_smaller_mix_is_a_prefix_of_a_larger_one():
    assert build(samples=13) == build(samples=40)[:13]


def test_every_prefix_has_the_shares_as_nearly_as_whole_rows_can():
    shares = {"a": 0.5, "b": 0.3, "c": 0.2}
    order = mix.order_of_sources(shares, 500)
    for n in range(1, 501):
        counts = Counter(order[:n])
        assert all(abs(counts[name] - n * share) <= 1 for name, share in shares.items())


def test_no_source_moves_the_rows_of_another():
    mixed = [row for row in build(samples=40) if row.source == "micro/alpaca"]
    assert mixed == build(samples=30, mix={"micro/alpaca": 1.0})


def test_another_seed_gives_other_rows_and_the_same_seed_the_same():
    assert build(seed=1) == build(seed=1) != build(seed=2)


def test_the_loss_sees_the_response_and_the_end_or_everything():
    response = build(samples=1, mix={"micro/gsm8k": 1.0})[0]
    seen = "".join(chr(label) for label in response.labels if label > 0)
    assert "####" in seen
    assert "Instruction" not in seen
    assert response.labels[-1] == Letters.eos_token_id
    everything = build(samples=1, mix={"micro/gsm8k": 1.0}, loss_on="everything")[0]
    assert everything.labels == everything.input_ids == response.input_ids


def test_a_row_whose_prompt_fills_the_length_is_passed_over():
    rows = build(samples=5, mix={"micro/alpaca": 1.0}, max_length=190)
    assert len(rows) == 5
    assert all(any(label != mix.IGNORED for label in row.labels) and len(row.input_ids) <= 190 for row in rows)


def test_the_prompt_is_alpacas():
    assert template.alpaca("Do it.", "").endswith("### Instruction:\nDo it.\n\n### Response:\n")
    assert "### Input:\nthis\n\n### Response:\n" in template.alpaca("Do it.", "this")


def test_too_few_rows_and_unknown_sources_and_columns_are_one_clear_line():
    with pytest.raises(InputError, match="has 1968 usable rows"):
        build(samples=2_100, mix={"micro/alpaca": 1.0})
    with pytest.raises(InputError, match="did you mean 'micro/alpaca'"):
        build(mix={"micro/alpacca": 1.0})
    wrong = {"dataset": "micro/gsm8k", "config": "main", "instruction": "{{querstion}}", "response": "{{answer}}"}
    with pytest.raises(InputError, match="the columns are question, answer"):
        build(mix={"mine": 1.0}, sources={"mine": wrong})
    with pytest.raises(InputError, match="has no main/trian"):
        build(mix={"mine": 1.0}, sources={"mine": {**wrong, "split": "trian"}})


def test_the_order_in_which_the_mix_is_written_does_not_matter_as_it_does_not_for_the_key():
    one, other = {"micro/alpaca": 0.5, "micro/gsm8k": 0.5}, {"micro/gsm8k": 0.5, "micro/alpaca": 0.5}
    assert build(samples=5, mix=one) == build(samples=5, mix=other)
