"""Replays a stored sweep under levers that spend less on dominated trials: the time saved, and the share of the front found.

`python -m tests.benchmarks.replay SWEEP_FOLDER` prints a Markdown table, a row for each set of levers.

    racing      gives a trial up once the front dominates it (stats/racing); its training and a share of its evaluation
                are paid
    nested      points that differ only in their number of rows share one training, the longest. That assumes a constant
                learning rate without warm-up.
    promising   runs next the point with the largest expected hypervolume improvement under a Gaussian process (Emmerich,
                Giannakoglou and Naujoks 2006, doi:10.1109/TEVC.2005.859463) instead of the next in order.

Seconds are those of the records, on one worker. Several random orders of the points stand for several searches.
"""

import argparse
import itertools
import math
import warnings
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from sklearn.exceptions import ConvergenceWarning
from sklearn.gaussian_process import GaussianProcessRegressor
from sklearn.gaussian_process.kernels import Matern, WhiteKernel

from analysis.results.load import load
from analysis.results.sweep import Sweep
from analysis.stats import pareto
from analysis.stats.racing import Interim, level, stages
from trials.errors import InputError
from trials.ledger.outcomes import ALL, SEARCH

SHARE = 0.95  # of the hypervolume of all points
LEVERS = ("racing", "nested", "promising")
_BEGINNING = 12  # points before the first Gaussian process
_AGAIN = 1.5  # the kernel is fitted again when the points have grown by this factor
_DRAWS = 64
_PLACES = 1024  # random points for the Monte Carlo integral of the volume
_ROWS = "data.samples"


@dataclass(frozen=True)
class Stored:
    """The n complete points of a sweep."""

    stages: Sequence[Interim]
    """After each stage of their evaluation, the last one complete."""
    feasible: np.ndarray
    reference: np.ndarray
    training: np.ndarray
    """Seconds (n,) that a shared training saves."""
    evaluation: np.ndarray
    """Seconds (n,) of the rest."""
    settings: np.ndarray
    """Shape (n, d), between 0 and 1."""
    parent: np.ndarray
    """Place (n,) of the longest training with the same other settings."""

    @property
    def points(self) -> np.ndarray:
        return self.stages[-1].values

    @property
    def front(self) -> np.ndarray:
        """Places of the non-dominated points."""
        return np.flatnonzero(pareto.front(self.points, self.feasible))


@dataclass
class Course:
    """The course of a replay."""

    ends: list[float] = field(default_factory=list)
    """Seconds after which each point was known."""
    known: list[int] = field(default_factory=list)
    given_up: dict[int, Interim] = field(default_factory=dict)
    seconds: float = 0.0


def stored(sweep: Sweep) -> Stored:
    """Raises InputError where the sweep has too few complete points to replay."""
    rows = sweep.complete
    if len(rows) <= _BEGINNING:
        raise InputError(f"{sweep.folder}: {len(rows)} complete trials; a replay needs more than {_BEGINNING}")
    if sweep.replicates > 1 or rows["baseline"].nunique() > 1:
        raise InputError(f"{sweep.folder}: a replay needs a sweep of one base with one seed a point")
    if any(record.imported for record in sweep.complete_records):
        raise InputError(f"{sweep.folder}: its results were imported, so no time was spent here that a replay could save")
    records, base = [sweep.records[key] for key in rows["key"]], sweep.records[rows["baseline"].iloc[0]]
    evaluation = np.array(
        [sum(spent for phase, spent in one.seconds.items() if phase.startswith("evaluate")) for one in records], dtype=float
    )
    drift = np.array([one.seconds.get("drift", 0.0) for one in records])
    whole = np.array([sum(one.seconds.values()) for one in records])
    lengths = [record.spec.data.rows for record in records]
    return Stored(
        stages(records, base, sweep.objectives, ALL if sweep.half is None else SEARCH),
        rows["feasible"].to_numpy(dtype=bool),
        pareto.orient(np.array(sweep.reference), sweep.objectives),
        whole - evaluation - drift,
        evaluation + drift,
        encoded(rows[list(sweep.space)]),
        _parents(rows[[path for path in sweep.space if path != _ROWS]], lengths),
    )


def encoded(settings: pd.DataFrame) -> np.ndarray:
    """Numbers by rank, scaled to 0..1; texts one-hot."""
    columns: list[np.ndarray] = []
    for path in settings:
        values = settings[path]
        numbers = pd.to_numeric(values, errors="coerce")
        if numbers.notna().all():
            place = numbers.rank(method="dense").to_numpy(dtype=float) - 1
            columns.append(place / max(place.max(), 1))
        else:
            texts = values.map(str)
            columns += [(texts == one).to_numpy(dtype=float) for one in sorted(texts.unique())]
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
        for interim in sweep.stages[:-1]:
            if interim.p_value(one, members.tolist()) <= level(len(sweep.points)):
                course.seconds += float(sweep.evaluation[one]) * interim.share
                course.given_up[one] = interim
                return
    course.seconds += float(sweep.evaluation[one])
    course.known.append(one)
    course.ends.append(course.seconds)


class _Promise:
    """Expected hypervolume improvement under Gaussian processes fitted to the known points, one an objective."""

    def __init__(self, sweep: Stored):
        self.sweep = sweep
        self._kernels: list[object] = []
        self._fitted = 0
        self._random = np.random.default_rng(0)

    def best(self, left: Sequence[int], course: Course) -> int:
        known = [*course.known, *course.given_up]
        if len(known) < _BEGINNING or len(left) == 1:
            return left[0]
        found = [self.sweep.points[course.known], *(part.values[[one]] for one, part in course.given_up.items())]
        values = np.concatenate(found)
        doubt = np.zeros_like(values)  # variance of the values of given-up trials, which answered few documents
        for place, (one, part) in enumerate(course.given_up.items(), start=len(course.known)):
            doubt[place] = part.variance(one)
        draws = self._draws(self.sweep.settings[known], values, doubt, self.sweep.settings[list(left)])
        own = np.array(course.known, dtype=int)
        members = self.sweep.points[own[pareto.front(self.sweep.points[own], self.sweep.feasible[own])]]
        least, reference = np.minimum(draws.min(axis=(0, 1)), values.min(axis=0)), self.sweep.reference
        if (least >= reference).any():  # no draw reaches into the box of the reference: nothing to gain
            return left[0]
        places = least + self._random.random((_PLACES, values.shape[1])) * (reference - least)
        # expected improvement by Monte Carlo: places that no member dominates, and the draws that would
        free = places[~(members[None] <= places[:, None]).all(axis=2).any(axis=1)]
        gained = (draws[:, :, None] <= free).all(axis=3).sum(axis=(0, 2))
        return left[int(np.argmax(gained))]

    def _draws(self, x: np.ndarray, y: np.ndarray, doubt: np.ndarray, at: np.ndarray) -> np.ndarray:
        """Posterior draws at `at`, shape (draws, points, objectives). `doubt` is the known variance of each value."""
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
    """Seconds until SHARE of the final hypervolume; infinite where it is never reached."""
    final = pareto.hypervolume(sweep.points[sweep.front], sweep.reference)
    known = np.array(course.known, dtype=int)
    volumes = pareto.hypervolumes(sweep.points[known], sweep.feasible[known], sweep.reference)
    there = np.flatnonzero(volumes >= SHARE * final)
    return course.ends[int(there[0])] if len(there) else math.inf


def recall(sweep: Stored, course: Course) -> float:
    """Share of the front that was found."""
    return float(np.isin(sweep.front, course.known).mean())


def saving(sweep: Stored, orders: int) -> Iterator[Mapping[str, Any]]:
    """For each set of levers, a list with a number per order: `time` and `whole` (seconds to SHARE of the hypervolume and to
    the end, as ratios to the same order without levers), and `recall`."""
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


def row(found: Mapping[str, Any]) -> str:
    """Median and range over the orders, as a row of the table."""
    spread = [
        f"{np.median(found[name]):.2f} ({min(found[name]):.2f} to {max(found[name]):.2f})"
        for name in ("time", "whole", "recall")
    ]
    return f"| {' + '.join(found['levers'])} | {' | '.join(spread)} |"


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--orders", type=int, default=10, help="random orders of the points")
    given = parser.parse_args()
    one = stored(load(given.folder))
    print(f"{len(one.points)} points, {len(one.front)} on the front; times over those of the same order without levers\n")
    print(f"| levers | time to {SHARE:.0%} of the hypervolume | time of everything | front found |\n|---|---:|---:|---:|")
    for each in saving(one, given.orders):
        print(row(each))
