"""One- and two-step word problems: micro's GSM8K.

A problem is a template with numbers. A hash of both decides its split, so no training text holds a test problem, not even with
another name or thing.
"""

import random

from trials.micro.everyday import NAMES, pronoun
from trials.micro.split import distinct, held_out

THINGS = ("apples", "coins", "books", "shells", "stamps", "marbles", "cards", "pens", "eggs", "nuts")

# name: (question after "{name} has {a} {things}.", sign of b, sign of c or None for one step, closing question)
_TEMPLATES = {
    "buys": ("{they} buys {b} more.", 1, None),
    "finds": ("{they} finds {b} {things}.", 1, None),
    "loses": ("{they} loses {b} of them.", -1, None),
    "gives": ("{they} gives {b} to {friend}.", -1, None),
    "buys, finds": ("{they} buys {b} more and finds {c}.", 1, 1),
    "buys, loses": ("{they} buys {b} more. Later {they_lower} loses {c}.", 1, -1),
    "gives, finds": ("{they} gives {b} to {friend}. Later {they_lower} finds {c}.", -1, 1),
    "loses, gives": ("{they} loses {b} and gives {c} to {friend}.", -1, -1),
}
TEMPLATES = tuple(_TEMPLATES)
LARGEST = 20  # every given number and every result lies in 1..2 * LARGEST


def is_test(template: str, numbers: tuple[int, ...]) -> bool:
    """Whether these numbers in this template belong to the test split (a fifth of them)."""
    return held_out(f"{template}|{numbers}", share=0.2)


def _numbers(template: str, rng: random.Random) -> tuple[int, ...]:
    _, first, second = _TEMPLATES[template]
    while True:
        a, b, c = (rng.randint(2, LARGEST), rng.randint(1, 9), rng.randint(1, 9))
        middle = a + first * b
        last = middle if second is None else middle + second * c
        if middle > 0 and last > 0:
            return (a, b) if second is None else (a, b, c)


def problem(rng: random.Random, test: bool) -> dict:
    """One problem of a split in GSM8K's columns: question, and an answer whose last line is `#### number`."""
    while True:
        template = rng.choice(TEMPLATES)
        numbers = _numbers(template, rng)
        if is_test(template, numbers) == test:
            return render(template, numbers, rng)


def render(template: str, numbers: tuple[int, ...], rng: random.Random) -> dict:
    text, first, second = _TEMPLATES[template]
    name, friend = rng.sample(NAMES, 2)
    they, things = pronoun(name), rng.choice(THINGS)
    a, b, *rest = numbers
    event = text.format(they=they, they_lower=they.lower(), friend=friend, things=things, b=b, c=rest[0] if rest else "")
    result = a + first * b
    steps = [f"{a} {'+' if first > 0 else '-'} {b} = {result}."]
    if second is not None:
        steps.append(f"{result} {'+' if second > 0 else '-'} {rest[0]} = {result + second * rest[0]}.")
        result += second * rest[0]
    return {
        "question": f"{name} has {a} {things}. {event} How many {things} does {name} have now?",
        "answer": "\n".join([*steps, f"#### {result}"]),
    }


def problems(n: int, seed: int, test: bool) -> list[dict]:
    """n different problems of a split."""
    return distinct(lambda rng: problem(rng, test), n, seed)
