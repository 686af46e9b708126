"""Worlds for tests: rows."""

import json

from trials import mix
from trials.hub.hub import Hub
from trials.spec import Data, Source


def local_source(dataset: str, **fields) -> Source:
    return Source(**({"dataset": dataset, "instruction": "{{q}}", "response": "{{a}}"} | fields))


def local_data(dataset: str, **values) -> Data:
    """Ten plain rows of a local file."""
    given = {"samples": 10, "mix": {"mine": 1.0}, "sources": {"mine": local_source(dataset)}, "template": "plain"}
    return Data.model_validate(given | values)


class Letters:
    """A tokenizer with one token a character and 0 as its end token."""

    eos_token_id = 0

    def __call__(self, text, add_special_tokens=True):
        return {"input_ids": [ord(letter) for letter in text]}


def data(**values) -> Data:
    return Data.model_validate(
        {"samples": 40, "mix": {"micro/alpaca": 0.75, "micro/gsm8k": 0.25}, "max_length": 4096, **values}
    )


ROWS = [{"q": f"question {n}", "a": f"    indented\n  answer, {n}"} for n in range(25)]
LINES = "".join(json.dumps(row) + "\n" for row in ROWS).encode()


def build(**values) -> list[mix.Example]:
    return mix.build(data(**values), Hub(), Letters())
