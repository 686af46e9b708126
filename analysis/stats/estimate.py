"""Values, standard errors and intervals of every metric, from the records of settings and of their baselines.

Errors come from paired outcomes where a setting and its baseline answered the same documents. Otherwise they come from the
scores' standard errors as for independent samples, which is too wide for shared documents.
"""

from collections import defaultdict
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from analysis.metrics.definitions import ALL_KINDS, CHANCE_KINDS, CHANGES, KINDS, PAIRED_KINDS, Kind, Means, kinds
from analysis.metrics.names import LEARNING, LEARNING_KINDS, Estimate, joint, split_metric
from analysis.stats import intervals
from analysis.stats.paired_outcomes import Answers, answers, scale_of, slope
from trials.ledger.outcomes import ALL, Scale, Split, of_document
from trials.ledger.record import Score, TrialRecord

_AT_ONCE = 2_000_000  # outcomes of one column in memory


@dataclass(frozen=True)
class Setting:
    """A point of a sweep: a complete record for each replicate, and the baseline's complete record."""

    records: Sequence[TrialRecord]
    base: TrialRecord | None


@dataclass(frozen=True)
class Measured:
    """A metric of t settings in arrays of shape (t,); NaN where undefined or unknown."""

    value: np.ndarray
    """Mean over the replicates."""
    stderr: np.ndarray
    sd: np.ndarray
    """Sample standard deviation between replicates."""
    low: np.ndarray
    high: np.ndarray
    """Upper end of the 95 % interval; `low` is the lower one."""
    least: np.ndarray
    most: np.ndarray
    """The range in which a change of a share can lie; infinite for other metrics. Intervals are within it."""
    paired: np.ndarray
    known: np.ndarray
    """Whether the metric was measured, even where its value is undefined."""


def empty(t: int) -> Measured:
    value, stderr, sd, low, high = np.full((5, t), np.nan)
    least, most = np.full(t, -np.inf), np.full(t, np.inf)
    return Measured(value, stderr, sd, low, high, least, most, paired=np.zeros(t, bool), known=np.zeros(t, bool))


def scores(record: TrialRecord, split: Split) -> dict[str, dict[str, Score]]:
    """By role, then by name, the role's own as "score". A role without a document in the split is left out; a record without
    halves has its scores on all documents."""
    found = {}
    for role, score in record.scores.items():
        halves = record.halves.get(role, {})
        if split == ALL or not halves:
            found[role] = {**record.details.get(role, {}), "score": score}
        elif split in halves:
            found[role] = halves[split]
    return found


def measure(
    records: Sequence[TrialRecord], base: TrialRecord | None, split: Split = ALL, also: Iterable[str] = ()
) -> dict[str, Estimate | None]:
    """Every metric of one setting by name, and of those of several roles the ones that `also` names; None where it is
    undefined."""
    found = {}
    settings = [Setting(records, base)]
    for name, one in (measure_all(settings, split) | measure_joint(settings, also, split)).items():
        if one.known[0]:
            value, stderr, sd = (None if np.isnan(x[0]) else float(x[0]) for x in (one.value, one.stderr, one.sd))
            found[name] = None if value is None else Estimate(value, stderr, bool(one.paired[0]), sd)
    return found


Watch = Callable[[str, np.ndarray, Answers], None]


def measure_all(
    settings: Sequence[Setting],
    split: Split = ALL,
    errors: bool = True,
    watch: Watch | None = None,
    only: Collection[str] | None = None,
) -> dict[str, Measured]:
    """Every metric of one role by name, or `only` these and those of several roles among them; arrays in the settings' order.
    Without `errors` only values, in a tenth of the time, and PAIRED_KINDS where `only` names them.

    `watch` is called with a role, the settings' places and their answers wherever these pair with the baseline's.
    """
    roles = None if only is None else {name.partition(".")[0] for name in only}
    found: dict[str, Measured] = {}
    for places, group in _groups(settings):
        named = [[scores(record, split) for record in setting.records] for setting in group]
        base = group[0].base
        base_named = scores(base, split) if base is not None else {}
        for role in dict.fromkeys(role for one in named for replicate in one for role in replicate):
            if roles is not None and role not in roles:
                continue
            scale = scale_of(role, *([base] if base else ()), *(record for setting in group for record in setting.records))
            tuned = [[one.get(role, {}) for one in replicates] for replicates in named]
            columns = _Columns(tuned, base_named.get(role, {}), scale)
            wanted = errors or any(f"{role}.{name}" in (only or ()) for name in PAIRED_KINDS)
            pairing = answers([one.records for one in group], base, role, split) if wanted else None
            columns.pair(pairing)
            if watch is not None and pairing is not None:
                watch(role, places[pairing[1]], pairing[0])
            for name, kind in columns.kinds():
                if only is not None and f"{role}.{name}" not in only:
                    continue
                whole = found.setdefault(f"{role}.{name}", empty(len(settings)))
                _put(whole, places, _measured(name, kind, columns, pairing if errors else None))
        for name, values in _learning(group).items():
            whole = found.setdefault(name, empty(len(settings)))
            _put(whole, places, values)
    return found | measure_joint(settings, only or (), split, errors, watch)


def measure_joint(
    settings: Sequence[Setting], names: Iterable[str], split: Split = ALL, errors: bool = True, watch: Watch | None = None
) -> dict[str, Measured]:
    """Those of the metrics `names` that are of several roles, as `measure_all` gives those of one; for settings that answered
    the base's documents in each role."""
    found: dict[str, Measured] = {}
    wanted = [split_metric(name) for name in joint(names)]
    for places, group in _groups(settings) if wanted else ():
        for role in dict.fromkeys(role for role, _ in wanted):
            pairing = answers([one.records for one in group], group[0].base, role, split)
            if pairing is None:
                continue
            if watch is not None:
                watch(role, places[pairing[1]], pairing[0])
            columns = _Joint(pairing, len(group))
            for kind in (kind for of_role, kind in wanted if of_role == role):
                whole = found.setdefault(f"{role}.{kind}", empty(len(settings)))
                _put(whole, places, _measured(kind, pairing[0].kind(kind), columns, pairing if errors else None))
    return found


def _groups(settings: Sequence[Setting]) -> Iterator[tuple[np.ndarray, list[Setting]]]:
    """Settings of one baseline and one number of replicates with their places, in groups whose outcomes fit in memory."""
    # these stack into one array without gaps; a setting whose score is no share changes no other one's intervals
    alike: dict[tuple[str, int, frozenset[str]], list[int]] = defaultdict(list)
    for place, setting in enumerate(settings):
        if setting.records:
            unbounded = {role for one in setting.records for role, scale in one.scales.items() if not scale.share}
            alike[setting.base.key if setting.base else "", len(setting.records), frozenset(unbounded)].append(place)
    for (_, replicates, _), places in alike.items():
        base = settings[places[0]].base
        largest = max([packed.n for packed in base.outcomes.values()] if base else [], default=1)
        size = max(1, _AT_ONCE // (largest * replicates))
        for start in range(0, len(places), size):
            some = np.array(places[start : start + size])
            yield some, [settings[place] for place in some]


def _put(whole: Measured, places: np.ndarray, part: Measured) -> None:
    for name in Measured.__dataclass_fields__:
        getattr(whole, name)[places] = getattr(part, name)


class _Columns:
    """A role's means and standard errors by column of the documents: (t, r) for the settings, (1, 1) for the base."""

    def __init__(self, tuned: Sequence[Sequence[Mapping[str, Score]]], base: Mapping[str, Score], scale: Scale):
        self.shape, self.scale = (len(tuned), len(tuned[0])), scale
        self.tuned, self.tuned_se = _means([replicate for one in tuned for replicate in one], self.shape, scale)
        self.base, self.base_se = _means([base], (1, 1), scale)
        self.base_n = base["score"].n if "score" in base else 1
        self.n = np.array([replicates[0]["score"].n if replicates[0] else 1 for replicates in tuned], dtype=float)
        self.there = np.array([all("score" in replicate for replicate in replicates) for replicates in tuned])

    def pair(self, pairing: tuple[Answers, np.ndarray] | None) -> None:
        """Adds the columns of PAIRED_KINDS; NaN for settings that do not pair."""
        for name, kind in PAIRED_KINDS.items():
            if pairing is not None and pairing[0].has(kind):
                self.tuned[name], self.base[name] = np.full(self.shape, np.nan), np.zeros((1, 1))
                self.tuned[name][pairing[1]] = pairing[0].tuned[name].mean(axis=2, dtype=float)
                self.base_se[name] = np.zeros((1, 1))

    def kinds(self) -> Iterator[tuple[str, Kind]]:
        """The kinds of every role, and the other kinds that were measured."""
        for name, kind in kinds(self.scale).items():
            there = all(column in self.tuned for column in kind.columns)
            if name in KINDS or (there and (not kind.base or all(column in self.base for column in kind.columns))):
                yield name, kind

    def measured(self, kind: Kind) -> np.ndarray:
        """Whether all replicates (t,) have the columns."""
        found: np.ndarray = ~np.isnan(np.array([self.tuned[name] for name in kind.columns])).any(axis=(0, 2))
        return found

    def values(self, kind: Kind) -> np.ndarray:
        """The metric (t, r)."""
        return np.broadcast_to(kind.of(*self._sides(kind)), self.shape)

    def _sides(self, kind: Kind) -> tuple[Means, Means]:
        tuned, base = ({name: side.get(name, _UNKNOWN) for name in kind.columns} for side in (self.tuned, self.base))
        return tuned, base

    def variances(self, kind: Kind) -> np.ndarray:
        """Variance (t, r) for independent samples of documents; NaN where it needs a covariance between columns."""
        if len([name for name in kind.columns if not of_document(name)]) > 1:
            return np.full(self.shape, np.nan)
        tuned, base = self._sides(kind)
        total = np.zeros(self.shape)
        for side, errors in enumerate((self.tuned_se, self.base_se) if kind.base else (self.tuned_se,)):
            for name in kind.columns:
                total = total + np.square(slope(kind, tuned, base, name, side) * errors.get(name, _UNKNOWN))
        return total

    def possible(self, kind: Kind) -> tuple[float, float]:
        """Least and largest change of a share. A tuned share is within 0..1; the base's is within its own 95 % interval."""
        column = kind.columns[0]
        if kind.unit is None or len(kind.columns) > 1 or column not in self.base:
            return -np.inf, np.inf
        if column in CHANCE_KINDS:
            return -1.0, 1.0
        base, error = self.base[column], self.base_se[column]
        if not all(np.all((known >= 0) & (known <= 1)) for known in (base, self.tuned[column][~np.isnan(self.tuned[column])])):
            return -np.inf, np.inf
        # the base's own value would be too narrow: a base without a right answer may still know one in a hundred
        steps = intervals.reach(np.full((1, 1), self.base_n - 1.0))
        low, high = intervals.share_interval(base, np.square(error), steps, np.full((1, 1), float(self.base_n)))
        shares = np.array([np.fmax(np.fmin(low, base), _TINY), np.fmin(np.fmax(high, base), 1.0)])
        ends = [kind.of({column: np.full((1, 1), tuned)}, {column: shares}) for tuned in (0.0, 1.0)]
        return float(np.min(ends)), float(np.max(ends))


class _Joint(_Columns):
    """The columns of answers to several roles: NaN for the settings that do not pair in each."""

    def __init__(self, pairing: tuple[Answers, np.ndarray], t: int):
        own, places = pairing
        r = next(iter(own.tuned.values())).shape[1]
        self.shape, self.scale = (t, r), own.scale
        self.tuned = {name: np.full((t, r), np.nan) for name in own.tuned}
        for name, values in own.tuned.items():
            self.tuned[name][places] = values.mean(axis=2, dtype=float)
        self.base = {name: np.full((1, 1), values.mean(dtype=float)) for name, values in own.base.items()}
        self.tuned_se, self.base_se = {}, dict.fromkeys(self.base, np.zeros((1, 1)))
        self.base_n, self.n = own.n, np.full(t, float(own.n))
        self.there = np.isin(np.arange(t), places)

    def possible(self, kind: Kind) -> tuple[float, float]:
        """Shares that are better when higher are lost at most."""
        nothing = {name: self.base[name] if name.startswith("part:") else 0 * self.base[name] for name in kind.columns}
        return -np.inf, 1.0 if kind.unit is not None and np.all(kind.of(nothing, self.base) == 1) else np.inf


_TINY = 1e-300  # in place of a base of 0, for which a forgetting rate is undefined
_NOISE = 1e-14  # a variance of shares below is 0: where no document changed, differences in place of slopes leave a last digit
_UNKNOWN = np.full((1, 1), np.nan)
_NEEDED = frozenset(
    column.replace("bits", "bpb") for kind in ALL_KINDS.values() for column in kind.columns if not column.startswith("bytes")
)
"""Names of the scores that metrics are computed from."""
_ABSENT = (np.nan, np.nan)


def _means(
    named: Sequence[Mapping[str, Score]], shape: tuple[int, int], scale: Scale
) -> tuple[dict[str, np.ndarray], dict[str, np.ndarray]]:
    """Values and standard errors by column, where any is known.

    Bits per byte become the bits of one byte, and a score that is a ratio becomes that of a document with weight 1.
    """
    values: dict[str, np.ndarray] = {}
    errors: dict[str, np.ndarray] = {}
    for name in _NEEDED.intersection(frozenset().union(*named)):
        own, dot, part = name.partition(".")
        column = f"bits{dot}{part}" if own == "bpb" else name
        found = [one.get(name) for one in named]
        both = np.array([(score.value, score.stderr) if score else _ABSENT for score in found]).reshape(*shape, 2)
        if np.isnan(both[..., 0]).all():
            continue
        values[column], errors[column] = both[..., 0], both[..., 1]
        if own == "bpb":
            values[f"bytes{dot}{part}"], errors[f"bytes{dot}{part}"] = np.ones_like(values[column]), np.zeros((1, 1))
    if "score" in values and scale.form != "mean":
        if scale.form == "exp":  # the delta method: d log x = dx / x
            errors["score"] = errors["score"] / values["score"]
            values["score"] = np.log(values["score"])
        values["weight"], errors["weight"] = np.ones_like(values["score"]), np.zeros((1, 1))
    return values, errors


def _measured(name: str, kind: Kind, columns: _Columns, pairing: tuple[Answers, np.ndarray] | None) -> Measured:
    values = columns.values(kind)
    t, r = values.shape
    value = values.mean(axis=1)
    # the base has no replicates: its spread over them would be 0, not unknown
    sd = values.std(axis=1, ddof=1) if r > 1 and name != "base" else np.full(t, np.nan)
    # Unpaired: the documents' variance does not shrink with replicates, which answer the same ones; the seeds' does.
    variance = columns.variances(kind).mean(axis=1) + np.nan_to_num(np.square(sd)) / r
    steps = intervals.reach(np.full(t, r - 1.0) if r > 1 else columns.n - 1.0)
    ends = np.nanmin(value, initial=0), np.nanmax(value, initial=0)
    share = name in ("value", "base", *CHANGES) and columns.scale.form == "mean" and columns.scale.share
    share = share and ends[0] >= 0 and ends[1] <= 1
    n, skew, paired = columns.n.copy(), np.zeros(t), np.zeros(t, bool)
    if pairing is not None and pairing[0].has(kind):
        own, places = pairing
        influence = own.influence(kind)
        found, reached = intervals.spread(influence, values[places], bounded=share or kind.unit is not None)
        if share or kind.unit:
            found = np.where(found < _NOISE, 0.0, found)
        whole = np.isfinite(found)  # a document without a value: the setting keeps its scores' standard errors
        places = places[whole]
        if not (share or kind.unit):
            skew[places] = intervals.skewness(influence, found)[whole]
        variance[places], steps[places], paired[places] = found[whole], reached[whole], True
        n[places] = len(own.clusters)  # related documents flip together, and so do a document's replicates: each counts once
    variance = np.where(np.isnan(value), np.nan, variance)
    with np.errstate(invalid="ignore"):
        if share:
            low, high = intervals.share_interval(value, variance, steps, n)
        elif kind.unit is not None:
            unit = kind.unit(columns.base).reshape(-1) if columns.base else np.full(1, np.nan)
            low, high = intervals.interval(value, variance, steps, unit, n)
        else:
            low, high = intervals.skewed_interval(value, variance, steps, skew)
            # fewer documents say too little of the tails of a metric that has no bounds
            few = n < intervals.FEWEST if pairing is None else np.minimum(n, pairing[0].fewest) < intervals.FEWEST
            low, high = (np.where(few, np.nan, end) for end in (low, high))
        if name == "worst_forgetting":  # the greatest of several estimates is too large, whichever role's error made it so
            roles = sum(column.startswith("part:") for column in kind.columns)
            low = value - (value - low) * (intervals.reach(n - 1, roles) / intervals.reach(n - 1))
        known = np.full(t, True) if name in KINDS else columns.measured(kind)
        least, most = columns.possible(kind)
        least = max(least, kind.floor)
        value, low, high = np.maximum(value, kind.floor), np.clip(low, least, most), np.clip(high, least, most)
        return Measured(
            value, np.sqrt(variance), sd, low, high, np.full(t, least), np.full(t, most), paired, known & columns.there
        )


def _learning(group: Sequence[Setting]) -> dict[str, Measured]:
    """The metrics of the role `learning`; their standard errors know seeds alone."""
    found = [[learning(record) for record in setting.records] for setting in group]
    metrics = {}
    for kind in LEARNING_KINDS:
        values = np.array([[one.get(kind, np.nan) for one in replicates] for replicates in found])
        known = ~np.isnan(values).any(axis=1)
        if known.any():
            sd = values.std(axis=1, ddof=1) if values.shape[1] > 1 else np.full(len(values), np.nan)
            stderr = sd / np.sqrt(values.shape[1])
            metrics[f"{LEARNING}.{kind}"] = replace(
                empty(len(values)), value=values.mean(axis=1), stderr=stderr, sd=sd, known=known
            )
    return metrics


def learning(record: TrialRecord) -> dict[str, float]:
    """Effect of the training on held-out rows, in nats per token over all sources: loss, gain (base - tuned), kl (of the tuned
    model from the base) and reverse_kl. Empty where nothing was measured."""
    parts = list(record.learning.values())
    tokens = sum(part["tokens"] for part in parts)
    if not tokens:
        return {}
    loss, base_loss, kl, reverse_kl = (
        sum(part[name] * part["tokens"] for part in parts) / tokens for name in ("loss", "base_loss", "kl", "reverse_kl")
    )
    return {"loss": loss, "gain": base_loss - loss, "kl": kl, "reverse_kl": reverse_kl}
