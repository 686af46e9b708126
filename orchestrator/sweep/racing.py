"""Racing in a sweep: a worker judges its trial against its base, and against the front when the trial was handed out.

The test is that of analysis.stats.racing: a trial is given up where the front or its base beats it, at a level that keeps the
risk of the whole sweep within racing.RISK.
"""

from collections.abc import Mapping, Sequence
from typing import Any

from analysis.metrics.names import LEARNING, Objective, split_metric
from analysis.stats import racing
from orchestrator.config.model import SweepConfig
from trials.errors import InputError
from trials.evaluation.racing import Race
from trials.ledger.outcomes import ALL, SEARCH
from trials.ledger.record import Ledger, TrialRecord
from trials.spec import TrialSpec


def against(config: SweepConfig, front: Sequence[str], bases: Sequence[str]) -> dict[str, Any]:
    """The criteria by which a worker judges a trial, as JSON values; `front` are the keys of the front's trials, `bases` of the
    baselines that keep the constraints."""
    return {
        "objectives": [objective.model_dump() for objective in config.search.objectives],
        "half": SEARCH if config.search.documents == "half" else ALL,
        "front": list(front),
        "bases": list(bases),
        "level": racing.level(config.budget),
    }


def race(criteria: Mapping[str, Any], spec: TrialSpec, ledger: Ledger) -> Race | None:
    """The race of a trial under the criteria from `against`; None for baselines, and where nothing can be judged."""
    objectives = [Objective(**one) for one in criteria["objectives"]]
    half, front = criteria["half"], criteria["front"]
    roles = dict.fromkeys(role for role, _ in (split_metric(one.metric) for one in objectives) if role != LEARNING)
    baseline = spec.baseline().key
    if spec.is_baseline or not roles or not (front or criteria["bases"]):
        return None
    known: dict[str, TrialRecord] = {}

    def judge(record: TrialRecord, share: float) -> str | None:
        for key in (baseline, *front):  # read at each stage: the baseline may have been running when the trial began
            if key not in known and (found := _complete(ledger, key)) is not None:
                known[key] = found
        members = [known[key] for key in front if key in known and known[key].spec.baseline().key == baseline]
        ahead = [*members, *([known[baseline]] if baseline in known and baseline in criteria["bases"] else [])]
        if baseline not in known or not ahead:
            return None
        interim = racing.interim([record, *ahead], known[baseline], objectives, half, share)
        p = interim.p_value(0, range(1, 1 + len(ahead)))
        documents = "all" if half == ALL else "the searched half of all"
        return (
            None
            if p > criteria["level"]
            else f"after {share:.1%} of {documents} documents the front or the base beats it (p = {p:.1g})"
        )

    return Race(list(roles), half, judge, fewest=racing.FEWEST)


def _complete(ledger: Ledger, key: str) -> TrialRecord | None:
    """The complete record; None for a damaged one too, which is no fault of this trial: the driver sets it aside."""
    try:
        return ledger.complete(key)
    except InputError:
        return None
