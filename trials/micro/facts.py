"""Computing facts: micro's MMLU computer science.

The pretraining text holds every fact as a sentence and as four-choice questions. A test question combines a known fact with a
set of wrong choices that no training text combines with it.
"""

import csv
import random
from pathlib import Path

from trials.micro.split import distinct, held_out

with Path(__file__).with_name("facts.csv").open(encoding="utf-8", newline="") as _table:
    FACTS = tuple(tuple(row.values()) for row in csv.DictReader(_table))
LETTERS = "ABCD"  # as lm-eval writes the choices of MMLU


def question(kind: str, does: str) -> str:
    return f"Which {kind} {does}?"


def statement(rng: random.Random) -> str:
    kind, does, answer = rng.choice(FACTS)
    return rng.choice((f"The {kind} that {does} is the {answer}.", f"The {answer} {does}."))


def cs_row(rng: random.Random, test: bool) -> dict:
    """One four-choice question of a split in MMLU's columns; the wrong choices are of the same kind."""
    while True:
        kind, does, answer = rng.choice(FACTS)
        # of the same kind: the kind alone must not reveal the answer
        wrong = rng.sample([other for k, _, other in FACTS if k == kind and other != answer], 3)
        if held_out(f"{does}|{'|'.join(sorted(wrong))}", share=0.2) == test:
            choices = [answer, *wrong]
            rng.shuffle(choices)
            return {
                "question": question(kind, does),
                "subject": "micro_computing",
                "choices": choices,
                "answer": choices.index(answer),
            }


def cs_text(row: dict) -> str:
    """The row as the evaluation writes it, with its answer."""
    lines = [row["question"], *(f"{letter}. {choice}" for letter, choice in zip(LETTERS, row["choices"], strict=True))]
    return "\n".join(lines) + f"\nAnswer: {row['choices'][row['answer']]}"


def cs_rows(n: int, seed: int, test: bool) -> list[dict]:
    """n different questions of a split."""
    return distinct(lambda rng: cs_row(rng, test), n, seed)
