"""Every metric of a trial from its records (one a replicate) and its baseline's, on one half of the documents or on all."""

import math
from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd

from analysis.dissect import learning, role_parts
from analysis.metrics import CLASSES, IDENTITY, Estimate, replicate_metrics
from trials.record import Score, TrialRecord

COLUMNS = (
    *("role", *IDENTITY, "half", "score", "strict", "flexible", "marker", "stopped", "bits", "bytes"),
    *(f"{measure}.{part}" for part in CLASSES for measure in ("bits", "bytes")),
)
"""Of the documents, what `measure` reads where it is there."""
ALL = "all"


def scores(record: TrialRecord, half: str) -> dict[str, dict[str, Score]]:
    """By role, then by name, the role's own as "score". A role without a document in that half is left out; one of a record
    that knows no halves has its scores on all documents."""
    found = {}
    for role, score in record.scores.items():
        halves = record.halves.get(role, {})
        if half == ALL or not halves:
            found[role] = {**record.details.get(role, {}), "score": score}
        elif half in halves:
            found[role] = halves[half]
    return found


def measure(
    records: Sequence[TrialRecord],
    base: TrialRecord | None,
    documents: Sequence[pd.DataFrame | None] = (),
    base_documents: pd.DataFrame | None = None,
    half: str = ALL,
) -> dict[str, Estimate | None]:
    """Every metric by name: the mean over the replicates; None where it is undefined.

    The documents, an entry a replicate, change the standard errors alone. Those of the metrics beside a role's score are, with
    replicates, sqrt(mean(se_r^2) + sd^2 / R): on the wide side, as `replicate_metrics` says of the others.
    """
    frames = [_of_half(frame, half) for frame in documents] or [None] * len(records)
    base_frame = _of_half(base_documents, half)
    named = [scores(record, half) for record in records]
    base_named = scores(base, half) if base is not None else None
    found = replicate_metrics(
        [_own(one) for one in named], _own(base_named) if base_named is not None else None, frames, base_frame
    )
    parts = []
    for record, one, frame in zip(records, named, frames, strict=True):
        own = learning(record)
        for role, of_role in one.items():
            against = base_named.get(role) if base_named is not None else None
            own |= {f"{role}.{kind}": value for kind, value in role_parts(role, of_role, against, frame, base_frame).items()}
        parts.append(own)
    return found | {name: _mean([one.get(name) for one in parts]) for name in parts[0]}


def _own(named: Mapping[str, Mapping[str, Score]]) -> dict[str, Score]:
    return {role: of_role["score"] for role, of_role in named.items()}


def _of_half(documents: pd.DataFrame | None, half: str) -> pd.DataFrame | None:
    if documents is None or half == ALL or "half" not in documents:
        return documents
    return documents[documents["half"] == half]


def _mean(replicates: Sequence[Estimate | None]) -> Estimate | None:
    known = [one for one in replicates if one is not None]
    if not known or len(known) < len(replicates):
        return None
    if len(known) == 1:
        return known[0]
    sd = float(np.std([one.value for one in known], ddof=1))
    errors = [one.stderr for one in known if one.stderr is not None]
    stderr = None
    if len(errors) == len(known):
        stderr = math.sqrt(float(np.mean(np.square(errors))) + sd**2 / len(known))
    return Estimate(float(np.mean([one.value for one in known])), stderr, all(one.paired for one in known), sd)
