"""The metrics of an ablation's points: values by seed, and how each document moves them."""

import hashlib
import json
import math
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from analysis.ablations.questions import Selection
from analysis.metrics.definitions import RATES
from analysis.metrics.names import LEARNING, split_metric
from analysis.results.manifest import Manifest
from analysis.results.sweep import Sweep
from analysis.stats.estimate import learning
from analysis.stats.paired_outcomes import ALL, answers
from trials.errors import InputError

AS_TRAINED = {
    "derive.samples": None,
    "derive.rank": None,
    "derive.strength": (None, 1.0),
    "derive.shallow": None,
    "derive.off": None,
}
_STEADY = 10.0  # standard errors between a base's score and 0: below, a share of that score says nothing


class Unknown(Exception):
    """The cells that an effect needs are missing, or lack the metric."""


@dataclass(frozen=True)
class Column:
    """A metric of t cells under r seeds."""

    values: np.ndarray
    """Shape (t, r)."""
    influence: np.ndarray | None
    """Shape (t, r, c), see Answers.influence; None for a metric without documents."""
    digest: str
    """Digest of the documents. Roles with equal digests share their documents."""
    documents: int
    flip: float
    """Change of the metric by one flipped document; 0 if it is not made of right and wrong documents."""


class Cells:
    """The complete points of a sweep with their records, r seeds of each."""

    def __init__(self, sweep: Sweep, planned: Sequence[Mapping[str, Any]] = ()):
        """`planned` are the points of the design; those that are not complete count as missing."""
        done = set(sweep.complete["number"])
        trials = [trial for trial in Manifest.read(sweep.folder).trials if trial.number in done]
        self.seeds = max((len(trial.keys) for trial in trials), default=0)
        # a cell with fewer seeds would weigh less, and seeds are paired over cells
        trials = [trial for trial in trials if len(trial.keys) == self.seeds and trial.baseline in sweep.records]
        self.params = [trial.params for trial in trials]
        present = {_canonical(params) for params in self.params}
        self._missing = [params for params in planned if _canonical(params) not in present]
        self.records = [[sweep.records[key] for key in trial.keys] for trial in trials]
        self.bases = [sweep.records[str(trial.baseline)] for trial in trials]
        self._columns: dict[str, Column] = {}

    @property
    def untrained(self) -> bool:
        return all(record.spec.is_baseline for records in self.records for record in records)

    def find(self, selection: Selection) -> np.ndarray:
        """Indices of the matching cells. Raises Unknown if one of them is missing."""
        # a mean over the cells that are there would be another effect
        if missing := sum(matches(params, selection) for params in self._missing):
            raise Unknown(f"{missing} cells of {selection}")
        return np.array([place for place, params in enumerate(self.params) if matches(params, selection)], dtype=int)

    def column(self, metric: str) -> Column:
        if metric not in self._columns:
            role, kind = split_metric(metric)
            self._columns[metric] = self._learning(kind) if role == LEARNING else self._scored(role, kind)
        return self._columns[metric]

    def _learning(self, kind: str) -> Column:
        found = [[learning(record).get(kind, np.nan) for record in records] for records in self.records]
        return Column(np.array(found, dtype=float), None, LEARNING, 0, 0.0)

    def _scored(self, role: str, name: str) -> Column:
        values = np.full((len(self.records), self.seeds), np.nan)
        influence, clusters, flip, n = None, None, 0.0, 0
        # cells of several bases answer the same documents, each is paired with its own base
        for base in {record.key: record for record in self.bases}.values():
            own = [place for place, one in enumerate(self.bases) if one.key == base.key]
            found = answers([self.records[place] for place in own], base, role, ALL)
            if found is None or not found[0].has(kind := found[0].kind(name)):
                continue
            if name in RATES and not _steady(found[0].base["score"]):
                continue
            pairs, places = found[0], np.array(own)[found[1]]
            if clusters is not None and not np.array_equal(clusters, pairs.clusters):
                raise InputError(f"{role}: the bases have not answered the same documents")
            clusters, n = pairs.clusters, pairs.n
            influence = np.zeros((*values.shape, len(clusters))) if influence is None else influence
            values[places], influence[places] = pairs.value(kind), pairs.influence(kind)
            if name == "value":  # no difference, so `unit` does not say it
                flip = 1.0
            elif kind.unit is not None:
                flip = max(flip, float(np.nan_to_num(kind.unit({k: v.mean(dtype=float) for k, v in pairs.base.items()})).max()))
        digest = role if clusters is None else hashlib.sha256(clusters.tobytes()).hexdigest()
        return Column(values, influence, digest, n, flip)


def _steady(base: np.ndarray) -> bool:
    score = float(base.mean(dtype=float))
    return score > 0 and score >= _STEADY * float(base.std(dtype=float)) / math.sqrt(len(base))


def _canonical(params: Mapping[str, Any]) -> str:
    return json.dumps(params, sort_keys=True, default=list)  # a tuple of the config is a list in the manifest


def matches(params: Mapping[str, Any], selection: Mapping[str, Any], free: Collection[str] = ()) -> bool:
    """Whether a point's settings are among the selected ones.

    Derived points match only if `selection` names how they are derived, or the path is among the `free` ones.
    """
    derived = {path: value for path, value in AS_TRAINED.items() if path in params and path not in free}
    return all(path in params and _among(params[path], value) for path, value in {**derived, **selection}.items())


def _among(value: object, selected: object) -> bool:
    return any(_equal(value, one) for one in (selected if isinstance(selected, list | tuple) else (selected,)))


def _equal(value: object, one: object) -> bool:
    if null(value) or null(one):
        return null(value) and null(one)
    if isinstance(value, int | float) and isinstance(one, int | float) and bool not in (type(value), type(one)):
        return math.isclose(value, one, rel_tol=1e-6)  # scaling by a twin's factor may have rounded one of them
    return isinstance(value, bool) == isinstance(one, bool) and value == one


def null(value: Any) -> bool:
    """A setting that a point does not have is None in its settings and NaN in a frame of trials."""
    return value is None or value != value
