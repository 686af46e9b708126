"""Training rows that hold a test document: 13 words in a row that also stand in a document of an evaluated task.

Words are runs of letters and digits in lower case. A document is what its task shows and expects: the prompt and the target, of
multiple choice the right one; every document of the split, so that a sample's size does not move the training rows. One of
fewer than 13 words is not looked for, and neither are 13 words that stand in more than a tenth of a task's documents (and in
more than ten): they are the prompt's own. A text without spaces between its words is as good as not looked for.
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
# a window's hash is the sum of its words' hashes, each times the odd number of its place, modulo 2**64
_PLACES = np.random.default_rng(0).integers(0, 2**63, size=WORDS, dtype=np.uint64) * np.uint64(2) + np.uint64(1)


@lru_cache(maxsize=2**18)
def _hash(word: str) -> int:
    return int.from_bytes(hashlib.blake2b(word.encode(), digest_size=8).digest(), "big")


def grams(text: str) -> np.ndarray:
    """(windows,) uint64, one for each 13 words in a row; none of a shorter text."""
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
    """The test documents by their 13 words in a row."""

    tasks: list[str]
    hashes: np.ndarray
    """(grams,) uint64, sorted."""
    owners: np.ndarray
    """(grams,) index into `tasks`."""
    judged: dict[Hashable, tuple[int, list[tuple[str, str]]]] = field(default_factory=dict)
    """Of a source as it stands: rows that were looked at, and the task and text of those that overlap. One trial after the
    other asks for the same sources."""

    def task_of(self, text: str) -> str | None:
        """The task with a document that shares 13 words in a row with the text."""
        asked = grams(text)
        if not len(asked) or not len(self.hashes):
            return None
        places = np.minimum(np.searchsorted(self.hashes, asked), len(self.hashes) - 1)
        hits = places[self.hashes[places] == asked]
        return self.tasks[self.owners[hits[0]]] if len(hits) else None


_known: "WeakKeyDictionary[Tasks, dict[tuple[str, ...], Documents]]" = WeakKeyDictionary()


def documents(tasks: "Tasks", evaluations: Iterable[Evaluation]) -> Documents:
    """All documents of all tasks of the evaluations; kept as long as `tasks` is."""
    built: dict[str, Any] = {}
    for evaluation in evaluations:
        built |= tasks.build(evaluation)
    kept, names = _known.setdefault(tasks, {}), tuple(sorted(built))
    if names not in kept:
        kept[names] = of_texts({name: _texts(built[name]) for name in names})
    return kept[names]


def of_texts(texts: dict[str, Iterable[str]]) -> Documents:
    """Of the documents' texts by task."""
    names, hashes, owners = sorted(texts), [np.empty(0, np.uint64)], [np.empty(0, np.int32)]
    for index, name in enumerate(names):
        own = [np.unique(grams(text)) for text in texts[name]]
        distinct, standing = np.unique(np.concatenate([np.empty(0, np.uint64), *own]), return_counts=True)
        distinct = distinct[standing <= max(10, len(own) // 10)]
        hashes.append(distinct)
        owners.append(np.full(len(distinct), index, np.int32))
    found, first = np.unique(np.concatenate(hashes), return_index=True)
    return Documents(names, found, np.concatenate(owners)[first])


def _texts(task: Any) -> Iterator[str]:
    """Each document of an lm-eval task as it stands with its right answer."""
    for doc in task.eval_docs:
        choices = task.doc_to_choice(doc) if getattr(task.config, "doc_to_choice", None) is not None else []
        target = task.doc_to_target(doc)
        shown = [task.doc_to_text(doc), *(target if isinstance(target, (list, tuple)) else [target])]
        yield " ".join(_in_words(one, choices) for one in shown)


def _in_words(shown: Any, choices: list[Any]) -> str:
    """A choice's text where it is given by its number."""
    if isinstance(shown, int) and choices:
        return str(choices[shown]) if 0 <= shown < len(choices) else ""
    return str(shown)


class Screen:
    """What keeps a trial's training rows free of test documents, and counts by source what it kept out."""

    def __init__(self, documents: Documents, limit: float):
        """`limit`: the share of a source's rows beyond which it is refused."""
        self._documents, self._limit = documents, limit
        self.seen: dict[str, dict[str, int]] = {}
        """By source: rows that were looked at, and those of them that overlap."""

    def judge(self, source: str, version: Hashable, texts: Iterable[str]) -> None:
        """Raises InputError where more than one of the texts, and more than `limit` of them, overlap.

        The same source and version (hashable) have the same texts.
        """
        judged, asked = self._documents.judged, (source, version)
        if asked not in judged:
            looked = [(self._documents.task_of(text), text) for text in texts]
            judged[asked] = (len(looked), [(task, text) for task, text in looked if task])
        looked_at, found = judged[asked]
        if len(found) > max(1, self._limit * looked_at):
            task, text = found[0]
            raise InputError(
                f"source {source!r}: {len(found)} of {looked_at} rows share {WORDS} words in a row with a test document, "
                f"beyond data.max_overlap {self._limit:g}; one with {task}: {' '.join(text.split())[:60]!r}"
            )

    def holds_back(self, source: str, text: str) -> bool:
        """Whether the row is not to be trained on."""
        counts = self.seen.setdefault(source, {"rows": 0, "overlapping": 0})
        overlaps = self._documents.task_of(text) is not None
        counts["rows"] += 1
        counts["overlapping"] += overlaps
        return overlaps
