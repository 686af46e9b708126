"""Decontamination: finds training rows that share 13 consecutive words (a 13-gram) with a document of an evaluated task.

Words are runs of letters and digits in lower case. A test document is its prompt and its target (the right choice in multiple
choice). All documents of a split count, so that the size of an evaluation's sample does not move the training rows. Documents
of fewer than 13 words cannot be found, nor can text without spaces between its words.
"""

import hashlib
import re
from collections.abc import Hashable, Iterable, Iterator
from dataclasses import dataclass, field
from functools import lru_cache
from typing import TYPE_CHECKING, Any
from weakref import WeakKeyDictionary

import numpy as np

from trials.errors import InputError
from trials.spec import Evaluation

if TYPE_CHECKING:
    from trials.tasks.tasks import Tasks

WORDS = 13
_WORD = re.compile(r"[^\W_]+")
# polynomial-like hash of a window: the sum of its words' hashes, each times its place's odd factor, modulo 2**64
_PLACES = np.random.default_rng(0).integers(0, 2**63, size=WORDS, dtype=np.uint64) * np.uint64(2) + np.uint64(1)


@lru_cache(maxsize=2**18)  # common words recur millions of times
def _hash(word: str) -> int:
    return int.from_bytes(hashlib.blake2b(word.encode(), digest_size=8).digest(), "big")


def grams(text: str) -> np.ndarray:
    """(windows,) uint64 hashes of the text's 13-grams; empty for a shorter text."""
    words = _WORD.findall(text.lower())
    if len(words) < WORDS:
        return np.empty(0, np.uint64)
    hashes = np.fromiter(map(_hash, words), np.uint64, len(words))
    windows = len(words) - WORDS + 1
    found = np.zeros(windows, np.uint64)
    for place, factor in enumerate(_PLACES):
        found += hashes[place : place + windows] * factor
    return found


@dataclass(frozen=True)
class Documents:
    """An index of the 13-grams of all test documents."""

    tasks: list[str]
    hashes: np.ndarray
    """(grams,) uint64, sorted."""
    owners: np.ndarray
    """(grams,) index into `tasks`."""
    judged: dict[Hashable, tuple[int, list[tuple[str, str]]]] = field(default_factory=dict)
    """By (source, version): the number of rows examined, and (task, text) of those that overlap. Cached, because the trials of
    a sweep draw from the same sources."""

    def task_of(self, text: str) -> str | None:
        """The task with a document that shares a 13-gram with the text."""
        own = grams(text)
        if not len(own) or not len(self.hashes):
            return None
        places = np.minimum(np.searchsorted(self.hashes, own), len(self.hashes) - 1)
        hits = places[self.hashes[places] == own]
        return self.tasks[self.owners[hits[0]]] if len(hits) else None


# weak keys, so that an index lives as long as its tasks
_known: "WeakKeyDictionary[Tasks, dict[tuple[str, ...], Documents]]" = WeakKeyDictionary()


def documents(tasks: "Tasks", evaluations: Iterable[Evaluation]) -> Documents:
    """The index of all documents of the evaluations' tasks, cached as long as `tasks` lives."""
    built: dict[str, Any] = {}
    for evaluation in evaluations:
        built |= tasks.build(evaluation)
    kept, names = _known.setdefault(tasks, {}), tuple(sorted(built))
    if names not in kept:
        kept[names] = of_texts({name: _texts(built[name]) for name in names})
    return kept[names]


def of_texts(texts: dict[str, Iterable[str]]) -> Documents:
    """The index of the documents' texts by task."""
    names, hashes, owners = sorted(texts), [np.empty(0, np.uint64)], [np.empty(0, np.int32)]
    for index, name in enumerate(names):
        own = [np.unique(grams(text)) for text in texts[name]]
        distinct, counts = np.unique(np.concatenate([np.empty(0, np.uint64), *own]), return_counts=True)
        # a 13-gram in more than a tenth of a task's documents (and in more than ten) belongs to the prompt, not to a document
        distinct = distinct[counts <= max(10, len(own) // 10)]
        hashes.append(distinct)
        owners.append(np.full(len(distinct), index, np.int32))
    found, first = np.unique(np.concatenate(hashes), return_index=True)
    return Documents(names, found, np.concatenate(owners)[first])


def _texts(task: Any) -> Iterator[str]:
    """Each document of an lm-eval task: its prompt and its right answer."""
    for doc in task.eval_docs:
        choices = task.doc_to_choice(doc) if getattr(task.config, "doc_to_choice", None) is not None else []
        target = task.doc_to_target(doc)
        parts = [task.doc_to_text(doc), *(target if isinstance(target, (list, tuple)) else [target])]
        yield " ".join(_text(part, choices) for part in parts)


def _text(part: Any, choices: list[Any]) -> str:
    """The part as text; an integer is a choice's index."""
    if isinstance(part, int) and choices:
        return str(choices[part]) if 0 <= part < len(choices) else ""
    return str(part)


class Screen:
    """Keeps test documents out of a trial's training rows, and counts by source what it kept out."""

    def __init__(self, documents: Documents, limit: float):
        """`limit`: the share of overlapping rows beyond which a source is refused."""
        self._documents, self._limit = documents, limit
        self.seen: dict[str, dict[str, int]] = {}
        """By source: the numbers of rows examined and of rows that overlap."""

    def judge(self, source: str, version: Hashable, texts: Iterable[str]) -> None:
        """Raises InputError if more than one of the texts, and more than `limit` of them, overlap.

        The same source and version have the same texts.
        """
        judged, key = self._documents.judged, (source, version)
        if key not in judged:
            examined = [(self._documents.task_of(text), text) for text in texts]
            judged[key] = (len(examined), [(task, text) for task, text in examined if task])
        rows, found = judged[key]
        if len(found) > max(1, self._limit * rows):
            task, text = found[0]
            raise InputError(
                f"source {source!r}: {len(found)} of {rows} rows share {WORDS} words in a row with a test document, "
                f"beyond data.max_overlap {self._limit:g}; one with {task}: {' '.join(text.split())[:60]!r}"
            )

    def holds_back(self, source: str, text: str) -> bool:
        """Whether the row contains a test document and must not be trained on."""
        counts = self.seen.setdefault(source, {"rows": 0, "overlapping": 0})
        overlaps = self._documents.task_of(text) is not None
        counts["rows"] += 1
        counts["overlapping"] += overlaps
        return overlaps
