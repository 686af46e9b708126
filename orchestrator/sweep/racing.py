"""Racing in a sweep: a worker judges its trial against the front as it stood when the trial was handed out.

The statistics are those of analysis.racing: a trial is given up where the front beats it with a probability of LEVEL.
"""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from analysis.metrics.names import LEARNING, Objective, split_metric
from analysis.stats import racing
from orchestrator.config.model import SweepConfig
from trials.errors import InputError
from trials.evaluation.racing import Race
from trials.ledger.outcomes import ALL, SEARCH, Split
from trials.ledger.record import Ledger, TrialRecord
from trials.spec import TrialSpec


@dataclass(frozen=True)
class Against:
    """What a trial is judged by; JSON's values."""

    objectives: Sequence[dict[str, Any]]
    half: Split
    front: Sequence[str]
    """Keys."""


def against(config: SweepConfig, front: Sequence[str]) -> dict[str, Any]:
    objectives = [objective.model_dump() for objective in config.search.objectives]
    return asdict(Against(objectives, SEARCH if config.search.documents == "half" else ALL, list(front)))


def race(told: dict[str, Any], spec: TrialSpec, ledger: Ledger) -> Race | None:
    """None for what is not judged: baselines, and what has nothing to be judged by."""
    what = Against(**told)
    objectives = [Objective(**one) for one in what.objectives]
    roles = dict.fromkeys(role for role, _ in (split_metric(one.metric) for one in objectives) if role != LEARNING)
    baseline = spec.baseline().key
    if spec.is_baseline or not roles or not what.front:
        return None
    known: dict[str, TrialRecord] = {}

    def judge(record: TrialRecord, share: float) -> str | None:
        for key in (baseline, *what.front):  # now, not when the trial began: its baseline may still be under way
            if key not in known and (found := _complete(ledger, key)) is not None:
                known[key] = found
        members = [known[key] for key in what.front if key in known and known[key].spec.baseline().key == baseline]
        if baseline not in known or not members:
            return None
        interim = racing.interim([record, *members], known[baseline], objectives, what.half, share)
        p = interim.p_dominated(0, range(1, 1 + len(members)))
        documents = "all" if what.half == ALL else "the searched half of all"
        return (
            None
            if p < racing.LEVEL
            else f"after {share:.1%} of {documents} documents the front beats it with probability {p:.3f}"
        )

    return Race(list(roles), what.half, judge)


def _complete(ledger: Ledger, key: str) -> TrialRecord | None:
    """None also for a record that is not whole: the driver sets it aside and has it made again; this trial is not at fault."""
    try:
        return ledger.complete(key)
    except InputError:
        return None
