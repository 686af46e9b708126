"""The figures of an ablation: panels of lines with intervals, their captions, and their data.

A figure has no title of its own; the page shows the `FigureSpec`'s.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator
from matplotlib.transforms import ScaledTranslation

from analysis.ablations.answer import Answer
from analysis.ablations.cells import null
from analysis.ablations.points import LINES, Line, Row, is_metric, key, lines, ordered, path_name, similarities, text
from analysis.ablations.questions import FigureSpec
from analysis.figures.theme import LIGHT, MARKERS, Theme, broken, canvas, short, themed
from analysis.formatting import labels
from analysis.metrics.names import LEARNING, split_metric
from analysis.results import schema as col

WIDTH = 7.2  # inches: letters of 9 points stay legible in a picture of 500 px
# typographic points between lines at the same x, so that their intervals do not cover each other; between numbers too little to
# be read as another number
APART, APART_NUMBERS = 6.0, 1.5
STEPS = [1, 2, 2.5, 5, 10]  # of ticks


@dataclass(frozen=True)
class Series:
    """A line as it is drawn."""

    label: str
    x: Sequence[Any]
    y: np.ndarray
    """Value, low and high, (3, points), in the unit of the axis; NaN for an unknown end."""


@dataclass(frozen=True)
class Panel:
    title: str
    x: str
    series: Sequence[Series]
    level: float | None
    """Height of the base."""


@themed
def draw(answer: Answer, spec: FigureSpec, theme: Theme = LIGHT) -> Figure | None:
    """The figure, or None if the sweep has nothing to show in it."""
    shown = panels(answer, spec)
    if not shown:
        return None
    columns, several = min(len(shown), 2), len(shown[0].series) > 1
    height = 2.75 * math.ceil(len(shown) / columns) + (0.6 if several else 0.3)
    figure, grid = canvas(theme, (WIDTH, height), len(shown), columns)
    values = list({key(value): value for panel in shown for series in panel.series for value in series.x}.values())
    numeric = ordered(values)
    # names keep the order of the design; a setting that is absent comes first
    values.sort(key=(lambda value: value) if numeric else lambda value: not null(value))
    for panel, axes in zip(shown, grid, strict=True):
        axes.set_title(broken(panel.title, 68 // columns))
        axes.set_xlabel(panel.x, size=9.5)
        axes.yaxis.set_major_locator(MaxNLocator(6, steps=STEPS))
        _scale(axes, values, numeric, spec.log)
        _panel(axes, panel, None if numeric else [key(value) for value in values], theme)
    if several:
        handles, names = grid[0].get_legend_handles_labels()
        wide = max(1, min(len(names), 92 // (max(map(len, names)) + 6)))
        figure.legend(handles, names, loc="outside upper left", ncols=wide)
    figure.draw_without_rendering()  # tick labels have a size only now
    if not numeric and any(left[1] > right[0] for axes in grid for left, right in pairwise(_widths(axes))):
        aslant = [short(text(value), 22) for value in values]
        for axes in grid:
            axes.set_xticks(range(len(values)), aslant, rotation=40, ha="right", rotation_mode="anchor")
        # slanted names take the height of a line of panels otherwise
        figure.set_figheight(height + 0.65 * math.ceil(len(shown) / columns))
    elif numeric and spec.log:
        for axes in grid:
            _thin(axes)
    return figure


def _scale(axes: Axes, values: Sequence[Any], numeric: bool, log: bool) -> None:
    """The x axis: names side by side, a line of numbers, or their logarithms."""
    axes.margins(x=0.06)
    if not numeric:
        axes.set_xticks(range(len(values)), [broken(text(value), 14) for value in values])
        axes.set_xlim(-0.6, len(values) - 0.4)
    elif not log or max(values) <= 0:
        axes.xaxis.set_major_locator(MaxNLocator(6, steps=STEPS, integer=all(isinstance(one, int) for one in values)))
    else:
        # linear below the smallest positive value, so that 0 has a place left of it
        axes.set_xscale("symlog", linthresh=min(value for value in values if value > 0), linscale=0.5)
        axes.set_xticks(values, list(map(text, values)), minor=False)
        axes.minorticks_off()


def _widths(axes: Axes) -> list[tuple[float, float]]:
    """Left and right end of each tick label on the canvas, with a gap of three dots."""
    return [(box.x0 - 3, box.x1 + 3) for box in (label.get_window_extent() for label in axes.get_xticklabels())]


def _thin(axes: Axes) -> None:
    """Blanks each tick label that would overlap the one before it."""
    end, names = -math.inf, []
    for label, (left, right) in zip(axes.get_xticklabels(), _widths(axes), strict=True):
        names.append(label.get_text() if left > end else "")
        end = right if left > end else end
    axes.set_xticks(axes.get_xticks(), names)


def _panel(axes: Axes, panel: Panel, names: Sequence[str] | None, theme: Theme) -> None:
    """Points with their intervals, joined through the mean of those at the same x. `names` are the x of a row of names."""
    count = len(panel.series)
    for n, series in enumerate(panel.series):
        colour, marker, strength = theme.muted, ".", 0.5
        if n < LINES:
            colour, marker, strength = (*theme.series, theme.muted)[n], (*MARKERS, "*")[n], 1.0
        x = np.array([float(value) if names is None else names.index(key(value)) for value in series.x])
        aside = (APART if names else APART_NUMBERS) * (n - (count - 1) / 2) / 72
        moved = axes.transData + ScaledTranslation(aside, 0, axes.figure.dpi_scale_trans)
        y, low, high = series.y
        axes.errorbar(
            x, y, np.clip([y - low, high - y], 0, None), fmt=marker, color=colour, markersize=5.5, elinewidth=1.1,
            markeredgecolor=theme.paper, markeredgewidth=0.7, capsize=2.5, alpha=strength, zorder=2 + strength,
            label=series.label if n < LINES else None, transform=moved,
        )  # fmt: skip
        # the axes scale themselves to nothing that is drawn with another transform than theirs
        ends = np.column_stack([np.tile(x, 3), np.ravel(series.y)])
        axes.update_datalim(ends[np.isfinite(ends).all(axis=1)])
        places = np.unique(x)
        # names have no order that a line could suggest, unless it tells series apart
        if len(places) > 1 and (names is None or (count > 1 and panel.x)):
            means = [y[x == place].mean() for place in places]
            axes.plot(places, means, color=colour, linewidth=1.5, alpha=0.75 * strength, zorder=2, transform=moved)
    axes.autoscale_view()
    if panel.level is not None:
        look: dict[str, Any] = {"linestyle": (0, (5, 3)), "linewidth": 1.1} if panel.level else {"linewidth": 0.9}
        axes.axhline(panel.level, color=theme.muted, zorder=1, **look)


def caption(answer: Answer, spec: FigureSpec) -> str:
    """A description of the figure in a sentence or two."""
    if spec.kind == "layers":
        return (
            "Linear CKA between hidden states on held-out rows and the base's, by layer; layer 0 is the embeddings, 1 means "
            "equal up to rotation and scale. Means over sources and seeds."
        )
    seeds = f" and {answer.seeds} seeds" if answer.seeds > 1 else ""
    parts = [f"Bars are 95 % intervals over documents{seeds}."]
    shown = panels(answer, spec)
    levels = [panel.level for panel in shown]
    if 0.0 in levels:
        parts.append("The line at 0 is the base.")
    if any(levels):
        parts.append("The dashed line is the base.")
    if spec.kind == "lines" and shown and (found := len(shown[0].series)) > LINES:
        parts.append(f"The first {LINES} of {found} groups are in colour, the others grey.")
    return " ".join(parts)


def data(answer: Answer, spec: FigureSpec) -> list[dict[str, Any]]:
    """The drawn numbers in the metrics' own units: the points of each line, or its similarities by layer."""
    if spec.kind == "layers":
        return [{"line": name, "similarity": values.tolist()} for name, values in similarities(answer, spec).items()]
    found = lines(answer, spec)
    metrics = _measured(found, spec)
    return [{"line": line.label, "points": [_point(row, metrics) for row in line.rows]} for line in found]


def _point(row: Row, metrics: Sequence[str]) -> dict[str, Any]:
    return {"x": row["x"]} | {name: {key: row[column] for key, column in col.interval(name).items()} for name in metrics}


def panels(answer: Answer, spec: FigureSpec) -> list[Panel]:
    """The drawn panels; empty if the sweep has nothing to show."""
    if spec.kind == "layers":
        alike = similarities(answer, spec).items()
        drawn = [Series(name, range(len(one)), np.array([one, one * np.nan, one * np.nan])) for name, one in alike]
        title = "similarity of the hidden states to the base's (linear CKA)"
        return [Panel(title, "layer (0: the embeddings)", drawn, 1.0)] if drawn else []
    found = lines(answer, spec)
    metrics = _measured(found, spec)
    if not metrics:
        return []
    x = _axis(spec.x) if is_metric(spec.x) else path_name(spec.x)
    if spec.kind == "lines":
        series = {name: [_series(line.label, line, name) for line in found] for name in metrics}
        return [Panel(_axis(name), x, series[name], _base_level(found, name)) for name in metrics]
    level = _base_level(found, metrics[0])
    if spec.kind == "classes":
        everything = Line("", [row for line in found for row in line.rows])
        title = _axis(f"{split_metric(metrics[0])[0]}.gold_bpb_delta")
        return [Panel(title, x, [_series(_token_class(name), everything, name) for name in metrics], level)]
    side_by_side = []
    for line in found:
        parts = [_series(labels.metric_name(name), line, name) for name in metrics]
        names = [part.label for part in parts for _ in part.x]
        side_by_side.append(Series(line.label, names, np.hstack([part.y for part in parts])))
    return [Panel(_axis(metrics[0]).partition("(")[2].rstrip(")"), "", side_by_side, level)]


def _series(label: str, line: Line, metric: str) -> Series:
    points = line.points(metric)
    ends = np.array([[row[column] for row in points] for column in col.interval(metric).values()], dtype=float)
    return Series(label, [row["x"] for row in points], labels.scale(metric) * ends)


def _measured(found: Sequence[Line], spec: FigureSpec) -> list[str]:
    return [name for name in spec.y if any(line.points(name) for line in found)]


def _base_level(found: Sequence[Line], metric: str) -> float | None:
    """The base in the metric's unit: 0 for a difference, its own score for a score; None if the rows have several bases."""
    role, kind = split_metric(metric)
    if kind == "value":
        base = f"{role}.base"
        # rounded: records of one base differ in the last digit of a mean
        own = {round(float(row[base]), 12) for line in found for row in line.points(base)}
        return labels.scale(metric) * own.pop() if len(own) == 1 else None
    return 0.0 if kind.endswith(("gain", "drop", "forgetting", "delta", "kl")) else None


def _axis(metric: str) -> str:
    return labels.axis(metric).removeprefix(f"{LEARNING} ").replace("percentage points", "points")


def _token_class(metric: str) -> str:
    """ "digits" for math.gold_bpb_digit_delta."""
    part = split_metric(metric)[1].removeprefix("gold_bpb").removesuffix("delta").strip("_")
    return {"": "all", "format": "format"}.get(part, f"{part}s")
