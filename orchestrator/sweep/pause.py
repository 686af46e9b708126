"""Pauses of a trial: what the driver asks for, and what a worker measures there.

A worker measures the objectives and constraints on the documents so far, paired with the base's answers to the same ones.
"""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np

from analysis.metrics.names import Objective, split_metric
from analysis.stats import racing
from orchestrator.config.model import SweepConfig
from trials.errors import InputError
from trials.evaluation.racing import Pause, Race, unjudged
from trials.ledger.outcomes import ALL, SEARCH
from trials.ledger.record import Ledger, TrialRecord
from trials.spec import TrialSpec

RUNGS = ((0.25, 0.25), (1.0, 0.25), (1.0, 1.0))
"""Shares of the training rows and of the searched documents after which a trial pauses. With the searched documents all
answered it is known whether it is on the front; the report half is left."""


def criteria(config: SweepConfig, rows: float, documents: float) -> dict[str, Any]:
    """A pause after these shares of the training rows and of the searched documents, as JSON values."""
    half = SEARCH if config.search.documents == "half" else ALL
    return {"rows": rows, "documents": documents, "metrics": list(config.criteria.metrics), "half": half}


def pausing(asked: Mapping[str, Any], spec: TrialSpec, ledger: Ledger, race: Race | None) -> Race:
    """The race with a pause as `criteria` made it."""
    objectives = [Objective(metric=name, direction="minimize") for name in asked["metrics"]]
    roles = dict.fromkeys(split_metric(name)[0] for name in asked["metrics"])

    def look(record: TrialRecord, rows: float, documents: float) -> dict[str, Any] | None:
        try:
            base = ledger.complete(spec.baseline().key)
        except InputError:  # a damaged record is no fault of this trial: the driver sets it aside
            return None
        if base is None:  # it may still be running
            return None
        found = racing.interim([record], base, objectives, asked["half"], documents)
        influences = [part.influence[0] for part in found.parts if part is not None]
        few = documents < 1 and any(len(one) < racing.FEWEST for one in influences)
        if few or len(influences) < len(objectives) or not np.isfinite(found.values).all():
            return None
        errors = [float(np.sqrt(one.var(ddof=1) / len(one))) for one in influences]
        return {
            "rows": rows,
            "documents": documents,
            "metrics": dict(zip(asked["metrics"], found.values[0].tolist(), strict=True)),
            "errors": dict(zip(asked["metrics"], errors, strict=True)),
        }

    pause = Pause(asked["rows"], asked["documents"], look)
    if race is None:
        return Race(list(roles), asked["half"], unjudged, pause)
    return replace(race, roles=list(dict.fromkeys([*race.roles, *roles])), pause=pause)
