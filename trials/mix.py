"""The training rows of a trial: which rows, in which order, as which tokens.

Each source is a seeded permutation of its rows. The mix takes rows from the sources in turn so that every prefix has the asked
shares as nearly as whole rows can, and the mix of 500 samples is a prefix of the mix of 2,000.
"""

import hashlib
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import jinja2
import numpy as np

from trials.errors import InputError
from trials.hub import Hub, find_source
from trials.spec import Data, Source

# Stanford Alpaca's two prompts, as its data card gives them.
_ALPACA_INPUT = (
    "Below is an instruction that describes a task, paired with an input that provides further context. "
    "Write a response that appropriately completes the request.\n\n"
    "### Instruction:\n{instruction}\n\n### Input:\n{input}\n\n### Response:\n"
)
_ALPACA = (
    "Below is an instruction that describes a task. Write a response that appropriately completes the request.\n\n"
    "### Instruction:\n{instruction}\n\n### Response:\n"
)
IGNORED = -100  # the label that the loss leaves out


@dataclass(frozen=True)
class Example:
    """One tokenised row: `labels` are the ids that the loss counts, IGNORED elsewhere; both have the same length."""

    source: str
    input_ids: list[int]
    labels: list[int]


def order_of_sources(mix: Mapping[str, float], samples: int) -> list[str]:
    """The source of each row: always the one that is furthest behind its share (ties: by name)."""
    names = sorted(name for name, share in mix.items() if share > 0)  # as the key does, which knows no order
    shares = np.array([mix[name] for name in names])
    taken = np.zeros(len(names))
    order = []
    for position in range(1, samples + 1):
        chosen = int(np.argmax(np.round(shares * position - taken, 9)))
        taken[chosen] += 1
        order.append(names[chosen])
    return order


def permutation(name: str, rows: int, seed: int) -> np.ndarray:
    """(rows,) row numbers; depends on the seed and the source's name alone, so no source moves another's rows."""
    stream = int.from_bytes(hashlib.sha256(name.encode()).digest()[:8], "big")
    return np.random.default_rng([seed, stream]).permutation(rows)


def prompt_of(instruction: str, given: str) -> str:
    return (_ALPACA_INPUT if given else _ALPACA).format(instruction=instruction, input=given)


class _Templates:
    def __init__(self, name: str, source: Source):
        self.name = name
        environment = jinja2.Environment(undefined=jinja2.StrictUndefined, autoescape=False)
        try:
            self.parts = [
                environment.from_string(text) for text in (source.instruction or "", source.input, source.response or "")
            ]
        except jinja2.TemplateSyntaxError as error:
            raise InputError(f"source {name!r}: template: {error}") from error

    def __call__(self, row: dict[str, Any]) -> tuple[str, str]:
        try:
            instruction, given, response = (part.render(row).strip() for part in self.parts)
        except jinja2.UndefinedError as error:
            raise InputError(f"source {self.name!r}: template: {error}; the columns are {', '.join(row)}") from error
        return prompt_of(instruction, given), response


def encode(prompt: str, response: str, data: Data, tokenizer: Any) -> tuple[list[int], list[int]]:
    """Token ids and labels of one row, closed by the end token and cut at data.max_length."""
    before = tokenizer(prompt)["input_ids"]
    after = [*tokenizer(response, add_special_tokens=False)["input_ids"], tokenizer.eos_token_id]
    labels = [IGNORED] * len(before) + after if data.loss_on == "response" else before + after
    return (before + after)[: data.max_length], labels[: data.max_length]


def _examples(name: str, data: Data, hub: Hub, tokenizer: Any) -> Iterator[Example]:
    definition = find_source(data, name)
    rows, templates = hub.rows(name, definition), _Templates(name, definition)
    for index in permutation(name, len(rows), data.seed):
        input_ids, labels = encode(*templates(rows[int(index)]), data, tokenizer)
        if any(label != IGNORED for label in labels):  # a prompt longer than max_length leaves nothing to learn
            yield Example(name, input_ids, labels)


def build(data: Data, hub: Hub, tokenizer: Any) -> list[Example]:
    """The rows of one epoch, replay included; raises InputError when a source has too few."""
    order = order_of_sources(data.shares, data.rows)
    streams = {name: _examples(name, data, hub, tokenizer) for name in dict.fromkeys(order)}
    examples: list[Example] = []
    for position, name in enumerate(order):
        example = next(streams[name], None)
        if example is None:
            had = sum(one.source == name for one in examples)
            raise InputError(
                f"source {name!r} has {had} usable rows, data.samples {data.samples} with a share of {data.shares[name]:g} "
                f"needs {Counter(order)[name]} (short at row {position + 1}); lower one of the two"
            )
        examples.append(example)
    return examples
