"""The effects of an ablation: numbers made of several cells' metrics, with intervals over documents and seeds.

Every effect is (to first order) a weighted sum of the cells' metrics within a seed. Its value is therefore known per seed, and
its sampling error per document follows from the metrics' own influence functions; `intervals.spread` makes an interval of both,
as it does for a single trial. All cells answer the same documents, and a seed draws the same rows and initial weights in each.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from scipy import stats

from analysis.ablations.answer import RATE, Effect
from analysis.ablations.cells import Cells, Unknown
from analysis.ablations.questions import Beyond, EffectRule, Exceeds, Groups, Selection, Slope, Spread, Term
from analysis.metrics.definitions import RATES
from analysis.metrics.names import LEARNING, split_metric
from analysis.stats import intervals
from trials.ledger.record import TrialRecord

# shares of documents and their differences: never beyond 1
_SHARES = ("value", "base", "gain", "drop", "marker_drop", "stopped_drop", "flexible_drop")
_KNOTS = 3  # pieces of the spline that describes the effect of learning alone


@dataclass
class Sum:
    """A weighted sum of metrics within each seed, and how each document moves it."""

    values: np.ndarray
    """Shape (r,)."""
    influence: dict[str, np.ndarray]
    """By the documents' digest, (r, c): metrics and roles of the same documents move together."""
    floor: float
    """Variance of a few flips of documents, whether any was seen or not."""
    documents: int

    def __add__(self, other: "Sum") -> "Sum":
        moved = dict(self.influence)
        for digest, part in other.influence.items():
            moved[digest] = moved.get(digest, 0.0) + part
        values, documents = self.values + other.values, max(self.documents, other.documents)
        return Sum(values, moved, max(self.floor, other.floor), documents)

    @cached_property
    def moved(self) -> np.ndarray:
        """Shape (r, c) over all documents; its mean over c is the sum's sampling error."""
        # sets of documents of different sizes side by side: each keeps its own mean
        parts = list(self.influence.values())
        total = sum(part.shape[1] for part in parts)
        return np.concatenate([part * (total / part.shape[1]) for part in parts], axis=1)


def weighted(cells: Cells, metric: str, weights: np.ndarray) -> Sum:
    """The metric's sum over cells with `weights` (t, r)."""
    column = cells.column(metric)
    used = (weights != 0).any(axis=1)
    values = (weights[used] * column.values[used]).sum(axis=0)
    if not used.any() or not np.isfinite(values).all():
        raise Unknown(metric)
    if column.influence is None:
        return Sum(values, {}, 0.0, column.documents)
    influence = {column.digest: np.einsum("tr,trc->rc", weights[used], column.influence[used])}
    # one document's flips under several seeds are not independent, so more seeds do not lower the floor
    floor = 2 * (float(np.abs(weights).max()) * column.flip / (column.documents + 2)) ** 2
    return Sum(values, influence, floor, column.documents)


def _nowhere(cells: Cells) -> np.ndarray:
    """Weights of 0."""
    return np.zeros((len(cells.records), cells.seeds))


def _mean(cells: Cells, selection: Selection) -> np.ndarray:
    """Weights of the cells' mean."""
    places = cells.find(selection)
    if not len(places):
        raise Unknown(f"no cell {selection}")
    weights = _nowhere(cells)
    weights[places] = 1 / len(places)
    return weights


def _sum(cells: Cells, terms: Sequence[Term]) -> Sum:
    first, *others = (weighted(cells, term.metric, term.weight * _mean(cells, term.cells)) for term in terms)
    return sum(others, first)


def _slope(cells: Cells, slope: Slope) -> Sum:
    places = cells.find(slope.cells)
    learned = cells.column(slope.at).values[places]
    # adapters double in rank, so an effect of rank is one of its logarithm
    steps = np.log2([float(cells.params[place][slope.over]) for place in places])
    weights = _nowhere(cells)
    if len(places) < 3 or np.ptp(steps) == 0 or not np.isfinite(learned).all():
        raise Unknown(slope.over)
    # a coefficient of least squares is a weighted sum of what is fitted; its weights are a row of the pseudo-inverse
    for seed in range(cells.seeds):
        design = np.column_stack([spline(learned[:, seed]), steps])
        weights[places, seed] = np.linalg.pinv(design)[-1] * np.ptp(steps)
    return weighted(cells, slope.metric, weights)


def spline(x: np.ndarray) -> np.ndarray:
    """A constant, x, and x beyond each knot; knots split the points evenly, with at least six points a piece."""
    pieces = min(_KNOTS, max(1, len(x) // 6))
    knots = np.quantile(x, np.arange(1, pieces) / pieces)
    return np.column_stack([np.ones_like(x), x, *(np.maximum(x - knot, 0) for knot in knots)])


def _beyond(cells: Cells, beyond: Beyond) -> Sum:
    own, curve = cells.find(beyond.cells), cells.find(beyond.curve)
    learned = cells.column(beyond.at).values
    if not len(own) or not len(curve) or not np.isfinite(learned[np.append(own, curve)]).all():
        raise Unknown(beyond.at)
    curve = unbeaten(curve, learned, cells.column(beyond.metric).values)
    weights = _nowhere(cells)
    for seed in range(cells.seeds):
        order = curve[np.argsort(learned[curve, seed])]
        x = np.append(0.0, learned[order, seed])  # the untrained base, which learns and forgets nothing
        for place in own:
            shares = np.array([np.interp(learned[place, seed], x, one) for one in np.eye(len(x))])
            weights[place, seed] += 1 / len(own)
            np.subtract.at(weights[:, seed], order, shares[1:] / len(own))
    return weighted(cells, beyond.metric, weights)


def unbeaten(curve: np.ndarray, learned: np.ndarray, metric: np.ndarray) -> np.ndarray:
    """The curve's points without those that another beats, in the mean over seeds: more learned, less of the metric."""
    x, y = learned[curve].mean(axis=1), metric[curve].mean(axis=1)
    beaten = ((x[None] >= x[:, None]) & (y[None] < y[:, None])).any(axis=1)
    return curve[~beaten]


def _spread(cells: Cells, spread: Spread) -> Sum:
    mean = _mean(cells, spread.cells)
    parts = [weighted(cells, name, mean) for name in spread.metrics]
    values = np.array([part.values for part in parts])
    sd = values.std(axis=0, ddof=1)
    # a document moves the deviation by its gradient, one for each metric
    gradient = (values - values.mean(axis=0)) / np.maximum((len(parts) - 1) * sd, 1e-12)
    found = Sum(sd, {}, 0.0, parts[0].documents)
    for one, part in zip(gradient, parts, strict=True):
        moved = {digest: one[:, None] * influence for digest, influence in part.influence.items()}
        found += Sum(np.zeros_like(sd), moved, part.floor, part.documents)
    return found


def _exceeding(cells: Cells, exceeds: Exceeds) -> Sum:
    role, places = exceeds.role, cells.find(exceeds.cells)
    by_cell = [[_larger(one, cells.bases[place], role) for one in cells.records[place]] for place in places]
    if not by_cell:
        raise Unknown(role)
    shares = np.mean(by_cell, axis=0)
    values, documents = shares.mean(axis=1), shares.shape[1]
    labels = cells.bases[places[0]].outcomes[role].column("cluster")
    clusters, inverse = np.unique(np.arange(documents) if labels is None else labels, return_inverse=True)
    moved = np.zeros((len(shares), len(clusters)))
    np.add.at(moved.T, inverse, (shares - values[:, None]).T)
    return Sum(values, {role: moved * (len(clusters) / documents)}, 2 * (1 / (documents + 2)) ** 2, documents)


def _larger(record: TrialRecord, base: TrialRecord, role: str) -> np.ndarray:
    """By document, 1 if the base's margin is larger than its shift, else 0."""
    sides = [one.outcomes[role].column("margin") if role in one.outcomes else None for one in (record, base)]
    if sides[0] is None or sides[1] is None or record.outcomes[role].documents != base.outcomes[role].documents:
        raise Unknown(role)
    tuned, before = (side.astype(float) for side in sides if side is not None)
    larger: np.ndarray = (np.abs(before) > np.abs(tuned - before)).astype(float)
    return larger


# ---------------------------------------------------------------------- a number with its interval


@dataclass(frozen=True)
class Estimate:
    """An effect with the parts of its variance."""

    effect: Effect
    interval: Callable[[int], tuple[float, float]]
    """(low, high) for one of this many simultaneous intervals (see intervals.reach)."""
    decides: bool
    """Whether there are enough seeds to decide anything by it."""
    of_seeds: float = np.nan
    """Variance between seeds of one run of all documents."""
    of_documents: float = np.nan
    of_rest: float = np.nan
    clusters: int = 1
    floor: float = 0.0

    def error(self, seeds: int) -> tuple[float, float]:
        """Standard error with this many seeds, and its degrees of freedom."""
        seed = self.of_seeds / seeds
        document = self.of_documents / self.clusters + self.floor
        rest = self.of_rest / (seeds * self.clusters)
        variance = seed + document + rest
        clusters = max(self.clusters - 1, 1)
        parts = seed**2 / max(seeds - 1, 1) + document**2 / clusters + rest**2 / (max(seeds - 1, 1) * clusters)
        # Satterthwaite's degrees of freedom
        freedom = variance**2 / parts if parts > 0 else self.clusters - 1.0
        return float(np.sqrt(variance)), max(float(freedom), 1.0)


_SUMS: dict[type, Callable[[Cells, Any], Sum]] = {
    tuple: _sum,
    Slope: _slope,
    Beyond: _beyond,
    Spread: _spread,
    Exceeds: _exceeding,
}


def estimate(cells: Cells, name: str, rule: EffectRule) -> Estimate:
    """The effect with its interval; NaN, and deciding nothing, if cells are missing."""
    try:
        if isinstance(rule.form, Groups):
            return _grouped(cells, name, rule, rule.form)
        return _interval(cells, name, rule, _SUMS[type(rule.form)](cells, rule.form))
    except Unknown:
        unknown = Effect(name, rule.text, _unit(rule), np.nan, np.nan, np.nan, np.nan, (), 0)
        return Estimate(unknown, lambda of: (np.nan, np.nan), decides=False)


def _interval(cells: Cells, name: str, rule: EffectRule, found: Sum) -> Estimate:
    values, r = found.values, len(found.values)
    between = float(values.var(ddof=1)) if r > 1 else 0.0
    c, rest, documents, seeds = 1, 0.0, 0.0, between
    if found.influence:
        # seeds and documents are crossed: two-way random effects, with the interaction as the rest
        moved, c = found.moved, found.moved.shape[1]
        rest = float(np.square(moved - moved.mean(axis=0)).sum() / ((r - 1) * (c - 1))) if r > 1 else 0.0
        # a variance that is estimated below 0 is 0
        documents = max(float(r * np.square(moved.mean(axis=0)).sum() / (c - 1)) - rest, 0.0) / r
        seeds = max(c * between - rest, 0.0) / c
    variance = float(intervals.spread(found.moved[None], values[None])[0][0]) if found.influence else seeds / r
    value, se = float(values.mean()), float(np.sqrt(variance + found.floor))
    # a weighted sum of shares is never beyond the sum of its weights
    bounded = all(split_metric(name)[1] in _SHARES for name in rule.metrics())
    most = sum(abs(term.weight) for term in rule.sum or ()) if bounded else 0.0
    signed = not isinstance(rule.form, Spread)

    # shares have a floor; a metric without one has no bounds either
    unbounded = bool(found.influence) and not found.floor
    skew = intervals.skewness(found.moved[None], np.array([variance])) if unbounded else np.zeros(1)
    enough = not unbounded or c >= intervals.FEWEST

    def ends(of: int) -> tuple[float, float]:
        if not enough:
            return np.nan, np.nan
        reached = np.reshape(intervals.reach(max(r - 1, 1), of), 1)
        if found.influence:
            reached = intervals.spread(found.moved[None], values[None], of, not unbounded)[1]
        low, high = (float(end[0]) for end in intervals.skewed_interval(np.array([value]), np.array([se**2]), reached, skew))
        if not signed:  # a size is never below 0
            low = max(low, 0.0)
        return (max(low, -most), min(high, most)) if most else (low, high)

    per_seed = tuple(float(one) for one in values)
    effect = Effect(name, rule.text, _unit(rule), value, *ends(1), se, per_seed, found.documents, signed)
    return Estimate(effect, ends, enough and (r > 1 or cells.untrained), seeds, documents, rest, c, found.floor)


def _grouped(cells: Cells, name: str, rule: EffectRule, groups: Groups) -> Estimate:
    column = cells.column(groups.metric).values
    means = [[float(column[cells.find({groups.path: value})].mean()) for value in group] for group in groups.groups]
    sizes = np.array([len(group) for group in means])
    everything = np.concatenate(means)
    if not np.isfinite(everything).all() or len(means) < 2 or len(everything) <= len(means):
        raise Unknown(groups.metric)
    k, n = len(means), len(everything)
    size = (n - np.square(sizes).sum() / n) / (k - 1)  # the effective size of a group where sizes differ
    between = sum(len(one) * (np.mean(one) - everything.mean()) ** 2 for one in means) / (k - 1)
    inside = sum(((np.array(one) - np.mean(one)) ** 2).sum() for one in means) / (n - k)
    ratio = between / inside if inside > 0 else np.inf

    def share(f: float) -> float:
        return 1.0 if np.isinf(f) else float(np.clip((f - 1) / (f + size - 1), 0.0, 1.0))

    def ends(of: int) -> tuple[float, float]:
        tail = (1 - intervals.LEVEL) / (2 * of)
        low, high = (share(ratio / stats.f.ppf(p, k - 1, n - k)) for p in (1 - tail, tail))
        return low, high

    effect = Effect(name, rule.text, "share", share(ratio), *ends(1), np.nan, tuple(map(float, everything)), 0)
    return Estimate(effect, ends, decides=True)


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
