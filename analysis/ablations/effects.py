"""The effects of an ablation: numbers made of several cells' metrics, with intervals over documents and seeds.

Every effect is (to first order) a weighted sum of the cells' metrics within a seed. So its value is known per seed, and its
sampling error per document from the metrics' own influence functions; `intervals.spread` makes an interval of both, as it does
for a single trial. All cells answer the same documents, and a seed is the same draw of rows and of initial weights in each.
"""

import hashlib
import json
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from scipy import stats

from analysis.ablations.answer import RATE, Effect
from analysis.ablations.questions import Beyond, EffectRule, Exceeds, Groups, Slope, Spread, Term
from analysis.ablations.questions import Cells as Wanted
from analysis.metrics.definitions import ALL_KINDS, RATES
from analysis.metrics.names import LEARNING, split_metric
from analysis.results.manifest import Manifest
from analysis.results.sweep import Sweep
from analysis.stats import intervals
from analysis.stats.estimate import learning
from analysis.stats.paired_outcomes import ALL, answers
from trials.errors import InputError
from trials.ledger.record import TrialRecord

AS_TRAINED = {"derive.samples": None, "derive.rank": None, "derive.strength": 1.0, "derive.off": None}
_SHARES = ("value", "base", "gain", "drop", "marker_drop", "stopped_drop", "flexible_drop")  # none of them is beyond 1
_SURE = 10.0  # standard errors that a base's score is to be away from 0, or a share of it says nothing
_KNOTS = 3  # pieces of the spline that stands for what learning alone does


@dataclass(frozen=True)
class Column:
    """A metric of t cells under r seeds."""

    values: np.ndarray
    """Shape (t, r)."""
    influence: np.ndarray | None
    """Shape (t, r, c), see Answers.influence; None of what has no documents."""
    asked: str
    """Which documents: roles that ask the same ones have the same."""
    documents: int
    flip: float
    """What one document that flips moves the metric by; 0 where that is not what it is made of."""


class Cells:
    """The complete points of a sweep with their records, r seeds of each."""

    def __init__(self, sweep: Sweep, planned: Sequence[Mapping[str, Any]] = ()):
        """`planned` are the points of the design: those that are not complete are missing."""
        done = set(sweep.complete["number"])
        asked = [trial for trial in Manifest.read(sweep.folder).trials if trial.number in done]
        most = max((len(trial.keys) for trial in asked), default=0)
        self._asked = [trial for trial in asked if len(trial.keys) == most and trial.baseline in sweep.records]
        self.seeds = most
        self.params = [trial.params for trial in self._asked]
        there = {_canonical(params) for params in self.params}
        self._missing = [params for params in planned if _canonical(params) not in there]
        self.records = [[sweep.records[key] for key in trial.keys] for trial in self._asked]
        self.bases = [sweep.records[str(trial.baseline)] for trial in self._asked]
        self._columns: dict[str, Column] = {}

    @property
    def untrained(self) -> bool:
        return all(record.spec.is_baseline for records in self.records for record in records)

    def find(self, wanted: Wanted) -> np.ndarray:
        """The places of the cells that match; what is derived is left out unless `wanted` names how.

        Raises Unknown where one of them is missing: a mean over those that are there would be another effect.
        """
        gone = sum(matches(params, wanted) for params in self._missing)
        if gone:
            raise Unknown(f"{gone} cells of {wanted}")
        return np.array([place for place, params in enumerate(self.params) if matches(params, wanted)], dtype=int)

    def column(self, metric: str) -> Column:
        if metric not in self._columns:
            role, kind = split_metric(metric)
            self._columns[metric] = self._learning(kind) if role == LEARNING else self._answered(role, kind)
        return self._columns[metric]

    def _learning(self, kind: str) -> Column:
        found = [[learning(record).get(kind, np.nan) for record in records] for records in self.records]
        return Column(np.array(found, dtype=float), None, LEARNING, 0, 0.0)

    def _answered(self, role: str, name: str) -> Column:
        """Cells of several bases answer the same documents, each against its own base."""
        kind = ALL_KINDS[name]
        values = np.full((len(self.records), self.seeds), np.nan)
        influence, clusters, flip, n = None, None, 0.0, 0
        for base in {record.key: record for record in self.bases}.values():
            own = [place for place, one in enumerate(self.bases) if one.key == base.key]
            found = answers([self.records[place] for place in own], base, role, ALL)
            if found is None or not found[0].has(kind):
                continue
            if name in RATES and not _sure(found[0].base["score"]):
                continue
            pairs, places = found[0], np.array(own)[found[1]]
            if clusters is not None and not np.array_equal(clusters, pairs.clusters):
                raise InputError(f"{role}: the bases have not answered the same documents")
            clusters, n = pairs.clusters, pairs.n
            influence = np.zeros((*values.shape, len(clusters))) if influence is None else influence
            values[places], influence[places] = pairs.value(kind), pairs.influence(kind)
            if name == "value":
                flip = 1.0
            elif kind.unit is not None:
                flip = max(flip, float(np.nan_to_num(kind.unit({k: v.mean(dtype=float) for k, v in pairs.base.items()})).max()))
        asked = role if clusters is None else hashlib.sha256(clusters.tobytes()).hexdigest()
        return Column(values, influence, asked, n, flip)


def _sure(base: np.ndarray) -> bool:
    score, n = float(base.mean(dtype=float)), len(base)
    return score > 0 and score >= _SURE * math.sqrt(score * (1 - score) / n)


def _canonical(params: Mapping[str, Any]) -> str:
    return json.dumps(params, sort_keys=True, default=list)


def matches(params: Mapping[str, Any], wanted: Wanted) -> bool:
    """Whether a point's settings are among those that are wanted, what is not named being as it was trained."""
    derived = {path: value for path, value in AS_TRAINED.items() if path in params and path not in wanted}
    return all(path in params and _among(params[path], value) for path, value in {**derived, **wanted}.items())


def _among(value: object, wanted: object) -> bool:
    several = wanted if isinstance(wanted, list | tuple) else (wanted,)
    return any(_equal(value, one) for one in several)


def _equal(value: object, one: object) -> bool:
    if isinstance(value, int | float) and isinstance(one, int | float) and bool not in (type(value), type(one)):
        return math.isclose(value, one, rel_tol=1e-6)  # a factor may have rounded one of them
    return value == one


# ---------------------------------------------------------------------- an effect's parts


class Unknown(Exception):
    """The cells that an effect needs are not there, or do not have the metric."""


@dataclass
class Sum:
    """A weighted sum of metrics within each seed, and how each document moves it."""

    values: np.ndarray
    """Shape (r,)."""
    influence: dict[str, np.ndarray]
    """By the documents that are asked, (r, c): several metrics, or roles, of the same ones move together."""
    floor: float
    """Variance that a few flips of documents, seen or not, stand for."""
    documents: int

    def __iadd__(self, other: "Sum") -> "Sum":
        self.values = self.values + other.values
        for asked, moved in other.influence.items():
            self.influence[asked] = self.influence.get(asked, 0.0) + moved
        self.floor = max(self.floor, other.floor)
        self.documents = max(self.documents, other.documents)
        return self

    @cached_property
    def moved(self) -> np.ndarray:
        """Shape (r, c) over all documents, such that the mean over c is the sum's sampling error."""
        parts = list(self.influence.values())
        total = sum(part.shape[1] for part in parts)
        return np.concatenate([part * (total / part.shape[1]) for part in parts], axis=1)


def weighted(cells: Cells, metric: str, weights: np.ndarray) -> Sum:
    """With weights (t, r)."""
    column = cells.column(metric)
    used = (weights != 0).any(axis=1)
    values = (weights[used] * column.values[used]).sum(axis=0)
    if not used.any() or not np.isfinite(values).all():
        raise Unknown(metric)
    found = Sum(values, {}, 0.0, column.documents)
    if column.influence is not None:
        found.influence[column.asked] = np.einsum("tr,trc->rc", weights[used], column.influence[used])
        largest = float(np.abs(weights).max())
        # the flips of one document under several seeds tell of each other, so seeds make no documents
        found.floor = 2 * (largest * column.flip / (column.documents + 2)) ** 2
    return found


def _mean(cells: Cells, wanted: Wanted) -> np.ndarray:
    places = cells.find(wanted)
    if not len(places):
        raise Unknown(f"no cell {wanted}")
    weights = np.zeros((len(cells.records), cells.seeds))
    weights[places] = 1 / len(places)
    return weights


def _sum(cells: Cells, terms: Sequence[Term]) -> Sum:
    parts = [weighted(cells, term.metric, term.weight * _mean(cells, term.cells)) for term in terms]
    found = parts[0]
    for part in parts[1:]:
        found += part
    return found


def _slope(cells: Cells, slope: Slope) -> Sum:
    places = cells.find(slope.cells)
    learned = cells.column(slope.at).values[places]
    steps = np.log2([float(cells.params[place][slope.over]) for place in places])
    weights = np.zeros((len(cells.records), cells.seeds))
    if len(places) < 3 or np.ptp(steps) == 0 or not np.isfinite(learned).all():
        raise Unknown(slope.over)
    for seed in range(cells.seeds):
        design = np.column_stack([spline(learned[:, seed]), steps])
        weights[places, seed] = np.linalg.pinv(design)[-1] * np.ptp(steps)
    return weighted(cells, slope.metric, weights)


def spline(x: np.ndarray) -> np.ndarray:
    """A constant, x, and x beyond each knot, at equal shares of the points: as many columns as a third of the points bear."""
    pieces = min(_KNOTS, max(1, len(x) // 6))
    knots = np.quantile(x, np.arange(1, pieces) / pieces)
    return np.column_stack([np.ones_like(x), x, *(np.maximum(x - knot, 0) for knot in knots)])


def _beyond(cells: Cells, beyond: Beyond) -> Sum:
    own, curve = cells.find(beyond.cells), cells.find(beyond.curve)
    learned = cells.column(beyond.at).values
    if not len(own) or not len(curve) or not np.isfinite(learned[np.append(own, curve)]).all():
        raise Unknown(beyond.at)
    curve = unbeaten(curve, learned, cells.column(beyond.metric).values)
    weights = np.zeros((len(cells.records), cells.seeds))
    for seed in range(cells.seeds):
        order = curve[np.argsort(learned[curve, seed])]
        x = np.append(0.0, learned[order, seed])
        for place in own:
            shares = np.array([np.interp(learned[place, seed], x, one) for one in np.eye(len(x))])
            weights[place, seed] += 1 / len(own)
            np.subtract.at(weights[:, seed], order, shares[1:] / len(own))
    return weighted(cells, beyond.metric, weights)


def unbeaten(curve: np.ndarray, learned: np.ndarray, metric: np.ndarray) -> np.ndarray:
    """The points of a curve than which no other one has, in the mean over seeds, more learnt and less of the metric."""
    x, y = learned[curve].mean(axis=1), metric[curve].mean(axis=1)
    beaten = ((x[None] >= x[:, None]) & (y[None] < y[:, None])).any(axis=1)
    return curve[~beaten]


def _spread(cells: Cells, spread: Spread) -> Sum:
    mean = _mean(cells, spread.cells)
    parts = [weighted(cells, name, mean) for name in spread.metrics]
    values = np.array([part.values for part in parts])
    sd = values.std(axis=0, ddof=1)
    gradient = (values - values.mean(axis=0)) / np.maximum((len(parts) - 1) * sd, 1e-12)
    together = Sum(sd, {}, 0.0, parts[0].documents)
    for one, part in zip(gradient, parts, strict=True):
        moved = {asked: one[:, None] * influence for asked, influence in part.influence.items()}
        together += Sum(np.zeros_like(sd), moved, part.floor, part.documents)
    return together


# ---------------------------------------------------------------------- a number with its interval


@dataclass(frozen=True)
class Reckoned:
    """An effect, and what its error is made of."""

    effect: Effect
    of_seeds: float
    """Variance between seeds of one run of all documents, and so on."""
    of_documents: float
    of_rest: float
    clusters: int
    floor: float
    decides: bool
    """Whether there are seeds enough to decide anything by it."""
    interval: Callable[[int], tuple[float, float]]
    """Its ends, as of one of so many (see intervals.reach)."""

    def error(self, seeds: int) -> tuple[float, float]:
        """Its standard error with so many seeds, and that error's degrees of freedom."""
        seed = self.of_seeds / seeds
        document = self.of_documents / self.clusters + self.floor
        rest = self.of_rest / (seeds * self.clusters)
        variance = seed + document + rest
        clusters = max(self.clusters - 1, 1)
        parts = seed**2 / max(seeds - 1, 1) + document**2 / clusters + rest**2 / (max(seeds - 1, 1) * clusters)
        freedom = variance**2 / parts if parts > 0 else self.clusters - 1.0
        return float(np.sqrt(variance)), max(float(freedom), 1.0)


def reckon(cells: Cells, name: str, rule: EffectRule) -> Reckoned:
    """An effect that is NaN, and decides nothing, where cells are missing."""
    form = rule.form
    try:
        if isinstance(form, Groups):
            return _grouped(cells, name, rule, form)
        if isinstance(form, Exceeds):
            return _exceeding(cells, name, rule, form)
        if isinstance(form, tuple):
            found = _sum(cells, form)
        elif isinstance(form, Slope):
            found = _slope(cells, form)
        else:
            found = _beyond(cells, form) if isinstance(form, Beyond) else _spread(cells, form)
        return _interval(cells, name, rule, found)
    except Unknown:
        nothing = Effect(name, rule.text, _unit(rule), np.nan, np.nan, np.nan, np.nan, (), 0)
        return Reckoned(nothing, np.nan, np.nan, np.nan, 1, 0.0, False, lambda of: (np.nan, np.nan))


def _interval(cells: Cells, name: str, rule: EffectRule, found: Sum) -> Reckoned:
    """Seeds and documents are crossed (see intervals.spread); without documents there are the seeds alone."""
    values, r = found.values, len(found.values)
    seeds_only = values.var(ddof=1) if r > 1 else 0.0
    if found.influence:
        moved = found.moved
        c = moved.shape[1]
        variance = float(intervals.spread(moved[None], values[None])[0][0])
        rest = float(np.square(moved - moved.mean(axis=0)).sum() / ((r - 1) * (c - 1))) if r > 1 else 0.0
        documents = max(float(r * np.square(moved.mean(axis=0)).sum() / (c - 1)) - rest, 0.0) / r
        seeds = max(c * seeds_only - rest, 0.0) / c
    else:
        c, rest, documents, seeds = 1, 0.0, 0.0, float(seeds_only)
        variance = seeds / r
    value, se = float(values.mean()), float(np.sqrt(variance + found.floor))
    per_seed = tuple(float(one) for one in values)
    bounded = all(split_metric(name)[1] in _SHARES for name in rule.metrics())
    most = sum(abs(term.weight) for term in rule.sum or ()) if bounded else 0.0
    signed = not isinstance(rule.form, Spread)

    def ends(of: int) -> tuple[float, float]:
        reached = intervals.reach(max(r - 1, 1), of)
        if found.influence:
            reached = intervals.spread(found.moved[None], values[None], of)[1][0]
        low, high = value - float(reached) * se, value + float(reached) * se
        if not signed:
            low = max(low, 0.0)
        return (max(low, -most), min(high, most)) if most else (low, high)

    effect = Effect(name, rule.text, _unit(rule), value, *ends(1), se, per_seed, found.documents, signed)
    return Reckoned(effect, seeds, documents, rest, c, found.floor, r > 1 or cells.untrained, ends)


def _grouped(cells: Cells, name: str, rule: EffectRule, groups: Groups) -> Reckoned:
    column = cells.column(groups.metric).values
    means = [[float(column[cells.find({groups.path: value})].mean()) for value in group] for group in groups.groups]
    sizes = np.array([len(group) for group in means])
    everything = np.concatenate(means)
    if not np.isfinite(everything).all() or len(means) < 2 or len(everything) <= len(means):
        raise Unknown(groups.metric)
    k, n = len(means), len(everything)
    size = (n - np.square(sizes).sum() / n) / (k - 1)  # of a group, where they are not alike
    between = sum(len(one) * (np.mean(one) - everything.mean()) ** 2 for one in means) / (k - 1)
    inside = sum(((np.array(one) - np.mean(one)) ** 2).sum() for one in means) / (n - k)
    ratio = between / inside if inside > 0 else np.inf

    def share(f: float) -> float:
        return 1.0 if np.isinf(f) else float(np.clip((f - 1) / (f + size - 1), 0.0, 1.0))

    def ends(of: int) -> tuple[float, float]:
        tail = (1 - intervals.LEVEL) / (2 * of)
        low, high = (share(ratio / stats.f.ppf(p, k - 1, n - k)) for p in (1 - tail, tail))
        return low, high

    told = Effect(name, rule.text, "share", share(ratio), *ends(1), np.nan, tuple(map(float, everything)), 0)
    return Reckoned(told, np.nan, np.nan, np.nan, 1, 0.0, True, ends)


def _exceeding(cells: Cells, name: str, rule: EffectRule, exceeds: Exceeds) -> Reckoned:
    places = cells.find(exceeds.cells)
    rows = []
    for seed in range(cells.seeds):
        found = [_larger(cells.records[place][seed], cells.bases[place], exceeds.role) for place in places]
        rows.append(np.mean(found, axis=0) if found else np.zeros(0))
    if not len(places) or not rows[0].size:
        raise Unknown(exceeds.role)
    shares = np.array(rows)
    values, documents = shares.mean(axis=1), shares.shape[1]
    labels = cells.bases[places[0]].outcomes[exceeds.role].column("cluster")
    moved = _within(shares - values[:, None], np.arange(documents) if labels is None else labels)
    floor = 2 * (1 / (documents + 2)) ** 2
    return _interval(cells, name, rule, Sum(values, {exceeds.role: moved}, floor, documents))


def _within(moved: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """Documents (r, n) added up within clusters, (r, c), such that the mean stays."""
    clusters, places = np.unique(labels, return_inverse=True)
    found = np.zeros((len(moved), len(clusters)))
    np.add.at(found.T, places, moved.T)
    return found * (len(clusters) / moved.shape[1])


def _larger(record: TrialRecord, base: TrialRecord, role: str) -> np.ndarray:
    sides = [one.outcomes[role].column("margin") if role in one.outcomes else None for one in (record, base)]
    if sides[0] is None or sides[1] is None or record.outcomes[role].documents != base.outcomes[role].documents:
        raise Unknown(role)
    tuned, before = (side.astype(float) for side in sides if side is not None)
    larger: np.ndarray = (np.abs(before) > np.abs(tuned - before)).astype(float)
    return larger


def _unit(rule: EffectRule) -> str:
    if rule.groups is not None:
        return "share"
    first = (rule.metrics() or ["commonsense.gain"])[0]
    role, kind = split_metric(first)
    if role == LEARNING:
        return "nats a token"
    if kind in RATES:
        return RATE
    return "bits a byte" if "bpb" in kind else "points"
