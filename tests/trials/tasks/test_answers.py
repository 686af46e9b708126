"""Scores of responses agree with plain scorers that are written another way."""

import random
from decimal import Decimal, InvalidOperation

import pytest

from trials.tasks import answers

WORDS = ("Paris", "paris", "the", "sum", "is", "12", "1,200", "-7", "3.50", "$9", "(4)", "7.", "a", "Rome", "=")


def drawn(seed: int) -> tuple[str, str]:
    """An answer, and a response that has something to do with it."""
    random_ = random.Random(seed)
    answer = " ".join(random_.choices(WORDS, k=random_.randint(1, 2)))
    parts = [*random_.choices(WORDS, k=random_.randint(0, 4)), *random_.choices([answer, answer.upper(), ""], k=1)]
    random_.shuffle(parts)
    return answer, random_.choice(["", " ", "\n"]).join(["", " ".join(parts), ""])


def plain_number(text: str) -> Decimal | None:
    """The last word that is a number."""
    last = None
    for word in text.split():
        word = word.strip("()").replace("$", "").replace(",", "").removesuffix(".")
        try:
            last = Decimal(word)
        except InvalidOperation:
            continue
    return last


def test_scores_agree_with_plain_scorers():
    seen = set()
    for seed in range(600):
        answer, response = drawn(seed)
        doc = {"answer": answer}
        expected = {
            "exact": " ".join(response.split()) == " ".join(answer.split()),
            "contains": answer.lower() in response.lower(),
            "numeric": plain_number(response) is not None and plain_number(response) == plain_number(answer),
        }
        found = answers.exact(doc, [response]) | answers.contains(doc, [response]) | answers.numeric(doc, [response])
        assert found == expected, (answer, response)
        seen |= set(found.items())
    assert len(seen) == 6, "each score is 0 for some and 1 for others"


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("It is 12.", 12),
        ("$1,234.50", "1234.50"),
        ("from 3-5", 5),
        ("x = -7", -7),
        ("\N{MINUS SIGN}4", -4),
        ("5 or .5", "0.5"),
        ("about 1e3", 1000),
        ("12% of it", 12),
        ("none", None),
    ],
)
def test_number_is_the_last_one(text, expected):
    assert answers.number(text) == (None if expected is None else Decimal(str(expected)))
