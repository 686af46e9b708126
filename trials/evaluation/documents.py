"""Outcomes of documents from lm-eval's logged samples. Imports neither torch nor lm-eval."""

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from trials.errors import InputError
from trials.spec import Evaluation
from trials.tasks.splits import cluster, half

if TYPE_CHECKING:
    from trials.tasks.measures import Measure


def outcomes(
    role: str,
    task: str,
    evaluation: Evaluation,
    entries: Sequence[Mapping[str, Any]],
    measures: "Mapping[str, Measure] | None" = None,
) -> pd.DataFrame:
    """A task's logged samples (one per document and filter) as one row per document.

    `measures`: the task's metrics by name. Default: every number that is logged of a document is its value of a mean.
    """
    rows: dict[int, dict[str, Any]] = {}
    for entry in entries:
        row = rows.setdefault(entry["doc_id"], {"role": role, "task": task, "doc_id": entry["doc_id"]})
        row["doc_hash"] = entry["doc_hash"]
        row["half"] = half(entry["doc"], entry["doc_hash"])
        row["cluster"] = cluster(entry["doc"], entry["doc_hash"])
        row["target"] = str(entry["target"])
        row["response"] = response(entry["resps"])
        for metric in entry["metrics"]:
            if measures is not None:
                row |= _values(metric, entry, measures, evaluation)
            elif isinstance(entry[metric], (int, float, np.generic)):  # an F1 score has no value for a single document
                row[f"{metric},{entry['filter']}"] = float(entry[metric])
    documents = pd.DataFrame(list(rows.values()))
    wanted = f"{evaluation.metric},{evaluation.filter}"
    if "score" not in documents and wanted not in documents:
        raise InputError(f"eval.{role}: {wanted} of task {task} has no value of a single document; choose another metric")
    documents.insert(5, "score", documents.pop("score") if "score" in documents else documents[wanted])
    if (evaluation.marker or evaluation.flexible) and evaluation.flexible != evaluation.filter:
        documents["strict"] = documents["score"]
    if evaluation.flexible is not None:
        documents["flexible"] = documents[f"{evaluation.metric},{evaluation.flexible}"]
    return documents


def has_column(evaluation: Evaluation, output_type: str, column: str) -> bool:
    """Whether documents of a task of this output_type can have the column (see trials/evaluation/decomposition.py)."""
    name, _, token_class = column.partition(".")
    generated = output_type == "generate_until"
    if name in ("bits", "bytes"):
        return generated or (output_type == "multiple_choice" and not token_class)
    known = {
        **dict.fromkeys(("lost_adjusted", "won_adjusted"), output_type == "multiple_choice"),
        "stopped": generated,
        "marker": generated and evaluation.marker is not None,
        "strict": bool(evaluation.marker or evaluation.flexible) and evaluation.flexible != evaluation.filter,
        "flexible": evaluation.flexible is not None,
    }
    return known.get(name, True)


def _values(
    metric: str, entry: Mapping[str, Any], measures: "Mapping[str, Measure]", evaluation: Evaluation
) -> dict[str, float]:
    """A document's columns of a metric; none for a metric that it has no part of."""
    if metric not in measures or metric not in entry:
        return {}
    mean, (score, weight) = measures[metric].scale.form == "mean", measures[metric].of_document(entry[metric])
    found = {f"{metric},{entry['filter']}": score} if mean else {}
    if (metric, entry["filter"]) == (evaluation.metric, evaluation.filter):
        found |= {"score": score} if mean else {"score": score, "weight": weight}
    return found


def multiple_choice(choices: Sequence[str], gold: int, levels: Sequence[float], continuation: str) -> dict[str, float]:
    """The columns choices, bits, bytes and margin (see trials/evaluation/decomposition.py).

    `levels` are the choices' log-likelihoods in nats; `continuation` is the gold choice as it was scored, delimiter included.
    Empty where there are fewer than two choices, or an empty one.
    """
    if not 0 <= gold < len(choices) or len(choices) < 2 or not all(choices):
        return {}
    each = [nats / len(choice) for nats, choice in zip(levels, choices, strict=True)]
    best = max(value for place, value in enumerate(each) if place != gold)
    bits, length = -levels[gold] / math.log(2), len(continuation.encode())
    return {"choices": len(choices), "bits": bits, "bytes": length, "margin": each[gold] - best}


def response(resps: Sequence[Any]) -> str:
    """The generated text, or the log-likelihoods of the choices or of the whole text, from a logged sample's "resps"."""
    first = [one[0] for one in resps]
    if isinstance(first[0], str):
        return first[0]
    # a whole text has its log-likelihood alone, a choice also whether it would be the greedy one
    return " ".join(f"{float(one[0] if isinstance(one, Sequence) else one):.4f}" for one in first)
