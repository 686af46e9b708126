"""Which documents of a benchmark are answered, and its two halves: the search sees one, the report quotes the other.

A document's half depends on the document only, not on a sample, a seed or a model.
"""

import hashlib
import re
from collections.abc import Mapping
from typing import Any

import numpy as np

from trials.ledger.outcomes import REPORT, SEARCH, Half
from trials.spec import Evaluation

# The beginning of a WikiHow context in HellaSwag. Copies without source_id may lack the markers in brackets.
_ARTICLE = re.compile(r"(?:\[header\] )?How to [^.\[]*")


def cluster(doc: Mapping[str, Any], doc_hash: str) -> str:
    """A label that is equal for documents that reveal each other's answers.

    HellaSwag's documents of a video or article share a source_id, and a context often contains the gold ending of the previous
    one. Without that field, the label is a WikiHow article's title or an ActivityNet activity (one a video). A document of any
    other benchmark is its own cluster, by its hash.
    """
    if doc.get("source_id") and "ctx" in doc:  # in other data sets the field may mean something else
        return str(doc["source_id"])
    if {"activity_label", "ctx"} <= doc.keys():
        article = _ARTICLE.match(str(doc["ctx"]))
        return article.group().strip() if article else str(doc["activity_label"])
    return doc_hash


def half(doc: Mapping[str, Any], doc_hash: str) -> Half:
    """The half of the document's cluster, by its hash: about one in two is in each."""
    return REPORT if hashlib.sha256(cluster(doc, doc_hash).encode()).digest()[0] % 2 else SEARCH


def sample(sizes: Mapping[str, int], documents: int | None, seed: int) -> dict[str, list[int]]:
    """Sorted document numbers by task: a seeded sample of all tasks' documents. A smaller sample is part of a larger one."""
    everything = [(task, index) for task, size in sizes.items() for index in range(size)]
    if documents is not None:
        order = np.random.default_rng(seed).permutation(len(everything))
        everything = [everything[i] for i in order[:documents]]
    chosen: dict[str, list[int]] = {}
    for task, index in sorted(everything):  # lm-eval reads documents in ascending order, their numbers in the list's
        chosen.setdefault(task, []).append(index)
    return chosen


def document_numbers(evaluation: Evaluation, built: Mapping[str, Any]) -> dict[str, list[int]]:
    """Sorted numbers of a role's documents by task."""
    return sample({name: len(task.eval_docs) for name, task in built.items()}, evaluation.documents, evaluation.seed)
