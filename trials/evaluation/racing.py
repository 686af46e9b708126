"""Early stopping: a role's documents in stages, the same for all trials, after each of which a trial may be given up.

A stage takes whole clusters of related documents (outcomes.first_clusters).
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
class Pause:
    """Where a trial stops until somebody decides whether it goes on."""

    rows: float
    """The share of the training rows."""
    documents: float
    """The least share of the documents that decide."""
    look: Callable[[TrialRecord, float, float], dict[str, Any] | None]
    """From a record of the outcomes so far, the share of the training rows and that of the documents, what the decision needs;
    None where too little is known, so that the trial goes on."""


@dataclass(frozen=True)
class Race:
    """How a trial is judged while it is evaluated."""

    roles: Collection[str]
    """The roles that are evaluated in stages."""
    half: str
    """The half of the documents that decides: "search", or "all"."""
    judge: Callable[[TrialRecord, float], str | None]
    """From a record of the outcomes so far, and their share of all documents, why the trial is given up, or None."""
    pause: Pause | None = None
    fewest: int = 1
    """Clusters of each role that a stage needs; the trial is not judged at a smaller one."""

    @property
    def shares(self) -> tuple[float, ...]:
        """Shares of the documents that decide, after each of which the trial is judged."""
        return STAGES if self.pause is None or self.half == "all" else (*STAGES, 1.0)


def unjudged(record: TrialRecord, share: float) -> None:
    """A judge that gives no trial up."""


class StoppedEarly(Exception):
    """The trial can no longer reach the front. Its checkpoints stay."""


class Paused(StoppedEarly):
    """The trial waits for a decision. Its checkpoints stay; it goes on when it is run again."""

    def __init__(self, look: dict[str, Any]):
        super().__init__("paused")
        self.look = look


@dataclass(frozen=True)
class Document:
    task: str
    number: int
    hash: str
    half: str
    cluster: str


def documents(built: Mapping[str, Any], samples: Mapping[str, Sequence[int]]) -> list[Document]:
    """The documents of these numbers, with what a record says about each."""
    found = []
    for task, numbers in samples.items():
        for number in numbers:
            doc = built[task].eval_docs[number]
            digest = doc_hash(doc)
            found.append(Document(task, number, digest, half(doc, digest), cluster(doc, digest)))
    return found


def doc_hash(doc: Mapping[str, Any]) -> str:
    """The hash that lm-eval's evaluator logs with a sample."""
    return hash_string(json.dumps(doc, indent=2, default=handle_non_serializable, ensure_ascii=False))


def judged(documents: Mapping[str, Sequence[Document]], race: Race) -> list[int]:
    """The numbers of the stages at which a trial with these documents, by role, is judged or paused."""
    clusters = [len({one.cluster for one in some if race.half in ("all", one.half)}) for some in documents.values()]

    def enough(share: float) -> bool:
        return all(len(first_clusters(count, share)) >= race.fewest for count in clusters)

    return [n for n, at in enumerate(race.shares) if enough(at) or (race.pause is not None and at >= race.pause.documents)]


def stages(documents: Sequence[Document], judged: str, shares: Sequence[float] = STAGES) -> list[dict[str, list[int]]]:
    """The sorted document numbers that each stage adds, by task; the last stage is the rest. `judged`: Race.half."""
    of_half = [one for one in documents if judged in ("all", one.half)]
    labels = np.array([label(one.cluster) for one in of_half], dtype=np.int64)
    distinct = np.unique(labels)
    found: list[dict[str, list[int]]] = []
    done: set[tuple[str, int]] = set()
    for share in (*shares, None):
        some = documents
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


def until(stages: Sequence[Mapping[str, Sequence[int]]], number: int) -> dict[str, list[int]]:
    """The sorted document numbers of the stages up to this one, by task."""
    tasks = dict.fromkeys(task for stage in stages[: number + 1] for task in stage)
    return {task: sorted(one for stage in stages[: number + 1] for one in stage.get(task, ())) for task in tasks}


def so_far(role: str, documents: Sequence[Document], parts: Sequence[pd.DataFrame]) -> Packed:
    """The outcomes of all documents; NaN for those that are not answered yet."""
    everything = pd.DataFrame(
        [(role, one.task, one.number, one.hash) for one in documents], columns=["role", "task", "doc_id", "doc_hash"]
    )
    answered = _each_once(parts).drop(columns=["role", "doc_hash"])
    return pack(everything.merge(answered, how="left", on=["task", "doc_id"]), baseline=False)[role]


def without(samples: Mapping[str, Sequence[int]], parts: Sequence[pd.DataFrame]) -> dict[str, list[int]]:
    """The samples that are in none of the parts."""
    done = {pair for part in parts for pair in zip(part["task"], part["doc_id"], strict=True)}
    left = {task: [number for number in numbers if (task, number) not in done] for task, numbers in samples.items()}
    return {task: numbers for task, numbers in left.items() if numbers}


def together(parts: Sequence[pd.DataFrame]) -> pd.DataFrame:
    """The parts as one evaluation returns them: sorted by task name, then by document number."""
    return _each_once(parts).sort_values(["task", "doc_id"], kind="stable", ignore_index=True)


def _each_once(parts: Sequence[pd.DataFrame]) -> pd.DataFrame:
    # an earlier attempt under other stages may have answered some documents in two parts
    return pd.concat(parts, ignore_index=True).drop_duplicates(["task", "doc_id"], ignore_index=True)
