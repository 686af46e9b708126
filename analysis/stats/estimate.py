"""Every metric of many settings from their records (one a replicate) and their baselines', on a half of the documents or all.

Values are those of the records' scores. Standard errors and intervals come from the documents' outcomes where a setting and
its baseline have answered the same ones (`paired`), with seeds as a second level where there are replicates; else from the
scores' own standard errors, as of independent samples, which is too wide for documents that both have answered.
"""

from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from analysis.metrics.definitions import ALL_KINDS, KINDS, Kind
from analysis.metrics.names import LEARNING, LEARNING_KINDS, Estimate
from analysis.stats import intervals
from analysis.stats.paired_outcomes import Answers, answers, slope
from trials.ledger.outcomes import ALL, Split
from trials.ledger.record import Score, TrialRecord

_AT_ONCE = 2_000_000  # outcomes of one column in memory at once


@dataclass(frozen=True)
class Setting:
    """A point of a sweep as it was trained: a record a replicate, and the baseline's where it is complete."""

    records: Sequence[TrialRecord]
    base: TrialRecord | None


@dataclass(frozen=True)
class Measured:
    """A metric of t settings, arrays of shape (t,); NaN where something is undefined or unknown."""

    value: np.ndarray
    """Mean over the replicates."""
    stderr: np.ndarray
    sd: np.ndarray
    """Sample standard deviation between replicates."""
    low: np.ndarray
    high: np.ndarray
    """Of the 95 % interval; see `intervals`."""
    paired: np.ndarray
    known: np.ndarray
    """Whether the setting has this metric at all: measured, though it may be undefined."""


def empty(t: int) -> Measured:
    value, stderr, sd, low, high = np.full((5, t), np.nan)
    return Measured(value, stderr, sd, low, high, paired=np.zeros(t, bool), known=np.zeros(t, bool))


def scores(record: TrialRecord, split: Split) -> dict[str, dict[str, Score]]:
    """By role, then by name, the role's own as "score". A role without a document in that half is left out; one of a record
    that knows no halves has its scores on all documents."""
    found = {}
    for role, score in record.scores.items():
        halves = record.halves.get(role, {})
        if split == ALL or not halves:
            found[role] = {**record.details.get(role, {}), "score": score}
        elif split in halves:
            found[role] = halves[split]
    return found


def measure(records: Sequence[TrialRecord], base: TrialRecord | None, split: Split = ALL) -> dict[str, Estimate | None]:
    """Every metric of one setting by name; None where it is undefined."""
    found = {}
    for name, all_of_it in measure_all([Setting(records, base)], split).items():
        value, stderr, sd = (float(one[0]) for one in (all_of_it.value, all_of_it.stderr, all_of_it.sd))
        if all_of_it.known[0]:
            known = None if np.isnan(value) else Estimate(value, _or_none(stderr), bool(all_of_it.paired[0]), _or_none(sd))
            found[name] = known
    return found


def _or_none(value: float) -> float | None:
    return None if np.isnan(value) else value


Watch = Callable[[str, np.ndarray, Answers], None]


def measure_all(
    settings: Sequence[Setting], split: Split = ALL, errors: bool = True, watch: Watch | None = None
) -> dict[str, Measured]:
    """Every metric by name, arrays in the settings' order. Without `errors` values alone, which takes a tenth of the time.

    `watch` is shown all answers that pair with the baseline's: the role, the settings' places, and the answers.
    """
    found: dict[str, Measured] = {}
    for places, group in _groups(settings):
        named = [[scores(record, split) for record in setting.records] for setting in group]
        base = group[0].base
        base_named = scores(base, split) if base is not None else {}
        for role in dict.fromkeys(role for one in named for replicate in one for role in replicate):
            columns = _Columns([[one.get(role, {}) for one in replicates] for replicates in named], base_named.get(role, {}))
            pairing = answers([one.records for one in group], base, role, split) if errors else None
            if watch is not None and pairing is not None:
                watch(role, places[pairing[1]], pairing[0])
            for name, kind in columns.kinds():
                whole = found.setdefault(f"{role}.{name}", empty(len(settings)))
                _put(whole, places, _measured(name, kind, columns, pairing))
        for name, values in _learning(group).items():
            whole = found.setdefault(name, empty(len(settings)))
            _put(whole, places, values)
    return found


def _groups(settings: Sequence[Setting]) -> Iterator[tuple[np.ndarray, list[Setting]]]:
    """Settings of one baseline and one number of replicates, and their places; so few that their outcomes fit in memory."""
    alike: dict[tuple[str, int], list[int]] = defaultdict(list)
    for place, setting in enumerate(settings):
        if setting.records:
            alike[setting.base.key if setting.base else "", len(setting.records)].append(place)
    for (_, replicates), places in alike.items():
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
    """A role's means, and their standard errors, by column of the documents: of t settings (t, r), and of the base ()."""

    def __init__(self, tuned: Sequence[Sequence[Mapping[str, Score]]], base: Mapping[str, Score]):
        self.shape = (len(tuned), len(tuned[0]))
        self.tuned, self.tuned_se = _means([replicate for one in tuned for replicate in one], self.shape)
        self.base, self.base_se = _means([base], (1, 1))
        self.n = np.array([replicates[0]["score"].n if replicates[0] else 1 for replicates in tuned], dtype=float)
        self.there = np.array([all("score" in replicate for replicate in replicates) for replicates in tuned])

    def kinds(self) -> Iterator[tuple[str, Kind]]:
        """Those of every role, and of the others those that were measured."""
        for name, kind in ALL_KINDS.items():
            there = all(column in self.tuned for column in kind.columns)
            if name in KINDS or (there and (not kind.base or all(column in self.base for column in kind.columns))):
                yield name, kind

    def measured(self, kind: Kind) -> np.ndarray:
        """Shape (t,): whether all replicates have the columns."""
        found: np.ndarray = ~np.isnan(np.array([self.tuned[name] for name in kind.columns])).any(axis=(0, 2))
        return found

    def values(self, kind: Kind) -> np.ndarray:
        """Shape (t, r)."""
        sides = [{name: side.get(name, _UNKNOWN) for name in kind.columns} for side in (self.tuned, self.base)]
        return np.broadcast_to(kind.of(sides[0], sides[1]), self.shape)

    def variances(self, kind: Kind) -> np.ndarray:
        """Shape (t, r): as if both sides had answered documents of their own; NaN where columns of one side vary together."""
        sides = [{name: side.get(name, _UNKNOWN) for name in kind.columns} for side in (self.tuned, self.base)]
        total = np.zeros(self.shape)
        for place, errors in enumerate((self.tuned_se, self.base_se)):
            moving = [name for name in kind.columns if place == 0 or kind.base]
            total = total + sum(
                np.square(slope(kind, sides[0], sides[1], name, place) * errors.get(name, _UNKNOWN)) for name in moving
            )
        return (
            total if len([name for name in kind.columns if not name.startswith("bytes")]) == 1 else np.full(self.shape, np.nan)
        )


_UNKNOWN = np.full((1, 1), np.nan)
_NEEDED = frozenset(
    column.replace("bits", "bpb") for kind in ALL_KINDS.values() for column in kind.columns if not column.startswith("bytes")
)
"""Names of scores that some metric is made of."""
_ABSENT = (np.nan, np.nan)


def _means(named: Sequence[Mapping[str, Score]], shape: tuple[int, int]) -> tuple[dict[str, np.ndarray], dict[str, np.ndarray]]:
    """Values and standard errors by column, where any is known; bits per byte are told as the bits of one byte."""
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
    return values, errors


def _measured(name: str, kind: Kind, columns: _Columns, pairing: tuple[Answers, np.ndarray] | None) -> Measured:
    values = columns.values(kind)
    t, r = values.shape
    value = values.mean(axis=1)
    sd = values.std(axis=1, ddof=1) if r > 1 and name != "base" else np.full(t, np.nan)
    variance = columns.variances(kind).mean(axis=1) + np.nan_to_num(np.square(sd)) / r
    steps = intervals.reach(np.full(t, r - 1.0) if r > 1 else columns.n - 1.0)
    paired = np.zeros(t, bool)
    if pairing is not None and pairing[0].has(kind):
        own, places = pairing
        found, reached = intervals.spread(own.influence(kind), values[places])
        whole = np.isfinite(found)  # a document without a value leaves the setting to its scores' own errors
        places = places[whole]
        variance[places], steps[places], paired[places] = found[whole], reached[whole], True
    variance = np.where(np.isnan(value), np.nan, variance)
    with np.errstate(invalid="ignore"):
        if name in ("value", "base") and np.nanmin(value, initial=0) >= 0 and np.nanmax(value, initial=0) <= 1:
            low, high = intervals.share_interval(value, variance, steps, columns.n)
        else:
            unit = kind.unit(columns.base) if kind.unit and columns.base else None
            low, high = intervals.interval(value, variance, steps, None if unit is None else unit.reshape(-1), columns.n * r)
        known = np.full(t, True) if name in KINDS else columns.measured(kind)
        return Measured(value, np.sqrt(variance), sd, low, high, paired, known & columns.there)


def _learning(group: Sequence[Setting]) -> dict[str, Measured]:
    """The metrics under `learning`, without standard errors; none where nothing was measured."""
    found = [[learning(record) for record in setting.records] for setting in group]
    told = {}
    for kind in LEARNING_KINDS:
        values = np.array([[one.get(kind, np.nan) for one in replicates] for replicates in found])
        known = ~np.isnan(values).any(axis=1)
        if known.any():
            sd = values.std(axis=1, ddof=1) if values.shape[1] > 1 else np.full(len(values), np.nan)
            stderr = sd / np.sqrt(values.shape[1])
            plain = np.full(len(values), np.nan)
            told[f"{LEARNING}.{kind}"] = Measured(
                values.mean(axis=1), stderr, sd, plain, plain, np.zeros(len(values), bool), known
            )
    return told


def learning(record: TrialRecord) -> dict[str, float]:
    """What the training did to rows held out of it, over the tokens of all sources, nats per token: loss, gain (base - tuned),
    kl (of the tuned model from the base) and reverse_kl; empty where nothing was measured."""
    parts = list(record.learning.values())
    tokens = sum(part["tokens"] for part in parts)
    if not tokens:
        return {}
    mean = {
        name: sum(part[name] * part["tokens"] for part in parts) / tokens for name in ("loss", "base_loss", "kl", "reverse_kl")
    }
    return {"loss": mean["loss"], "gain": mean["base_loss"] - mean["loss"], "kl": mean["kl"], "reverse_kl": mean["reverse_kl"]}
