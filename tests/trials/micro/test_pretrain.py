"""Pretraining: seeded, and free of test documents."""

import itertools
import re

import pytest
import torch

from tests.factories.micro_rows import micro_rows
from trials.micro import pretrain


def test_variants_differ_in_corpus_or_seed():
    found = [(variant.shares, variant.seed) for variant in pretrain.VARIANTS.values()]
    assert len(set(found)) == len(found)
    assert {pretrain.SHARES, pretrain.WORDS} == {shares for shares, _ in found}
    assert sum(pretrain.SHARES) == pytest.approx(1)
    assert sum(pretrain.WORDS) == pytest.approx(1)
    many, few = (
        sum("Question:" in text for text in itertools.islice(pretrain.documents(0, shares), 4_000)) / 4_000
        for shares in (pretrain.SHARES, pretrain.WORDS)
    )
    assert many == pytest.approx(0.32, abs=0.03)
    assert few == pytest.approx(0.08, abs=0.02)


def test_pretraining_text_holds_no_test_document():
    text = set(itertools.islice(pretrain.documents(seed=0), 20_000))
    stories = {f"{row['ctx']} {row['endings'][int(row['label'])]}" for row in micro_rows()["swag/test"].to_dict("records")}
    assert not stories & text
    questions = set(micro_rows()["gsm8k/test"]["question"])
    assert not any(
        question in document
        for document in text
        for question in re.findall(r"Question: (.*)\n", document)
        if question in questions
    )


def test_pretraining_is_seeded():
    tokenizer = pretrain.train_tokenizer()
    first, second = (pretrain.new_model(tokenizer, seed=0) for _ in range(2))
    assert all(torch.equal(a, b) for a, b in zip(first.parameters(), second.parameters(), strict=True))
    assert 1_000_000 <= first.num_parameters() <= 3_000_000
    one, other = (next(pretrain.batches(tokenizer, seed=3)) for _ in range(2))
    assert torch.equal(one, other)
    assert tokenizer.decode(tokenizer("Zoë ate 12 €!")["input_ids"]) == "Zoë ate 12 €!"
