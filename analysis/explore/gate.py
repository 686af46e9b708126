"""Decides whether a trial keeps requirements such as "math.forgetting <= 0.05", each by its 95 % interval.

A requirement holds if its whole interval keeps the bound, is broken if its whole interval lies beyond, and is open otherwise.
All numbers are the quoted ones: of the report half where the search saw the other.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from analysis.explore.find import key_of
from analysis.export.plain import plain
from analysis.formatting import labels, numbers
from analysis.metrics.definitions import RATES
from analysis.metrics.names import LEARNING, Constraint, joint, parse_constraint, roles_of, split_metric
from analysis.results import schema as col
from analysis.results.manifest import Manifest
from analysis.results.sweep import Sweep
from analysis.stats.estimate import Setting, measure_joint, scores
from analysis.stats.intervals import LEVEL, reach
from analysis.stats.sample_size import POWER, sufficient_documents
from trials.errors import InputError
from trials.ledger.outcomes import ALL

Decision = Literal["holds", "broken", "cannot tell"]
BEST = "best"


@dataclass(frozen=True)
class Ruling:
    """A requirement and what the trial's interval says of it."""

    requirement: Constraint
    decision: Decision
    row: Mapping[Any, Any]
    """The trial's, of `Sweep.trials`."""
    documents: int
    """How many documents the value rests on."""
    seeds: int
    needed: int | None
    """Documents that would decide it with probability POWER if the estimate is true. None if it is decided, or none would."""


@dataclass(frozen=True)
class Gate:
    sweep: Sweep
    row: Mapping[Any, Any]
    rulings: tuple[Ruling, ...]
    caveats: tuple[str, ...]

    @property
    def decision(self) -> Decision:
        """Broken if one requirement is, else open if one is."""
        found = {ruling.decision for ruling in self.rulings}
        return next((one for one in ("broken", "cannot tell") if one in found), "holds")


def gate(sweep: Sweep, requirements: Sequence[str], trial: str = BEST) -> Gate:
    """`trial`: a key, its first characters, a number ("#5"), an imported model, or BEST.

    BEST is the first of the front: the best in the first objective of what keeps the sweep's constraints, on the documents that
    the search saw. Without a front it is the only complete trial. InputError where there is no such trial or metric.
    """
    if not len(sweep.complete):
        raise InputError(f"{sweep.name}: no trial is complete, so there is nothing to judge")
    roles = [name.removesuffix(".value") for name in sweep.metrics if name.endswith(".value")]
    wanted = [parse_constraint(text, roles) for text in requirements]
    row = _row(sweep, trial)
    for one in wanted:
        if one.metric not in sweep.metrics:
            if joint([one.metric]):
                row = {**row, **_measured(sweep, row, one.metric)}
                continue
            raise InputError(f"{sweep.name} has not measured {one.metric}; it has {', '.join(sweep.metrics)}")
    return Gate(sweep, row, tuple(_ruling(sweep, row, one) for one in wanted), tuple(_caveats(sweep, trial)))


def _measured(sweep: Sweep, row: Mapping[Any, Any], name: str) -> dict[str, float]:
    """The columns of a metric of several roles that the sweep was not searched for."""
    keys = next(one.keys for one in Manifest.read(sweep.folder).trials if one.key == row["key"])
    setting = Setting([sweep.records[key] for key in keys], sweep.records.get(row["baseline"]))
    found = measure_joint([setting], [name], sweep.half or ALL).get(name)
    if found is None:
        raise InputError(f"{sweep.name}: no {name}: the trial has not answered the base's documents of each role")
    columns = {name: found.value, col.se(name): found.stderr, col.sd(name): found.sd}
    return {key: float(one[0]) for key, one in (columns | {col.low(name): found.low, col.high(name): found.high}).items()}


def _row(sweep: Sweep, trial: str) -> Mapping[Any, Any]:
    if trial != BEST:
        key = key_of(sweep, trial)  # empty for a point that is no valid trial
        same = sweep.trials["key"] == key if key else sweep.trials["number"] == int(trial.removeprefix("#"))
        rows = sweep.trials[same]
        if rows.empty:
            raise InputError(
                f"{trial} is no trial of {sweep.name}; a requirement cannot be on a baseline or a single replicate"
            )
        if rows.iloc[0]["state"] != "complete":
            raise InputError(f"trial #{rows.iloc[0]['number']} of {sweep.name} is {rows.iloc[0]['state']}; it has no numbers")
        return dict(rows.iloc[0])
    rows = sweep.front if len(sweep.front) else sweep.complete
    if len(sweep.front) or len(rows) == 1:
        return dict(rows.iloc[0])
    why = "is on the front" if len(rows) else "is complete"
    raise InputError(f"{sweep.name}: none of {len(sweep.trials)} trials {why}, so there is no best one; --trial names another")


def _ruling(sweep: Sweep, row: Mapping[Any, Any], requirement: Constraint) -> Ruling:
    name = requirement.metric
    low, high = row[col.low(name)], row[col.high(name)]
    decision: Decision = "cannot tell"
    if math.isfinite(low) and math.isfinite(high):
        beyond = [requirement.violation(end) > 0 for end in (low, high)]
        decision = "broken" if all(beyond) else "cannot tell" if any(beyond) else "holds"
    documents, seeds = _documents(sweep, row, name), int(row["replicates"])
    needed = _needed(row, requirement, documents, seeds) if decision == "cannot tell" else None
    return Ruling(requirement, decision, row, documents, seeds, needed)


def _documents(sweep: Sweep, row: Mapping[Any, Any], name: str) -> int:
    found = scores(sweep.records[row["key"]], sweep.half or ALL)
    return sum(found[role]["score"].n for role in roles_of([name]) if role in found)


def _needed(row: Mapping[Any, Any], requirement: Constraint, documents: int, seeds: int) -> int | None:
    name = requirement.metric
    half = (row[col.high(name)] - row[col.low(name)]) / 2
    if documents < 2 or not math.isfinite(half) or split_metric(name)[0] == LEARNING:
        return None
    # the interval knows more than the standard error, which is 0 where no document has changed
    stderr = max(row[col.se(name)], half / float(reach(documents - 1)))
    by_seed = 0.0 if math.isnan(row[col.sd(name)]) else row[col.sd(name)] / math.sqrt(seeds)
    return sufficient_documents(abs(row[name] - requirement.bound), stderr, min(by_seed, stderr), documents, seeds)


def _caveats(sweep: Sweep, trial: str) -> list[str]:
    if trial == BEST and sweep.half is None and len(sweep.complete) > 1:
        return [
            f"the best of {len(sweep.complete)} trials was picked on the documents that its values come from, so they are too "
            "good; documents: half keeps documents for this"
        ]
    return []


# ---------------------------------------------------------------------- in words and as data


def lines(found: Gate) -> list[str]:
    """The trial, then a line a requirement."""
    sweep, row = found.sweep, found.row
    named = f" ({row['model']})" if "model" in sweep.space else ""
    documents = f"the {sweep.half} half of the documents" if sweep.half else "all documents"
    head = f"{sweep.name}: trial #{row['number']}{named}, {row['key']}, on {documents}"
    return [head, *(_line(ruling) for ruling in found.rulings), *(f"note: {one}" for one in found.caveats)]


def _line(ruling: Ruling) -> str:
    name = ruling.requirement.metric
    text = f"{ruling.decision}: {labels.constraint_sign(ruling.requirement)}: {numbers.sentence(ruling.row, name)}"
    text += f", {ruling.documents} documents, {ruling.seeds} seed{'s' if ruling.seeds > 1 else ''}"
    if ruling.decision != "cannot tell":
        return text
    if not math.isfinite(ruling.row[name]):
        bases = [ruling.row.get(f"{role}.base") for role in roles_of([name])]
        if split_metric(name)[1] in RATES and 0 in bases:
            return f"{text}; it is undefined, as the base scores 0: require the drop"
        return f"{text}; the trial or its baseline has no value of it"
    if not math.isfinite(ruling.row[col.low(name)]):
        return f"{text}; it has no interval"
    if ruling.needed is None:
        more = "such documents" if ruling.seeds == 1 else "such documents without more seeds"
        return f"{text}; no number of {more} would settle it if the estimate is true"
    chance = f"with {POWER:.0%} probability if the estimate is true"
    return f"{text}; about {_rounded(ruling.needed):,} such documents would settle it ({chance})"


def _rounded(number: int) -> int:
    """Up to two digits: a needed number is no more certain than that."""
    unit = 10 ** max(len(str(number)) - 2, 0)
    return -(-number // unit) * unit


def as_dict(found: Gate) -> dict[str, Any]:
    """Everything as JSON values, in the metrics' own units."""
    row = found.row
    return {
        "decision": found.decision,
        "sweep": found.sweep.name,
        "trial": int(row["number"]),
        "key": row["key"],
        "half": found.sweep.half,
        "level": LEVEL,
        "requirements": [
            {
                "requirement": str(one.requirement),
                "decision": one.decision,
                **{end: plain(row[column]) for end, column in col.interval(one.requirement.metric).items()},
                "stderr": plain(row[col.se(one.requirement.metric)]),
                "documents": one.documents,
                "seeds": one.seeds,
                "documents_needed": one.needed,
            }
            for one in found.rulings
        ],
        "notes": list(found.caveats),
    }
