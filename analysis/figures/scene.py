"""The front for every drawing of it: points, errors, edge, baselines and bounds, in the unit of the axes."""

from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise
from typing import Any

import numpy as np
import pandas as pd

from analysis.formatting import labels
from analysis.metrics.names import LEARNING, Constraint, split_metric
from analysis.results import schema as col
from analysis.results.sweep import Sweep
from analysis.stats import pareto

KINDS = ("front", "dominated", "outside")


@dataclass(frozen=True)
class Bound:
    """A constraint on a metric that is an axis; `edge` is its place on `axis`, "x" or "y"."""

    axis: str
    edge: float
    constraint: Constraint


@dataclass(frozen=True)
class Scene:
    """Finished trials in the first two objectives; with one objective x is the trial's number, and its errors are 0.

    Arrays are (n,), one entry a row; an unknown error is NaN.
    """

    sweep: Sweep
    rows: pd.DataFrame
    x: np.ndarray
    y: np.ndarray
    x_error: np.ndarray
    y_error: np.ndarray

    @property
    def single(self) -> bool:
        return len(self.sweep.objectives) == 1

    def of(self, mask: Any) -> "Scene":
        """The scene of the masked rows."""
        return scene(self.sweep, self.rows[mask])

    @cached_property
    def kinds(self) -> np.ndarray:
        return kinds(self.rows)

    @property
    def names(self) -> list[tuple[str, str]]:
        """(name, way to the better end) of x and of y."""
        ways = {"maximize": "better →", "minimize": "← better"}
        found = [(labels.axis(one.metric), ways[one.direction]) for one in self.sweep.objectives[:2]]
        return [("trial", ""), *found] if self.single else found

    @property
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
            best = (np.maximum if largest else np.minimum).accumulate(self.y[mask])
            return stairs(np.append(self.x[mask], self.x.max()), np.append(best, best[-1]), "post")
        # the search's half of the documents chose the front: on the other half, shown here, some of it may be dominated
        points = pareto.orient(self.rows[[one.metric for one in objectives]].to_numpy(dtype=float), objectives)
        mask = pareto.front(points, mask)
        x, y = self.x[mask], self.y[mask]
        order = np.lexsort((y, x))
        return stairs(x[order], y[order], "pre" if largest else "post")

    @cached_property
    def baselines(self) -> np.ndarray:
        """Places of the finished baselines, (baselines, 2); with one objective x is 0."""
        done = self.sweep.complete_baselines
        places = []
        for objective in self.sweep.objectives[:2]:
            role, kind = split_metric(objective.metric)
            scores = done.get(f"{role}.value", pd.Series(np.nan, index=done.index)).to_numpy(dtype=float)
            # its row has the scores alone; a difference from itself is 0
            level = np.nan if kind in ("loss", "gold_bpb") else 1.0 if kind in ("value", "base") else 0.0
            places.append(labels.scale(objective.metric) * level * np.where(role == LEARNING, 0.0, scores))
        found = np.unique(np.column_stack([np.zeros(len(done)), *places][-2:]), axis=0)
        return found[np.isfinite(found).all(axis=1)]

    @cached_property
    def bounds(self) -> list[Bound]:
        return [
            Bound("y" if self.single else "xy"[plotted], labels.scale(one.metric) * one.bound, one)
            for plotted, objective in enumerate(self.sweep.objectives[:2])
            for one in self.sweep.constraints
            if one.metric == objective.metric
        ]

    def ranges(self, reach: float) -> tuple[tuple[float, float], tuple[float, float]]:
        """(low, high) of x and of y: points, `reach` standard errors of the front's, baselines, and bounds."""
        found = []
        ahead = self.kinds == "front"
        for n, (axis, places, error) in enumerate((("x", self.x, self.x_error), ("y", self.y, self.y_error))):
            reached = reach * np.nan_to_num(error[ahead])
            ends = [*places, *(places[ahead] - reached), *(places[ahead] + reached)]
            ends += [bound.edge for bound in self.bounds if bound.axis == axis]
            ends += [] if self.single and axis == "x" else self.baselines[:, n].tolist()
            found.append((float(min(ends)), float(max(ends))))
        return found[0], found[1]

    def region(self, x: tuple[float, float], y: tuple[float, float]) -> tuple[float, float, float, float] | None:
        """(left, right, bottom, top) of the area within x and y that keeps the constraints; None if there is none."""
        ends = {"x": list(x), "y": list(y)}
        for one in self.bounds:
            side, tighter = (1, min) if one.constraint.op == "<=" else (0, max)
            ends[one.axis][side] = tighter(ends[one.axis][side], one.edge)
        (left, right), (bottom, top) = ends["x"], ends["y"]
        return (left, right, bottom, top) if self.bounds and left < right and bottom < top else None


def scene(sweep: Sweep, rows: pd.DataFrame | None = None) -> Scene:
    """All finished trials, or `rows` of them, that have a value for both axes."""
    rows = sweep.trials if rows is None else rows
    metrics = [one.metric for one in sweep.objectives[:2]]
    rows = rows[(rows["state"] == "complete") & np.isfinite(rows[metrics].to_numpy(dtype=float)).all(axis=1)]
    values = [labels.scale(name) * rows[name].to_numpy(dtype=float) for name in metrics]
    errors = [labels.scale(name) * rows[col.se(name)].to_numpy(dtype=float) for name in metrics]
    if len(metrics) == 1:
        values, errors = [rows["number"].to_numpy(dtype=float), *values], [np.zeros(len(rows)), *errors]
    return Scene(sweep, rows, values[0], values[1], errors[0], errors[1])


def kinds(rows: pd.DataFrame) -> np.ndarray:
    """One of KINDS for each finished trial."""
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


def padded(ends: tuple[float, float], share: float) -> tuple[float, float]:
    low, high = ends
    margin = share * (high - low) if high > low else 1.0
    return low - margin, high + margin


def stairs(x: np.ndarray, y: np.ndarray, where: str) -> np.ndarray:
    """The corners (2n - 1, 2) of matplotlib's step line through points (n,), `where` being "pre" or "post"."""
    corners = np.repeat(np.column_stack([x, y]), 2, axis=0)[:-1]
    if where == "pre":
        corners[1::2, 1] = y[1:]
    else:
        corners[1::2, 0] = x[1:]
    return corners


def along(corners: np.ndarray, parts: int = 40) -> np.ndarray:
    """Places (k, 2) along a line through `corners` (n, 2)."""
    steps = np.linspace(0, 1, parts)[:, None]
    return np.concatenate([corners[:1], *(start + steps * (end - start) for start, end in pairwise(corners))])
