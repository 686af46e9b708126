"""A role's documents in stages, for a trial that may be given up meanwhile; the same ones for all trials.

A stage takes whole clusters of documents that tell of each other (outcomes.first_clusters).
"""

import json
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from lm_eval.utils import handle_non_serializable, hash_string

from trials.ledger.outcomes import STAGES, Packed, first_clusters, label, pack
from trials.ledger.record import TrialRecord
from trials.tasks.splits import cluster, half


@dataclass(frozen=True)
class Race:
    """Who judges a trial while it is evaluated."""

    roles: Collection[str]
    """Whose documents are answered in stages."""
    half: str
    """The half that is judged by, "search", or "all"."""
    judge: Callable[[TrialRecord, float], str | None]
    """Of a record with the outcomes so far, a share of the documents: why the trial is given up, or None."""


class StoppedEarly(Exception):
    """The trial can no longer reach the front. Its checkpoints stay."""


@dataclass(frozen=True)
class Document:
    task: str
    number: int
    hash: str
    half: str
    cluster: str


def documents(built: Mapping[str, Any], samples: Mapping[str, Sequence[int]]) -> list[Document]:
    """What lm-eval's tasks are asked, as a record tells of it."""
    found = []
    for task, numbers in samples.items():
        for number in numbers:
            doc = built[task].eval_docs[number]
            told = doc_hash(doc)
            found.append(Document(task, number, told, half(doc, told), cluster(doc, told)))
    return found


def doc_hash(doc: Mapping[str, Any]) -> str:
    """As lm-eval's evaluator gives it in the samples that it logs."""
    return hash_string(json.dumps(doc, indent=2, default=handle_non_serializable, ensure_ascii=False))


def stages(asked: Sequence[Document], judged: str, shares: Sequence[float] = STAGES) -> list[dict[str, list[int]]]:
    """By stage, the last of which is the rest: the numbers that it adds, ascending, by task. `judged` as in Race."""
    of_half = [one for one in asked if judged in ("all", one.half)]
    labels = np.array([label(one.cluster) for one in of_half], dtype=np.int64)
    distinct = np.unique(labels)
    found: list[dict[str, list[int]]] = []
    done: set[tuple[str, int]] = set()
    for share in (*shares, None):
        some = asked
        if share is not None:
            among = set(distinct[first_clusters(len(distinct), share)].tolist()) if len(distinct) else set()
            some = [one for one, own in zip(of_half, labels.tolist(), strict=True) if own in among]
        stage: dict[str, list[int]] = {}
        for one in some:
            if (one.task, one.number) not in done:
                stage.setdefault(one.task, []).append(one.number)
                done.add((one.task, one.number))
        found.append({task: sorted(numbers) for task, numbers in stage.items()})
    return found


def so_far(role: str, asked: Sequence[Document], parts: Sequence[pd.DataFrame]) -> Packed:
    """The outcomes of all the documents, NaN where one is not answered yet."""
    everything = pd.DataFrame(
        [(role, one.task, one.number, one.hash) for one in asked], columns=["role", "task", "doc_id", "doc_hash"]
    )
    answered = pd.concat(parts, ignore_index=True).drop(columns=["role", "doc_hash"])
    return pack(everything.merge(answered, how="left", on=["task", "doc_id"]), baseline=False)[role]


def without(samples: Mapping[str, Sequence[int]], parts: Sequence[pd.DataFrame]) -> dict[str, list[int]]:
    """The samples that none of the parts has answered."""
    done = {pair for part in parts for pair in zip(part["task"], part["doc_id"], strict=True)}
    left = {task: [number for number in numbers if (task, number) not in done] for task, numbers in samples.items()}
    return {task: numbers for task, numbers in left.items() if numbers}


def together(parts: Sequence[pd.DataFrame]) -> pd.DataFrame:
    """As if they had been answered at once: by task in the order of the tasks' names, then by number."""
    return pd.concat(parts, ignore_index=True).sort_values(["task", "doc_id"], kind="stable", ignore_index=True)
