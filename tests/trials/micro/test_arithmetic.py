"""Word problems: correct answers, and splits that share no problem."""

import re

from tests.factories.micro_rows import micro_rows
from trials.micro import arithmetic


def test_splits_share_no_problem_and_no_numbers():
    assert not set(micro_rows()["gsm8k/train"]["question"]) & set(micro_rows()["gsm8k/test"]["question"])
    pattern = re.compile(r"\d+")

    def identity(question: str) -> tuple:
        verbs = tuple(re.findall(r"buys|finds|loses|gives", question))
        return verbs, tuple(pattern.findall(question))

    train, test = ({identity(q) for q in micro_rows()[f"gsm8k/{split}"]["question"]} for split in ("train", "test"))
    assert not train & test


def test_answers_are_correct():
    for row in micro_rows()["gsm8k/test"].to_dict("records"):
        for left, right in re.findall(r"([\d +-]+) = (\d+)\.", row["answer"]):
            assert eval(left) == int(right)
        assert row["answer"].endswith(f"#### {re.findall(r'= ([0-9]+)[.]', row['answer'])[-1]}")


def test_splits_are_disjoint_by_construction():
    train = {row["question"] for row in arithmetic.problems(300, seed=1, test=False)}
    test = {row["question"] for row in arithmetic.problems(300, seed=1, test=True)}
    assert not train & test
