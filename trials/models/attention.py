"""Lends a model an attention of our own, by the name under which transformers knows it."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, TypeVar

Reads = TypeVar("Reads")


@contextmanager
def lent(model: Any, name: str, active: list[Reads], reads: Reads) -> Iterator[None]:
    """Within the context the model attends by the attention of this name, which reads the last element of `active`.

    transformers passes an attention the queries, keys and values of its rows alone. `reads` is what it has to know besides.
    """
    usual = model.config._attn_implementation
    model.config._attn_implementation = name
    active.append(reads)
    try:
        yield
    finally:
        active.pop()
        model.config._attn_implementation = usual
