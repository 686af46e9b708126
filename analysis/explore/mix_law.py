"""The law of the mix: how each metric that decides answers to the share of a source, and the share that keeps a bound.

A point that is derived from a training adds no training, so that it takes no part.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Literal

import numpy as np
import pandas as pd

from analysis.explore.importance import without_gaps
from analysis.export.plain import plain
from analysis.formatting import labels
from analysis.formatting.table import Beside, Column, Table
from analysis.metrics.definitions import RATES
from analysis.metrics.names import Constraint, split_metric
from analysis.results.manifest import Manifest
from analysis.results.sweep import Sweep
from analysis.stats.bootstrap import Errors, draws_for
from analysis.stats.estimate import Setting, measure_all
from analysis.stats.response import LEVELS, Needed, Response, needed, respond, trainings_needed
from trials.errors import InputError
from trials.ledger.outcomes import ALL, Split
from trials.ledger.record import TrialRecord

RATE = 0.05  # the bound on a forgetting rate that the config does not bound
_NO_OTHERS = ("data.mix", "data.replay.share", "data.replay.source", "data.seed", "train.seed")
"""Paths that are no other setting: the shares themselves, and seeds."""


@dataclass(frozen=True)
class Law:
    metric: str
    source: str
    bound: Constraint | None
    """On the metric; `needed` has the shares that keep it."""
    values: pd.DataFrame
    """A row for each training: number, share, value of the metric."""
    response: Response | None
    """None where `missing` says why."""
    missing: str = ""

    @property
    def trainings(self) -> int:
        return len(self.values)

    @property
    def needed(self) -> Needed | None:
        if self.response is None or self.bound is None:
            return None
        return needed(self.response, self.bound.op, self.bound.bound)


@dataclass(frozen=True)
class _Trainings:
    rows: pd.DataFrame
    """The complete trainings of `Sweep.trials`, each key once."""
    shares: pd.DataFrame
    """Shares of all training rows, a column for each source whose share varies; on the index of `rows`."""
    errors: np.ndarray
    """Of the metrics that decide, (draws, trainings, metrics)."""


@lru_cache(maxsize=2)  # the report's section and its figure share it
def laws(sweep: Sweep) -> tuple[Law, ...]:
    """A law for each metric that decides and each source whose share varies. Of two sources, which only trade places, the one
    of which more is better for the metric. Empty where no share varies."""
    trainings = _trainings(sweep)
    found: list[Law] = []
    for metric in sweep.judged if trainings is not None else ():
        assert trainings is not None
        bound = _bound(sweep, metric)
        each = [_law(sweep, trainings, metric, str(source), bound) for source in trainings.shares]
        if len(each) == 2:
            each = [max(each, key=lambda one: _helps(sweep, one))]
        found += each
    return tuple(found)


def law(sweep: Sweep, metric: str, source: str, bound: Constraint | None = None) -> Law:
    """How a metric that decides answers to the share of `source`; `bound` is by default that of `laws`."""
    trainings = _trainings(sweep)
    if metric not in sweep.judged:
        raise InputError(f"the law of the mix is one of a metric that decides: {', '.join(sweep.judged)}, not {metric}")
    if trainings is None or source not in trainings.shares:
        varied = ", ".join(map(str, trainings.shares)) if trainings is not None else "that of none"
        raise InputError(f"the share of {source} does not vary between these trainings; it varies: {varied}")
    return _law(sweep, trainings, metric, source, bound or _bound(sweep, metric))


def _bound(sweep: Sweep, metric: str) -> Constraint | None:
    own = next((one for one in sweep.constraints if one.metric == metric), None)
    return own or (Constraint(metric, "<=", RATE) if split_metric(metric)[1] in RATES else None)


def _helps(sweep: Sweep, one: Law) -> float:
    """By how much the metric is better at the largest share than at the least."""
    if one.response is None:
        return -math.inf
    objective = next((each for each in sweep.objectives if each.metric == one.metric), None)
    larger = objective.direction == "maximize" if objective else one.bound is not None and one.bound.op == ">="
    return one.response.change[0] if larger else -one.response.change[0]


# ---------------------------------------------------------------------- the trainings


@lru_cache(maxsize=2)
def _trainings(sweep: Sweep) -> _Trainings | None:
    """None where no share varies."""
    records = {index: record for index, record in sweep.complete["key"].map(sweep.records.get).items() if _trained(record)}
    rows = sweep.complete.loc[list(records)].drop_duplicates("key")
    shares = pd.DataFrame([records[index].spec.data.shares for index in rows.index], index=rows.index).fillna(0.0)
    shares = shares[[source for source in shares if np.ptp(shares[source]) > 1e-9]]
    return _Trainings(rows, shares, _errors(sweep, rows)) if len(shares.columns) else None


def _trained(record: TrialRecord | None) -> bool:
    return record is not None and record.imported is None and record.spec.parent is None and not record.spec.is_baseline


def _errors(sweep: Sweep, rows: pd.DataFrame) -> np.ndarray:
    keys = {trial.key: trial.keys for trial in Manifest.read(sweep.folder).trials}
    settings = [
        Setting([sweep.records[one] for one in keys.get(key, [key])], sweep.records.get(baseline))
        for key, baseline in zip(rows["key"], rows["baseline"], strict=True)
    ]
    split: Split = sweep.half or ALL
    errors = Errors(len(settings), sweep.judged, draws_for(len(settings)))
    measured = measure_all(settings, split, watch=errors.add, only=sweep.judged)
    return errors.draws(settings, measured, split)


def _law(sweep: Sweep, trainings: _Trainings, metric: str, source: str, bound: Constraint | None) -> Law:
    known = np.isfinite(trainings.rows[metric].to_numpy(dtype=float))
    rows, shares = trainings.rows[known], trainings.shares[known]
    others = _others(sweep, rows, shares.drop(columns=source))
    values = pd.DataFrame({"number": rows["number"], "share": shares[source], "value": rows[metric].astype(float)})
    own, levels = values["share"].to_numpy(), values["share"].round(6).nunique()
    response, missing = None, ""
    if (wanted := trainings_needed(others.shape[1])) > len(rows):
        missing = f"{wanted} finished trainings are needed beside so many other settings, and there are {len(rows)}"
    elif levels < LEVELS:
        missing = f"{LEVELS} different shares are needed, and there {'is' if levels == 1 else 'are'} {levels}"
    else:
        errors = trainings.errors[:, known, sweep.judged.index(metric)]
        response = respond(own, others, values["value"].to_numpy(), errors)
        missing = "" if response is not None else "the share moved together with other settings"
    return Law(metric, source, bound, values, response, missing)


def _others(sweep: Sweep, rows: pd.DataFrame, shares: pd.DataFrame) -> np.ndarray:
    """What else differs between the trainings, a column each, scaled to a standard deviation of 1: settings, numbers above 0
    as logarithms, and the proportions of the other sources."""
    columns: list[np.ndarray] = []
    for path in [path for path in sweep.space if not path.startswith(_NO_OTHERS)]:
        values = without_gaps(rows[path])
        if values and not isinstance(values[0], str):
            numbers = np.array(values, dtype=float)
            columns.append(np.log(numbers) if numbers.min() > 0 else numbers)
        else:
            columns += [np.array([one == level for one in values], dtype=float) for level in sorted(set(values))[1:]]
    together = shares.sum(axis=1)
    for name in list(shares.columns)[:-1]:
        part = shares[name] / together.where(together > 1e-9)
        columns.append(part.fillna(part.mean()).to_numpy(dtype=float))
    differing = [one for one in columns if np.ptp(one) > 1e-9]
    return np.column_stack([one / one.std() for one in differing]) if differing else np.empty((len(rows), 0))


# ---------------------------------------------------------------------- for readers


def sentences(found: Sequence[Law]) -> list[str]:
    """The shares that keep the bounds, as far as the trainings tell, and what is missing for the others."""
    texts = [_sentence(one) for one in found if one.bound is not None and one.response is not None]
    for missing in dict.fromkeys(one.missing for one in found if one.missing):
        which = dict.fromkeys(labels.metric_name(one.metric) for one in found if one.missing == missing)
        verb = "depends" if len(which) == 1 else "depend"
        texts.append(f"These trainings cannot tell how {' and '.join(which)} {verb} on the mix: {missing}.")
    return texts


def _sentence(one: Law) -> str:
    found, response = one.needed, one.response
    assert found is not None and response is not None and one.bound is not None
    bound = labels.constraint_words(one.bound)
    name = bound[0].upper() + bound[1:]
    least, most = _share(one, response.shares[0], "nearest"), _share(one, response.shares[-1], "nearest")
    low, high = _share(one, found.low, "down"), _share(one, found.high, "up")
    if found.verdict == "everywhere":
        return f"{name}: at every {one.source} share that was tried ({least} to {most})."
    if found.verdict == "nowhere":
        return f"{name}: at no {one.source} share that was tried ({least} to {most})."
    if found.verdict == "cannot tell":
        return f"{name}: these trainings cannot tell which {one.source} share keeps it ({least} to {most} were tried)."
    kept, broken = (high, low) if found.verdict == "from" else (low, high)
    way, on, less = ("from", " on", "less") if found.verdict == "from" else ("up to", "", "more")
    if found.share is not None:
        share = _share(one, found.share, "nearest")
        return f"{name}: {way} a {one.source} share of {share}{on} (95 % interval {low} to {high})."
    if kept:
        return f"{name}: {way} a {one.source} share of {kept}{on}. These trainings cannot tell whether {less} is enough."
    turned, on = ("up to", "") if found.verdict == "from" else ("from", " on")
    return (
        f"{name}: not {turned} a {one.source} share of {broken}{on}. These trainings cannot tell whether any other share that "
        f"was tried ({least} to {most}) keeps it."
    )


def _share(one: Law, share: float | None, way: Literal["down", "up", "nearest"]) -> str:
    """A share in two digits, three in a narrow range; ends of intervals are rounded outwards. Empty where it is unknown."""
    if share is None:
        return ""
    assert one.response is not None
    least, most = one.response.shares[0], one.response.shares[-1]
    digits = 2 if most - least > 0.2 else 3
    places = 10.0**digits * share
    rounded = {"down": math.floor(places + 1e-6), "up": math.ceil(places - 1e-6), "nearest": round(places)}[way]
    return f"{rounded / 10.0**digits:.{digits}f}"


def table(found: Sequence[Law]) -> Table:
    """A row for each law that could be fitted."""
    heads = [Column("metric"), Column("share of"), Column("trainings", number=True), Column("tried", number=True)]
    heads += [Column("at the least share", number=True), Column("at the largest", number=True)]
    heads += [Column("change", "from the least share to the largest", number=True), Column("bound")]
    heads += [Column("share that keeps it", "with its 95 % interval", number=True)]
    rows = []
    for one in found:
        if (response := one.response) is None:
            continue
        tried = [_share(one, end, "nearest") for end in response.shares[[0, -1]]]
        ends = [_level(one.metric, response.mean[at], response.low[at], response.high[at]) for at in (0, -1)]
        bound = labels.constraint_sign(one.bound) if one.bound is not None else labels.MISSING
        cells = [labels.column(one.metric), one.source, one.trainings, " to ".join(tried), *ends]
        rows.append([*cells, _level(one.metric, *response.change), bound, _kept(one)])
    return Table.of(heads, rows)


def _level(metric: str, value: float, low: float, high: float) -> Beside:
    return Beside(labels.percent(metric, value), f"{labels.percent(metric, low)} to {labels.percent(metric, high)}")


def _kept(one: Law) -> str | Beside:
    if (found := one.needed) is None:
        return labels.MISSING
    low, high = _share(one, found.low, "down"), _share(one, found.high, "up")
    if found.share is not None:
        return Beside(f"{found.verdict} {_share(one, found.share, 'nearest')}", f"{low} to {high}")
    if found.verdict == "from" and high:
        return f"from {high} at the latest"
    if found.verdict == "up to" and low:
        return f"up to {low} at least"
    return {"everywhere": "any", "nowhere": "none"}.get(found.verdict, "cannot tell")


def frame(found: Sequence[Law]) -> pd.DataFrame:
    """A row for each law: metric, source, trainings, missing, bound, least and most (the shares that were tried), change,
    change_low, change_high, verdict, and share, share_low, share_high (see `Needed`)."""
    rows = []
    for one in found:
        response, kept = one.response, one.needed
        tried, change = ((np.nan,) * 2, (np.nan,) * 3) if response is None else (response.shares[[0, -1]], response.change)
        row = [one.metric, one.source, one.trainings, one.missing, str(one.bound) if one.bound else None, *tried, *change]
        rows.append([*row, *([kept.verdict, kept.share, kept.low, kept.high] if kept else [None] * 4)])
    columns = ["metric", "source", "trainings", "missing", "bound", "least", "most", "change", "change_low", "change_high"]
    made = pd.DataFrame(rows, columns=[*columns, "verdict", "share", "share_low", "share_high"])
    return made.astype(dict.fromkeys(made.columns[-3:], float))


def as_dict(found: Sequence[Law]) -> list[dict[str, Any]]:
    """The laws as plain JSON values; metrics are shares, bits per byte or nats."""
    rows = []
    for one in found:
        row: dict[str, Any] = {"metric": one.metric, "source": one.source, "trainings": one.trainings, "missing": one.missing}
        row["bound"] = str(one.bound) if one.bound is not None else None
        row["tried"] = row["change"] = row["needed"] = None
        if one.response is not None:
            row["tried"] = [float(one.response.shares[at]) for at in (0, -1)]
            row["change"] = dict(zip(("value", "low", "high"), one.response.change, strict=True))
        if (kept := one.needed) is not None:
            row["needed"] = {"verdict": kept.verdict, "share": kept.share, "low": kept.low, "high": kept.high}
        rows.append(plain(row))
    return rows
