"""Replays a stored sweep under levers that spend less on losers: what they save, and whether the front is still found.

    racing      a trial is given up once the front surely beats it (analysis.racing): its training is paid, and a share of its
                evaluation
    nested      points that differ in their number of rows alone share the longest one's training, from which the others are
                derived; they must be trained at a constant rate without warm-up, or the points would be other ones
    promising   of the points still to run, the one comes next from which a Gaussian process over those that ran expects most
                hypervolume (Emmerich, Giannakoglou and Naujoks 2006, doi:10.1109/TEVC.2005.859463), not the next of the order

Seconds are those of the records, on one worker. A replay begins with the points in an order; several random orders stand for
several searches. The final hypervolume is that of all points, the front that of all points as the search saw them.
"""

import itertools
import math
import warnings
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import pandas as pd
from sklearn.exceptions import ConvergenceWarning
from sklearn.gaussian_process import GaussianProcessRegressor
from sklearn.gaussian_process.kernels import Matern, WhiteKernel

from analysis.results.sweep import Sweep
from analysis.stats import pareto
from analysis.stats.racing import LEVEL, Seen, stages
from trials.errors import InputError
from trials.ledger.outcomes import ALL, SEARCH

SHARE = 0.95  # of the final hypervolume that is waited for
LEVERS = ("racing", "nested", "promising")
_BEGINNING = 12  # points that are run before a Gaussian process is asked
_AGAIN = 1.5  # its kernel is fitted again when there are so many times the points
_DRAWS = 64
_PLACES = 1024  # of the space in front of the reference, that stand for its volume
_ROWS = "data.samples"


@dataclass(frozen=True)
class Stored:
    """The complete points of a sweep, n of them."""

    seen: Sequence[Seen]
    """After each stage of their evaluation; the last is all of it."""
    feasible: np.ndarray
    reference: np.ndarray
    training: np.ndarray
    """Seconds before the evaluation that a shared training spares, (n,)."""
    evaluation: np.ndarray
    """Seconds of the rest, (n,)."""
    settings: np.ndarray
    """Shape (n, d), between 0 and 1."""
    parent: np.ndarray
    """The place of the longest training with the same other settings, (n,)."""

    @property
    def points(self) -> np.ndarray:
        return self.seen[-1].values

    @property
    def front(self) -> np.ndarray:
        """Places."""
        return np.flatnonzero(pareto.front(self.points, self.feasible))


@dataclass
class Course:
    """What a replay came to."""

    ends: list[float] = field(default_factory=list)
    """Seconds after which each point was known."""
    known: list[int] = field(default_factory=list)
    given_up: dict[int, Seen] = field(default_factory=dict)
    seconds: float = 0.0


def stored(sweep: Sweep) -> Stored:
    """Raises InputError where the sweep has too few complete points to replay."""
    rows = sweep.complete
    if len(rows) <= _BEGINNING:
        raise InputError(f"{sweep.folder}: {len(rows)} complete trials; a replay needs more than {_BEGINNING}")
    if sweep.replicates > 1 or rows["baseline"].nunique() > 1:
        raise InputError(f"{sweep.folder}: a replay needs a sweep of one base with one seed a point")
    records, base = [sweep.records[key] for key in rows["key"]], sweep.records[rows["baseline"].iloc[0]]
    evaluation = np.array(
        [sum(took for phase, took in one.seconds.items() if phase.startswith("evaluate")) for one in records], dtype=float
    )
    drift = np.array([one.seconds.get("drift", 0.0) for one in records])
    whole = np.array([sum(one.seconds.values()) for one in records])
    own = [records[place].spec.data.rows for place in range(len(records))]
    return Stored(
        stages(records, base, sweep.objectives, ALL if sweep.half is None else SEARCH),
        rows["feasible"].to_numpy(dtype=bool),
        pareto.orient(np.array(sweep.reference), sweep.objectives),
        whole - evaluation - drift,
        evaluation + drift,
        encoded(rows[list(sweep.space)]),
        _parents(rows[[path for path in sweep.space if path != _ROWS]], own),
    )


def encoded(settings: pd.DataFrame) -> np.ndarray:
    """Numbers between 0 and 1 on their ranks' scale, texts as a column for each."""
    columns: list[np.ndarray] = []
    for path in settings:
        values = settings[path]
        numbers = pd.to_numeric(values, errors="coerce")
        if numbers.notna().all():
            place = numbers.rank(method="dense").to_numpy(dtype=float) - 1
            columns.append(place / max(place.max(), 1))
        else:
            told = values.map(str)
            columns += [(told == one).to_numpy(dtype=float) for one in sorted(told.unique())]
    return np.column_stack(columns) if columns else np.zeros((len(settings), 1))


def _parents(others: pd.DataFrame, rows: Sequence[int]) -> np.ndarray:
    longest: dict[str, int] = {}
    labels = [repr(one) for one in others.itertuples(index=False, name=None)]
    for place, label in enumerate(labels):
        if label not in longest or rows[place] > rows[longest[label]]:
            longest[label] = place
    return np.array([longest[label] for label in labels])


def replay(sweep: Stored, order: Sequence[int], levers: Sequence[str] = ()) -> Course:
    course, left, promise = Course(), list(order), _Promise(sweep)
    trained: set[int] = set()
    while left:
        one = promise.best(left, course) if "promising" in levers else left[0]
        left.remove(one)
        if "nested" in levers:
            parent = int(sweep.parent[one])
            if parent not in trained:
                trained.add(parent)
                course.seconds += float(sweep.training[parent])
        else:
            course.seconds += float(sweep.training[one])
        _evaluate(sweep, one, course, "racing" in levers)
    return course


def _evaluate(sweep: Stored, one: int, course: Course, racing: bool) -> None:
    if racing:
        ended = np.array(course.known, dtype=int)
        members = ended[pareto.front(sweep.points[ended], sweep.feasible[ended])] if len(ended) else ended
        for seen in sweep.seen[:-1]:
            if seen.p_beaten(one, members.tolist()) >= LEVEL:
                course.seconds += float(sweep.evaluation[one]) * seen.share
                course.given_up[one] = seen
                return
    course.seconds += float(sweep.evaluation[one])
    course.known.append(one)
    course.ends.append(course.seconds)


class _Promise:
    """How much hypervolume a point is expected to add, from those that are known."""

    def __init__(self, sweep: Stored):
        self.sweep = sweep
        self._kernels: list[object] = []
        self._fitted = 0
        self._random = np.random.default_rng(0)

    def best(self, left: Sequence[int], course: Course) -> int:
        known = [*course.known, *course.given_up]
        if len(known) < _BEGINNING or len(left) == 1:
            return left[0]
        seen = [self.sweep.points[course.known], *(part.values[[one]] for one, part in course.given_up.items())]
        values = np.concatenate(seen)
        doubt = np.zeros_like(values)  # of what was given up little is known
        for place, (one, part) in enumerate(course.given_up.items(), start=len(course.known)):
            doubt[place] = part.draws[:, one].var(axis=0)
        draws = self._draws(self.sweep.settings[known], values, doubt, self.sweep.settings[list(left)])
        own = np.array(course.known, dtype=int)
        members = self.sweep.points[own[pareto.front(self.sweep.points[own], self.sweep.feasible[own])]]
        least, reference = np.minimum(draws.min(axis=(0, 1)), values.min(axis=0)), self.sweep.reference
        if (least >= reference).any():
            return left[0]
        places = least + self._random.random((_PLACES, values.shape[1])) * (reference - least)
        free = places[~(members[None] <= places[:, None]).all(axis=2).any(axis=1)]
        gained = (draws[:, :, None] <= free).all(axis=3).sum(axis=(0, 2))
        return left[int(np.argmax(gained))]

    def _draws(self, x: np.ndarray, y: np.ndarray, doubt: np.ndarray, at: np.ndarray) -> np.ndarray:
        """Shape (draws, points, objectives); `doubt` is the variance of each value beside what all have."""
        again = len(x) >= _AGAIN * self._fitted
        if again:
            self._kernels, self._fitted = [], len(x)
        found = []
        for k in range(y.shape[1]):
            kernel = (
                Matern([0.5] * x.shape[1], (0.05, 10.0), nu=2.5) + WhiteKernel(0.1, (1e-3, 1.0)) if again else self._kernels[k]
            )
            noise = doubt[:, k] / max(float(y[:, k].var()), 1e-12) + 1e-10  # in units of the values' own variance
            optimizer = "fmin_l_bfgs_b" if again else None
            process = GaussianProcessRegressor(kernel, alpha=noise, normalize_y=True, optimizer=optimizer)
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", ConvergenceWarning)  # a length at its bound: a setting without effect
                process.fit(x, y[:, k])
            if again:
                self._kernels.append(process.kernel_)
            mean, sd = process.predict(at, return_std=True)
            found.append(mean + sd * self._random.standard_normal((_DRAWS, len(at))))
        return np.stack(found, axis=2)


def reached(sweep: Stored, course: Course) -> float:
    """Seconds after which SHARE of the final hypervolume was there; infinite where it never was."""
    final = pareto.hypervolume(sweep.points[sweep.front], sweep.reference)
    known = np.array(course.known, dtype=int)
    volumes = pareto.hypervolumes(sweep.points[known], sweep.feasible[known], sweep.reference)
    there = np.flatnonzero(volumes >= SHARE * final)
    return course.ends[int(there[0])] if len(there) else math.inf


def recall(sweep: Stored, course: Course) -> float:
    """The share of the front that was found."""
    return float(np.isin(sweep.front, course.known).mean())


def saving(sweep: Stored, orders: int) -> Iterator[Mapping[str, object]]:
    """For each set of levers: `time` and `whole`, seconds to SHARE of the hypervolume and to the end over those without levers
    in the same order, and `recall`; each a list with a number per order."""
    many = [np.random.default_rng(seed).permutation(len(sweep.points)).tolist() for seed in range(orders)]
    plain = [replay(sweep, order) for order in many]
    for size in range(1, len(LEVERS) + 1):
        for levers in itertools.combinations(LEVERS, size):
            courses = [replay(sweep, order, levers) for order in many]
            pairs = list(zip(courses, plain, strict=True))
            yield {
                "levers": list(levers),
                "time": [reached(sweep, one) / reached(sweep, other) for one, other in pairs],
                "whole": [one.seconds / other.seconds for one, other in pairs],
                "recall": [recall(sweep, one) for one in courses],
            }
