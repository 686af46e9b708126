"""Answers of settings and of their base to the same documents of a role, as arrays.

Axes: t settings, r replicates of a setting, n documents, c clusters of dependent documents.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from analysis.metrics.definitions import JOINT_KINDS, Kind, Means, joint_kind, kinds, paired_columns
from trials.ledger.outcomes import ALL, REPORT, SHARES_SCALE, Scale, Split, of_document, stack
from trials.ledger.record import TrialRecord

_LABELS = 2**32  # a cluster's label is smaller


@dataclass(frozen=True)
class Answers:
    """Paired answers: `tuned` by column (t, r, n), `base` by column (n,)."""

    tuned: Mapping[str, np.ndarray]
    base: Mapping[str, np.ndarray]
    clusters: np.ndarray
    """Labels (c,)."""
    starts: np.ndarray
    """First document (c,) of each cluster; documents are sorted by cluster."""
    scale: Scale = SHARES_SCALE
    """Of the role."""
    joint: Mapping[str, Kind] = field(default_factory=dict)
    """By name, the kinds of answers to several roles, which have no others."""
    _sums: dict[str, np.ndarray] = field(default_factory=dict, repr=False)

    @property
    def fewest(self) -> int:
        """Clusters of the role that has the fewest."""
        roles = [values for name, values in self.base.items() if name.startswith("part:")]
        own = (int(np.logical_or.reduceat(part > 0, self.starts).sum()) for part in roles)
        return min(own, default=len(self.clusters))

    @property
    def n(self) -> int:
        return len(next(iter(self.base.values())))

    def kind(self, name: str) -> Kind:
        """The kind of this name on the role's scale."""
        return self.joint[name] if self.joint else kinds(self.scale)[name]

    def has(self, kind: Kind) -> bool:
        return all(name in side for name in kind.columns for side in (self.tuned, self.base))

    def influence(self, kind: Kind) -> np.ndarray:
        """Influence (t, r, c) of each cluster on the metric; its mean over clusters is the metric's sampling error.

        The delta method (infinitesimal jackknife): the sum over columns of d metric / d mean times the documents' deviations
        from the mean, summed within clusters, so that the variance is robust to dependent documents.
        """
        tuned = {name: self.tuned[name].mean(axis=2, dtype=float) for name in kind.columns}
        base = {name: self.base[name].mean(dtype=float) for name in kind.columns}
        kind = kind if kind.near is None else kind.near(tuned, base)
        t, r, n = self.tuned[kind.columns[0]].shape
        moved = np.zeros((t, r, n))
        for name in kind.columns:
            moved += slope(kind, tuned, base, name, 0)[..., None] * (self.tuned[name] - tuned[name][..., None])
            if kind.base:
                moved += slope(kind, tuned, base, name, 1)[..., None] * (self.base[name] - base[name])
        return self._together(moved) * (len(self.starts) / n)

    def redrawn(self, kind: Kind, weights: np.ndarray) -> np.ndarray:
        """The metric (b, t, r) under weights (b, c) of the clusters."""
        tuned, base = {}, {}
        sizes = weights @ np.diff(np.append(self.starts, self.n)).astype(float)
        for name in kind.columns:
            of_setting = self._cached(f"tuned {name}", self.tuned[name])
            t, r, c = of_setting.shape
            tuned[name] = (weights @ of_setting.reshape(t * r, c).T / sizes[:, None]).reshape(-1, t, r)
            base[name] = (weights @ self._cached(f"base {name}", self.base[name]) / sizes)[:, None, None]
        return kind.of(tuned, base)

    def value(self, kind: Kind) -> np.ndarray:
        """The metric (t, r) over these documents."""
        return kind.of(
            {name: self.tuned[name].mean(axis=2, dtype=float) for name in kind.columns},
            {name: self.base[name].mean(dtype=float) for name in kind.columns},
        )

    def _cached(self, name: str, values: np.ndarray) -> np.ndarray:
        if name not in self._sums:
            self._sums[name] = self._together(values)
        return self._sums[name]

    def _together(self, values: np.ndarray) -> np.ndarray:
        """Sums within clusters along the last axis."""
        whole = len(self.starts) == self.n
        return values.astype(float) if whole else np.add.reduceat(values.astype(float), self.starts, axis=-1)


def slope(kind: Kind, tuned: Means, base: Means, name: str, side: int) -> np.ndarray:
    """d metric / d mean (t, r) of a column, by central differences; `side` is 0 for tuned, 1 for base. 0 where undefined."""
    # relative to the mean, but not below 1e-6: a mean may be 0
    step = 1e-4 * np.maximum(np.abs((tuned, base)[side][name]), 1e-2)
    ends = []
    for sign in (1.0, -1.0):
        sides = [dict(tuned), dict(base)]
        sides[side][name] = sides[side][name] + sign * step
        ends.append(kind.of(sides[0], sides[1]))
    return np.broadcast_to(np.nan_to_num((ends[0] - ends[1]) / (2 * step)), tuned[name].shape)


def answers(
    settings: Sequence[Sequence[TrialRecord]], base: TrialRecord | None, role: str, split: Split, first: int = 0
) -> tuple[Answers, np.ndarray] | None:
    """The answers of the settings that answered the base's documents, and the settings' places.

    All settings have the same number of replicates. None where none pairs, or where the split has fewer than two clusters.
    `role` may be several, ROLE+ROLE. `first` is the label of the first document where a record has no clusters.
    """
    if "+" in role:
        roles = enumerate(role.split("+"), 1)
        return _together({one: answers(settings, base, one, split, place * _LABELS) for place, one in roles})
    own = base.outcomes.get(role) if base is not None else None
    if own is None:
        return None
    pairs = [place for place, records in enumerate(settings) if all(_same(one, role, own.documents) for one in records)]
    # half and cluster lie with a baseline's record alone, and either side may be one (a merged model is its own baseline)
    sides = [own, *(one.outcomes[role] for place in pairs[:1] for one in settings[place])]
    in_half, labels = (
        next((side.column(name) for side in sides if name in side.columns), None) for name in ("half", "cluster")
    )
    keep = np.arange(own.n) if split == ALL or in_half is None else np.flatnonzero(in_half == (split == REPORT))
    labels = first + np.arange(own.n) if labels is None else labels
    keep = keep[np.argsort(labels[keep], kind="stable")]
    clusters, starts = np.unique(labels[keep], return_index=True)
    if not pairs or len(clusters) < 2:
        return None
    shape = (len(pairs), len(settings[pairs[0]]), len(keep))
    base_columns, tuned = {}, {}
    for name in own.columns:
        if name in ("half", "cluster"):
            continue
        base_columns[name] = _float(own.column(name))[keep]
        if of_document(name):
            tuned[name] = np.broadcast_to(base_columns[name], shape)
        else:
            rows = [one.outcomes[role] for place in pairs for one in settings[place]]
            tuned[name] = stack(rows, name)[:, keep].astype(np.float32).reshape(shape)
    assert base is not None
    scale = scale_of(role, base, *(one for records in settings for one in records))
    paired = paired_columns(tuned["score"], base_columns["score"], scale, base_columns.get("choices"))
    tuned |= paired
    base_columns |= dict.fromkeys(paired, np.zeros_like(base_columns["score"]))
    return Answers(tuned, base_columns, clusters, starts, scale), np.array(pairs)


def scale_of(role: str, *records: TrialRecord) -> Scale:
    """The role's scale in the first record. Its score is a share only if it is one in all of them."""
    found = records[0].scale(role)
    shares = all(one.scale(role).share for one in records)
    return found if found.share == shares else found.model_copy(update={"share": shares})


def _together(found: Mapping[str, tuple[Answers, np.ndarray] | None]) -> tuple[Answers, np.ndarray] | None:
    """The answers to the documents of all roles, for the settings that pair in each. A document of two roles is one cluster.

    A column is 0 at the documents of other roles; `part` is 1 at a role's own, so that a role's mean is one column's over the
    other's, whatever weights the documents get.
    """
    known = {role: one for role, one in found.items() if one is not None}
    places = set.intersection(*(set(one[1].tolist()) for one in known.values())) if known else set()
    if len(known) < len(found) or not places:
        return None
    common = np.array(sorted(places))
    kept = {role: np.isin(one[1], common) for role, one in known.items()}
    n = sum(own.n for own, _ in known.values())
    tuned, base, begin = {}, {}, 0
    labels = np.concatenate([np.repeat(own.clusters, np.diff([*own.starts, own.n])) for own, _ in known.values()])
    order = np.argsort(labels, kind="stable")
    parts: dict[str, tuple[Kind, float]] = {}
    for role, (own, _) in known.items():
        kind = own.kind("forgetting")
        parts[role] = (kind, own.n / n)
        shape = (len(common), own.tuned["score"].shape[1], n)
        at = slice(begin, begin + own.n)
        for column in ("part", *kind.columns):
            of_tuned, of_base = np.zeros(shape, np.float32), np.zeros(n, np.float32)
            of_tuned[..., at] = 1.0 if column == "part" else own.tuned[column][kept[role]]
            of_base[at] = 1.0 if column == "part" else own.base[column]
            tuned[f"{column}:{role}"], base[f"{column}:{role}"] = of_tuned[..., order], of_base[order]
        begin += own.n
    joint = {name: joint_kind(name, parts) for name in JOINT_KINDS}
    clusters, starts = np.unique(labels[order], return_index=True)
    return Answers(tuned, base, clusters, starts, joint=joint), common


def _same(record: TrialRecord, role: str, documents: str) -> bool:
    return role in record.outcomes and record.outcomes[role].documents == documents


def _float(values: np.ndarray | None) -> np.ndarray:
    assert values is not None
    return values.astype(np.float32)


def weights(clusters: np.ndarray, draws: int) -> np.ndarray:
    """Weights (draws, c) of the Bayesian bootstrap, exponential with mean 1 (Rubin 1981, doi:10.1214/aos/1176345338)."""
    # The label alone seeds them: a document weighs the same in all trials and sweeps, so that draws of any two are paired.
    found = np.empty((draws, len(clusters)))
    for place, label in enumerate(clusters):
        found[:, place] = np.random.Generator(np.random.Philox(key=int(label))).standard_exponential(draws)
    return found
