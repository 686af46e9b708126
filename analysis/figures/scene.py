"""The trials of a sweep as they are drawn: points, errors, the edge of the front, baselines, bounds, and the shown part.

Places are in the unit of the axes.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import pandas as pd
from matplotlib import cbook

from analysis.formatting import labels
from analysis.metrics.names import Constraint
from analysis.results import schema as col
from analysis.results.sweep import Sweep
from analysis.stats import pareto

RADIUS95 = float(np.sqrt(-2 * np.log(0.05)))  # of the ellipse that holds 95 % of a bivariate normal, in standard errors
NORMAL95 = 1.959964  # half of a 95 % interval of a normal, in standard errors
NEAR = 0.5  # a trial is shown if it is no farther from the front, the baselines and the bounds than this share of their span
MARGIN = 0.06  # share of the shown span that is left free at either end


@dataclass(frozen=True)
class Bound:
    """A constraint on a metric that is an axis; `edge` is its place on `axis`, 0 for x and 1 for y."""

    axis: int
    edge: float
    constraint: Constraint


@dataclass(frozen=True)
class Scene:
    """Finished trials in the first two objectives; with one objective x is the trial's number, and its errors are 0.

    Arrays are (n, 2), one entry a row; an unknown error is NaN. Where no document changed, the error is that of the 95 %
    interval, which doubts it.
    """

    sweep: Sweep
    rows: pd.DataFrame
    places: np.ndarray
    errors: np.ndarray

    @property
    def single(self) -> bool:
        return len(self.sweep.objectives) == 1

    @cached_property
    def kinds(self) -> np.ndarray:
        return kinds(self.rows)

    @property
    def names(self) -> list[str]:
        """Names of x and y with their units, and an arrow to the better end."""
        ways = {"maximize": "better\N{NO-BREAK SPACE}→", "minimize": "←\N{NO-BREAK SPACE}better"}
        found = [f"{labels.axis(one.metric)}   {ways[one.direction]}" for one in self.sweep.objectives[:2]]
        return ["trial", *found] if self.single else found

    @cached_property
    def edge(self) -> np.ndarray:
        """Corners (k, 2) of the edge of the dominated area; with one objective, of the best so far.

        More than two objectives have no such edge in the plane of the first two, and k is 0.
        """
        objectives = self.sweep.objectives
        mask = self.rows["feasible" if self.single else "on_front"].to_numpy(dtype=bool)
        if len(objectives) > 2 or not mask.any():
            return np.empty((0, 2))
        largest = objectives[0].direction == "maximize"
        if self.single:
            x, y = self.places[mask].T
            best = (np.maximum if largest else np.minimum).accumulate(y)
            return cbook.pts_to_poststep(np.append(x, self.places[:, 0].max()), np.append(best, best[-1])).T
        # the search's half of the documents chose the front: on the other half, shown here, some of it may be dominated
        bases = self._bases(self.sweep.baselines[self.sweep.baselines["on_front"]])
        places = np.concatenate([self.places[mask], bases])
        ahead = pareto.front(pareto.orient(places, objectives), np.ones(len(places), bool))
        x, y = places[ahead].T
        order = np.lexsort((y, x))
        return (cbook.pts_to_prestep if largest else cbook.pts_to_poststep)(x[order], y[order]).T

    @cached_property
    def baselines(self) -> np.ndarray:
        """Places of the finished baselines, (baselines, 2); with one objective x is 0."""
        return self._bases(self.sweep.baselines)

    def _bases(self, rows: pd.DataFrame) -> np.ndarray:
        places = [labels.scale(one.metric) * rows[one.metric].to_numpy(dtype=float) for one in self.sweep.objectives[:2]]
        found = np.unique(np.column_stack([np.zeros(len(rows)), *places][-2:]), axis=0)
        return found[np.isfinite(found).all(axis=1)]

    @cached_property
    def bounds(self) -> list[Bound]:
        return [
            Bound(1 if self.single else axis, labels.scale(one.metric) * one.bound, one)
            for axis, objective in enumerate(self.sweep.objectives[:2])
            for one in self.sweep.constraints
            if one.metric == objective.metric
        ]

    @cached_property
    def window(self) -> np.ndarray:
        """(low, high) of x and y: the front's 95 % intervals, the baselines, the bounds, trials NEAR these or undominated."""
        # A trial that lost nearly everything would press those that compete into a corner. It is marked at the edge instead.
        ahead = self.kinds == "front"
        reach = RADIUS95 * np.nan_to_num(self.errors[ahead])
        core = [self.places[ahead] - reach, self.places[ahead] + reach] if ahead.any() else [self.places]
        core += [[np.nan, one.edge] if one.axis else [one.edge, np.nan] for one in self.bounds]
        core += [np.where([self.single, False], np.nan, self.baselines)]
        core += [np.where([False, True], np.nan, self.places)] if self.single else []  # all numbers of trials
        ends = np.vstack(core)
        low, high = np.nanmin(ends, axis=0), np.nanmax(ends, axis=0)
        far = np.where(high > low, NEAR * (high - low), np.inf)
        near = ((self.places >= low - far) & (self.places <= high + far)).all(axis=1)
        near = self.places[near | self._undominated()]
        low, high = np.min([low, *near], axis=0), np.max([high, *near], axis=0)
        margin = np.where(high > low, MARGIN * (high - low), 1.0)
        return np.column_stack([low - margin, high + margin])

    def _undominated(self) -> np.ndarray:
        """Mask (n,) of the trials that no trial and no baseline dominates in the shown values, among those that keep the
        constraints on either half of the documents."""
        # the search's half chose the front: on the other half, shown here, another trial may be better
        kept = [
            np.array([one.violation(value) <= 0 for value in self.rows[one.metric]], bool) for one in self.sweep.constraints
        ]
        kept = self.rows["feasible"].to_numpy(dtype=bool) | np.all([np.ones(len(self.rows), bool), *kept], axis=0)
        places = np.concatenate([self.places, self.baselines])[:, 1 if self.single else 0 :]
        taking = np.append(kept, np.ones(len(self.baselines), bool))
        return pareto.front(pareto.orient(places, self.sweep.objectives[:2]), taking)[: len(self.rows)]

    def region(self) -> tuple[float, float, float, float] | None:
        """(left, right, bottom, top) of the shown area that keeps the constraints; None if there is none."""
        ends = self.window.copy()
        for one in self.bounds:
            side, tighter = (1, min) if one.constraint.op == "<=" else (0, max)
            ends[one.axis, side] = tighter(ends[one.axis, side], one.edge)
        return tuple(ends.ravel().tolist()) if self.bounds and (ends[:, 0] < ends[:, 1]).all() else None


def scene(sweep: Sweep, rows: pd.DataFrame | None = None) -> Scene:
    """All finished trials, or `rows` of them, that have a value for both axes."""
    rows = sweep.trials if rows is None else rows
    metrics = [one.metric for one in sweep.objectives[:2]]
    rows = rows[(rows["state"] == "complete") & np.isfinite(rows[metrics].to_numpy(dtype=float)).all(axis=1)]
    values = [labels.scale(name) * rows[name].to_numpy(dtype=float) for name in metrics]
    errors = [labels.scale(name) * _error(rows, name, NORMAL95 if len(metrics) == 1 else RADIUS95) for name in metrics]
    if len(metrics) == 1:
        values, errors = [rows["number"].to_numpy(dtype=float), *values], [np.zeros(len(rows)), *errors]
    return Scene(sweep, rows, np.column_stack(values), np.column_stack(errors))


def _error(rows: pd.DataFrame, name: str, steps: float) -> np.ndarray:
    """Standard errors (n,); where no document changed, half the 95 % interval over `steps`."""
    seen = rows[col.se(name)].to_numpy(dtype=float)
    half = (rows[col.high(name)] - rows[col.low(name)]).to_numpy(dtype=float) / 2
    return np.where((seen <= labels.EXACT) & np.isfinite(half), half / steps, seen)


def kinds(rows: pd.DataFrame) -> np.ndarray:
    """ "front", "dominated" or "outside" (the constraints) for each finished trial."""
    return np.where(rows["on_front"], "front", np.where(rows["feasible"], "dominated", "outside"))


def evenly(rows: pd.DataFrame, most: int) -> pd.DataFrame:
    """At most this many of the rows, spread evenly from the first to the last."""
    return rows.iloc[np.unique(np.linspace(0, max(len(rows) - 1, 0), min(most, len(rows))).round().astype(int))]


def named(places: np.ndarray, numbers: Iterable[int]) -> dict[tuple[float, float], str]:
    """The label of each of the places (n, 2): "#3", or "#3 #7 …" for trials at the same place."""
    found: dict[tuple[float, float], list[str]] = {}
    for (x, y), number in zip(places.tolist(), numbers, strict=True):
        found.setdefault((x, y), []).append(f"#{number}")
    return {at: " ".join(several[:4]) + (" …" if len(several) > 4 else "") for at, several in found.items()}
