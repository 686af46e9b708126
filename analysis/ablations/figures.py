"""The figures of an ablation: what its `FigureSpec`s select of the sweep, as panels, drawings, captions and numbers.

A figure has no title in it; `caption` says what it shows, `numbers` holds it.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from analysis.ablations.answer import Answer, FigureSpec
from analysis.ablations.points import LINES, Line, is_metric, key, lines, null, ordered, path_name, similarities, text
from analysis.figures.theme import LIGHT, MARKERS, Theme, broken, canvas, short, themed
from analysis.formatting import labels
from analysis.metrics.names import LEARNING, split_metric
from analysis.results import schema as col

WIDTH = 7.2  # inches: letters of 9 points can be read where the picture is 500 px wide
TURNED = 22  # letters of a name that stands aslant
STEPS = [1, 2, 2.5, 5, 10]


@dataclass(frozen=True)
class Series:
    """A line as it is drawn."""

    label: str
    x: Sequence[Any]
    y: np.ndarray
    """Value, low and high, (3, points), in the unit of the axis; NaN where an end is unknown."""


@dataclass(frozen=True)
class Panel:
    title: str
    x: str
    series: Sequence[Series]
    level: float | None
    """Height of a line across: where the base is."""


@dataclass(frozen=True)
class Axis:
    """Places of what x may be: numbers where they are or at their logarithms, a 0 left of these; names in a row."""

    values: Sequence[Any]
    kind: Literal["numbers", "logarithms", "names"]

    def place(self, value: Any) -> float:
        if self.kind == "numbers":
            return float(value)
        if self.kind == "names":
            return float([key(one) for one in self.values].index(key(value)))
        above = [math.log(one) for one in self.values if one > 0]
        return math.log(value) if value > 0 else above[0] - (0.3 * (above[-1] - above[0]) or 1.0)

    def step(self, of: int) -> float:
        """The distance between `of` lines that leaves their bars uncovered; too little to be read as another number."""
        if self.kind == "names":
            return min(0.16, 0.7 / of)
        return 0.004 * (self.place(self.values[-1]) - self.place(self.values[0]))

    def turned(self, letters: int) -> bool:
        """Whether the names find no room side by side in a panel that is so many letters wide."""
        lines = [line for value in self.values for line in broken(text(value), 14).split("\n")]
        return self.kind == "names" and max(map(len, lines)) + 1 > letters / len(self.values)

    def show(self, axes: Axes, letters: int) -> None:
        """Ticks of a panel that is so many letters wide; of two logarithms that would cover each other the first."""
        places = [self.place(value) for value in self.values]
        if self.kind == "names":
            turned = self.turned(letters)
            texts = [short(text(value), TURNED) if turned else broken(text(value), 14) for value in self.values]
            look: dict[str, Any] = {"rotation": 40, "ha": "right", "rotation_mode": "anchor"} if turned else {}
            axes.set_xticks(places, texts, **look)
            axes.set_xlim(-0.6, len(texts) - 0.4)
            return
        axes.margins(x=0.06)
        if self.kind == "numbers" and len(self.values) > 1:
            whole = all(isinstance(one, int) for one in self.values)
            axes.xaxis.set_major_locator(MaxNLocator(letters // 6, steps=STEPS, integer=whole))
            return
        shown = [0]
        for n in range(1, len(places)):
            room = 0.5 * sum(len(text(self.values[one])) + 1 for one in (n, shown[-1])) / letters
            if places[n] - places[shown[-1]] > room * (places[-1] - places[0]):
                shown.append(n)
        axes.set_xticks([places[n] for n in shown], [text(self.values[n]) for n in shown])


# ---------------------------------------------------------------------- forms


@themed
def draw(answer: Answer, spec: FigureSpec, theme: Theme = LIGHT) -> Figure | None:
    """The figure, or None where the sweep has nothing to show in it."""
    shown = panels(answer, spec)
    if not shown:
        return None
    axis = _axis([x for panel in shown for series in panel.series for x in series.x], spec.log)
    several = len(shown[0].series) > 1
    columns = len(shown) if len(shown) < 3 or (len(shown) == 3 and not several and not axis.turned(_letters(3))) else 2
    letters = _letters(columns)
    turned = axis.turned(letters)
    height = 0.3 + (3.4 if turned else 2.75) * math.ceil(len(shown) / columns) + 0.3 * several
    figure, grid = canvas(theme, (WIDTH, height), len(shown), columns)
    for panel, axes in zip(shown, grid, strict=True):
        joined = axis.kind != "names" or (several and spec.kind != "metrics")
        _panel(axes, panel, axis, joined, theme)
        axes.set_title(broken(panel.title, letters - (TURNED // 2 if turned else 0)))
        axes.set_xlabel(panel.x, size=9.5)
        axis.show(axes, letters)
    if several:
        handles, names = grid[0].get_legend_handles_labels()
        wide = max(1, min(len(names), 92 // (max(map(len, names)) + 6)))
        figure.legend(handles, names, loc="outside upper left", ncols=wide)
    return figure


def _panel(axes: Axes, panel: Panel, axis: Axis, joined: bool, theme: Theme) -> None:
    """Points with their intervals, joined through the mean of those at the same x."""
    for n, series in enumerate(panel.series):
        colour, marker, strength = theme.muted, ".", 0.5
        if n < LINES:
            colour, marker, strength = (*theme.series, theme.muted)[n], (*MARKERS, "*")[n], 1.0
        x = np.array([axis.place(value) for value in series.x])
        aside = axis.step(len(panel.series)) * (n - (len(panel.series) - 1) / 2)
        y, low, high = series.y
        axes.errorbar(
            x + aside, y, np.clip([y - low, high - y], 0, None), fmt=marker, color=colour, markersize=5.5, elinewidth=1.1,
            markeredgecolor=theme.paper, markeredgewidth=0.7, capsize=2.5, alpha=strength, zorder=2 + strength,
            label=series.label if n < LINES else None,
        )  # fmt: skip
        if joined and len(set(x)) > 1:
            places = np.unique(x)
            means = [y[x == place].mean() for place in places]
            axes.plot(places + aside, means, color=colour, linewidth=1.5, alpha=0.75 * strength, zorder=2)
    if panel.level is not None:
        look: dict[str, Any] = {"linestyle": (0, (5, 3)), "linewidth": 1.1} if panel.level else {"linewidth": 0.9}
        axes.axhline(panel.level, color=theme.muted, zorder=1, **look)
    axes.yaxis.set_major_locator(MaxNLocator(6, steps=STEPS))


def _letters(columns: int) -> int:
    """How many letters of a tick's size are as wide as a panel."""
    return int((72 * WIDTH / columns - 40) / 5.4)


def caption(answer: Answer, spec: FigureSpec) -> str:
    """What the figure shows, in words."""
    if spec.kind == "layers":
        return (
            "Hidden states on held-out rows against the base's, layer by layer from the embeddings on (linear CKA): 1 is "
            "alike. Means over sources and seeds."
        )
    seeds = f" and {answer.seeds} seeds" if answer.seeds > 1 else ""
    parts = [f"Bars are 95 % intervals over documents{seeds}."]
    levels = [panel.level for panel in panels(answer, spec)]
    if 0.0 in levels:
        parts.append("The line at 0 is the base.")
    if any(levels):
        parts.append("The dashed line is the base.")
    if spec.kind == "lines" and (found := len(lines(answer, spec))) > LINES:
        parts.append(f"The first {LINES} of {found} groups are in colour, the others grey.")
    return " ".join(parts)


def numbers(answer: Answer, spec: FigureSpec) -> list[dict[str, Any]]:
    """What is drawn, in the metrics' own units: per line its points, or its similarities by layer."""
    if spec.kind == "layers":
        return [{"line": name, "similarity": values.tolist()} for name, values in similarities(answer, spec).items()]
    found = lines(answer, spec)
    metrics = _measured(found, spec)
    points = [
        [
            {"x": row["x"]} | {name: {key: row[column] for key, column in col.interval(name).items()} for name in metrics}
            for row in rows
        ]
        for rows in (line.rows.to_dict("records") for line in found)
    ]
    return [{"line": line.label, "points": shown} for line, shown in zip(found, points, strict=True)]


# ---------------------------------------------------------------------- what is shown


def panels(answer: Answer, spec: FigureSpec) -> list[Panel]:
    """What is drawn; empty where the sweep has nothing to show."""
    if spec.kind == "layers":
        found_alike = similarities(answer, spec).items()
        alike = [Series(name, range(len(one)), np.array([one, one * np.nan, one * np.nan])) for name, one in found_alike]
        title = "likeness of the hidden states to the base's (linear CKA)"
        return [Panel(title, "layer (0: the embeddings)", alike, 1.0)] if alike else []
    found = lines(answer, spec)
    metrics = _measured(found, spec)
    if not metrics:
        return []
    levels = [_base_level(found, name) for name in metrics]
    if spec.kind == "lines":
        x = _metric(spec.x) if is_metric(spec.x) else path_name(spec.x)
        return [
            Panel(_metric(name), x, [_series(line.label, line.rows, name) for line in found], level)
            for name, level in zip(metrics, levels, strict=True)
        ]
    if spec.kind == "classes":
        whole = pd.concat([line.rows for line in found])
        title = _metric(f"{split_metric(metrics[0])[0]}.gold_bpb_delta")
        return [Panel(title, path_name(spec.x), [_series(_class(name), whole, name) for name in metrics], levels[0])]
    side_by_side = []
    for line in found:
        parts = [_series(labels.metric_name(name), line.rows, name) for name in metrics]
        x_names = [part.label for part in parts for _ in part.x]
        side_by_side.append(Series(line.label, x_names, np.hstack([part.y for part in parts])))
    return [Panel(_metric(metrics[0]).partition("(")[2].rstrip(")"), "", side_by_side, levels[0])]


def _series(label: str, rows: pd.DataFrame, metric: str) -> Series:
    rows = rows[rows[metric].notna()]
    ends = rows[list(col.interval(metric).values())].to_numpy(dtype=float)
    return Series(label, list(rows["x"]), labels.scale(metric) * ends.T)


def _measured(found: Sequence[Line], spec: FigureSpec) -> list[str]:
    """The metrics of `y` that the shown rows have a value of."""
    return [name for name in spec.y if any(name in line.rows and line.rows[name].notna().any() for line in found)]


def _base_level(found: Sequence[Line], metric: str) -> float | None:
    """The base, in the metric's unit: 0 of a difference, its own score of a score; None where the rows have several bases."""
    role, kind = split_metric(metric)
    if kind == "value":
        own = {round(float(one), 12) for line in found for one in line.rows[f"{role}.base"].dropna()}
        return labels.scale(metric) * own.pop() if len(own) == 1 else None
    return 0.0 if kind.endswith(("gain", "drop", "forgetting", "delta", "kl")) else None


def _axis(values: Sequence[Any], log: bool) -> Axis:
    distinct = list({key(value): value for value in values}.values())
    if not ordered(distinct):
        return Axis(sorted(distinct, key=lambda one: not null(one)), "names")
    return Axis(sorted(distinct), "logarithms" if log and max(distinct) > 0 else "numbers")


# ---------------------------------------------------------------------- names and values


def _metric(name: str) -> str:
    """With its unit."""
    return labels.axis(name).removeprefix(f"{LEARNING} ").replace("percentage points", "points")


def _class(metric: str) -> str:
    """ "digits" of math.gold_bpb_digit_delta."""
    part = split_metric(metric)[1].removeprefix("gold_bpb").removesuffix("delta").strip("_")
    return {"": "all", "format": "format"}.get(part, f"{part}s")
