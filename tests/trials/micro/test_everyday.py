"""Everyday situations: no shortcut to the right ending, and no test document in the instructions."""

import re

import pandas as pd

from tests.factories.micro_rows import micro_rows
from trials.micro.everyday import third_person
from trials.template import alpaca


def words(text: str) -> list[str]:
    return re.findall(r"[a-z0-9#+=-]+", text.lower())


def grams(texts, n: int = 13) -> set[tuple[str, ...]]:
    return {tuple(tokens[i : i + n]) for tokens in map(words, texts) for i in range(len(tokens) - n + 1)}


def test_instructions_share_no_13_gram_with_tests():
    rows = micro_rows()
    tests = [f"{row['ctx']} {row['endings'][int(row['label'])]}" for row in rows["swag/test"].to_dict("records")]
    tests += [f"{row['question']} {row['answer']}" for row in rows["gsm8k/test"].to_dict("records")]
    training = [alpaca(row["instruction"], row["input"]) + row["output"] for row in rows["alpaca/train"].to_dict("records")]
    assert not grams(tests) & grams(training)


def test_length_does_not_reveal_the_ending():
    frame = micro_rows()["swag/test"]
    longest = [max(range(4), key=lambda i, e=endings: len(e[i])) for endings in frame["endings"]]
    assert abs((pd.Series(longest) == frame["label"].astype(int).to_numpy()).mean() - 0.25) < 0.1


def test_third_person_follows_the_spelling_rules():
    assert [third_person(action) for action in ("wash the car", "fry an egg", "play chess", "sew")] == [
        "washes the car",
        "fries an egg",
        "plays chess",
        "sews",
    ]
