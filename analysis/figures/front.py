"""The pictures of a sweep, one function a figure; colours (Okabe-Ito) are told apart by the colour-blind, markers by all."""

import io
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import MaxNLocator

from analysis.figures import label_placement
from analysis.formatting import labels
from analysis.metrics.names import LEARNING, Constraint, Objective, split_metric
from analysis.results.sweep import Sweep

WIDTH, HEIGHT = 9.0, 5.6  # inches; 100 of its 200 dots an inch make a picture of 900 px
EMPTY = 2.8  # the height where there is nothing to show
ABOVE, UNDER = 1.08, 0.62  # inches of title and legend, and of the lower axis' ticks and name
ROW, FOOT = 0.24, 0.14  # inches of a table row, and of the margin below the table
LISTED = 10  # front points that are labelled and listed: more would not be read


@dataclass(frozen=True)
class Theme:
    paper: str
    ink: str
    muted: str
    grid: str
    front: str
    feasible: str
    infeasible: str
    region: str
    series: tuple[str, ...]
    """Of what stands side by side, such as bases or objectives, in this order."""


LIGHT = Theme(
    *("#ffffff", "#1c2127", "#5f6b76", "#e6e9ec", "#0072B2", "#56B4E9", "#D55E00", "#009E73"),
    ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#1c2127"),
)
DARK = Theme(
    *("#171a1f", "#e8eaed", "#9aa4af", "#2b3038", "#56B4E9", "#3d7ea6", "#E69F00", "#2fbf94"),
    ("#56B4E9", "#E69F00", "#2fbf94", "#CC79A7", "#F0E442", "#D55E00", "#e8eaed"),
)


def png(figure: Figure) -> bytes:
    """The figure as a PNG of its own size, with nothing of the run in it: equal figures are equal bytes."""
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", facecolor=figure.get_facecolor(), metadata={"Software": None})
    return buffer.getvalue()


def svg(figure: Figure) -> bytes:
    """The figure as an SVG, its texts as outlines (no reader needs our fonts); equal figures are equal bytes."""
    buffer = io.BytesIO()
    with rc_context({"svg.hashsalt": "slimsweep"}):
        figure.savefig(buffer, format="svg", facecolor=figure.get_facecolor(), metadata={"Date": None, "Creator": None})
    return buffer.getvalue()


def front_figure(sweep: Sweep, theme: Theme = LIGHT, table: bool = True) -> Figure:
    """All finished trials in the first two objectives (or one, by trial number), the front, the baseline and the constraints.

    Axes are in percent. Whiskers are one standard error to each side. With `table` the points of the front are listed below.
    """
    shown = sweep.trials[sweep.trials["state"] == "complete"]
    shown = shown[
        np.isfinite(shown[[objective.metric for objective in sweep.objectives[:2]]].to_numpy(dtype=float)).all(axis=1)
    ]
    listed = _listed(sweep.front)
    rows = len(listed) + 1 + (len(sweep.front) > len(listed)) if table and len(listed) else 0
    below = ROW * rows + FOOT if rows else 0.0
    height = EMPTY if shown.empty else HEIGHT
    figure = Figure(figsize=(WIDTH, height + below), dpi=200, facecolor=theme.paper)
    FigureCanvasAgg(figure)
    tall = figure.get_figheight()
    axes = figure.add_axes((0.085, (below + UNDER) / tall, 0.895, (height - UNDER - ABOVE) / tall))
    _title(figure, sweep, theme)
    style(axes, theme)
    if shown.empty:
        _say_nothing(axes, sweep, theme)
        return figure
    x, y = coordinates(sweep, shown)
    line = front_line(sweep, shown)
    _points(axes, sweep, shown, x, y, line, theme)
    _limits(axes, sweep, shown, x, y)
    taken = [label_placement.whiskers(x, y, *_errors(sweep, shown)), label_placement.along(line)]
    if len(sweep.objectives) > 1:
        taken.append(baseline_places(sweep))
    room = label_placement.Room(axes, taken)
    _constraints(axes, sweep, room, theme)
    _axis_names(axes, sweep, theme)
    _legend(figure, axes, theme)
    _number(axes, sweep, listed, room, theme)
    if rows:
        _table(figure, sweep, listed, theme)
    return figure


def _listed(front: pd.DataFrame) -> pd.DataFrame:
    """At most LISTED of the front's rows, spread evenly over it with both ends."""
    if len(front) <= LISTED:
        return front
    return front.iloc[np.unique(np.linspace(0, len(front) - 1, LISTED).round().astype(int))]


def _title(figure: Figure, sweep: Sweep, theme: Theme) -> None:
    states = sweep.trials["state"].value_counts()
    parts = [f"{states.get('complete', 0)} finished trials"]
    if sweep.constraints and states.get("complete", 0):
        parts.append(f"{int(sweep.trials['feasible'].sum())} within the constraints")
    if sweep.trials["on_front"].any():
        parts.append(f"{int(sweep.trials['on_front'].sum())} on the front")
    parts += [f"{states[state]} {state}" for state in ("failed", "given up", "pending") if states.get(state, 0)]
    tall = figure.get_figheight()
    name = sweep.name if len(sweep.name) <= 60 else sweep.name[:59] + "…"
    # parse_math off, here and below: a "$" in a name is a "$"
    figure.text(0.022, 1 - 0.2 / tall, name, size=13, weight="bold", color=theme.ink, va="top", parse_math=False)
    figure.text(0.022, 1 - 0.46 / tall, "  ·  ".join(parts), size=9, color=theme.muted, va="top")


def style(axes: Axes, theme: Theme) -> None:
    axes.set_facecolor(theme.paper)
    axes.grid(color=theme.grid, linewidth=0.8)
    axes.set_axisbelow(True)
    for side in ("top", "right", "left", "bottom"):
        axes.spines[side].set_visible(side in ("left", "bottom"))
        axes.spines[side].set_color(theme.muted)
    axes.tick_params(colors=theme.muted, labelsize=9, length=0, pad=5)


def _say_nothing(axes: Axes, sweep: Sweep, theme: Theme) -> None:
    trials = sweep.trials
    if len(trials) and (trials["state"] == "failed").all():
        text = "All trials failed"
    elif (trials["state"] == "complete").any():
        text = "Finished trials have no value for the objectives\n(is their baseline there?)"
    else:
        text = "No trial has finished yet"
    axes.set_axis_off()
    axes.text(0.5, 0.5, text, transform=axes.transAxes, ha="center", va="center", size=13, color=theme.muted, linespacing=1.6)


def coordinates(sweep: Sweep, rows: pd.DataFrame) -> tuple[np.ndarray, np.ndarray]:
    """Of shape (n,) each, in the unit of their labels; with one objective x is the trial's number."""
    shown = [labels.scale(one.metric) * rows[one.metric].to_numpy(dtype=float) for one in sweep.objectives[:2]]
    return (rows["number"].to_numpy(dtype=float), shown[0]) if len(shown) == 1 else (shown[0], shown[1])


def _errors(sweep: Sweep, rows: pd.DataFrame) -> tuple[np.ndarray | None, np.ndarray]:
    found = [
        np.nan_to_num(labels.scale(one.metric) * rows[f"{one.metric}_se"].to_numpy(dtype=float)) for one in sweep.objectives[:2]
    ]
    return (None, found[0]) if len(found) == 1 else (found[0], found[1])


def _points(
    axes: Axes, sweep: Sweep, shown: pd.DataFrame, x: np.ndarray, y: np.ndarray, line: np.ndarray, theme: Theme
) -> None:
    on_front = shown["on_front"].to_numpy(dtype=bool)
    feasible = shown["feasible"].to_numpy(dtype=bool)
    x_error, y_error = _errors(sweep, shown)
    for mask, colour, strength in (
        (~feasible, theme.infeasible, 0.3),
        (feasible & ~on_front, theme.feasible, 0.5),
        (on_front, theme.front, 0.75),
    ):
        across = x_error[mask] if x_error is not None else None
        axes.errorbar(
            x[mask], y[mask], y_error[mask], across, fmt="none", ecolor=colour, elinewidth=0.9, alpha=strength, zorder=2
        )
    if len(line):
        name = "best so far" if len(sweep.objectives) == 1 else ""
        axes.plot(line[:, 0], line[:, 1], color=theme.front, linewidth=1.5, alpha=0.8, zorder=2.5, label=name)
    if sweep.constraints:
        axes.scatter(
            x[~feasible],
            y[~feasible],
            s=38,
            marker="x",
            linewidths=1.6,
            color=theme.infeasible,
            zorder=3,
            label="outside the constraints",
        )
    rest = feasible & ~on_front
    axes.scatter(
        x[rest],
        y[rest],
        s=38,
        marker="s",
        color=theme.feasible,
        edgecolors=theme.paper,
        linewidths=0.8,
        zorder=4,
        label="dominated",
    )
    name = "best" if len(sweep.objectives) == 1 else "front"
    axes.scatter(
        x[on_front],
        y[on_front],
        s=72,
        marker="o",
        color=theme.front,
        edgecolors=theme.paper,
        linewidths=1,
        zorder=6,
        label=name,
    )
    _baseline(axes, sweep, theme)


def front_line(sweep: Sweep, shown: pd.DataFrame) -> np.ndarray:
    """The corners (k, 2) of the edge of what the front dominates; with one objective those of the best so far.

    With more than two objectives the front has no such edge in the plane of the first two, and k is 0.
    """
    feasible = shown[shown["feasible"]]
    front = shown[shown["on_front"]]
    if len(sweep.objectives) > 2 or feasible.empty:
        return np.empty((0, 2))
    largest = sweep.objectives[0].direction == "maximize"
    if len(sweep.objectives) == 2:
        x, y = coordinates(sweep, front)
        order = np.lexsort((y, x))
        return label_placement.stairs(x[order], y[order], "pre" if largest else "post")
    x, y = coordinates(sweep, feasible)
    best = (np.maximum if largest else np.minimum).accumulate(y)
    return label_placement.stairs(np.append(x, shown["number"].max()), np.append(best, best[-1]), "post")


def baseline_places(sweep: Sweep) -> np.ndarray:
    """Where the finished baselines lie in the plotted objectives, in their labels' unit: shape (baselines, plotted objectives).

    NaN where a baseline has no such number in its row: its own loss and bits.
    """
    done = sweep.baselines[sweep.baselines["state"] == "complete"]
    places = []
    for objective in sweep.objectives[:2]:
        role, kind = split_metric(objective.metric)
        scores = done.get(f"{role}.value", pd.Series(np.nan, index=done.index)).to_numpy(dtype=float)
        if kind in ("loss", "gold_bpb"):
            places.append(np.full(len(done), np.nan))
        else:
            level = 1.0 if kind in ("value", "base") else 0.0
            places.append(labels.scale(objective.metric) * level * np.where(role == LEARNING, 0.0, scores))
    return np.unique(np.column_stack(places), axis=0)


def _baseline(axes: Axes, sweep: Sweep, theme: Theme) -> None:
    places = baseline_places(sweep)
    places = places[np.isfinite(places).all(axis=1)]
    if not len(places):
        return
    if len(sweep.objectives) == 1:
        for number, (level,) in enumerate(places):
            axes.axhline(
                level, color=theme.ink, linewidth=1.2, linestyle=(0, (1, 2)), zorder=2, label="" if number else "baseline"
            )
    else:
        axes.scatter(
            places[:, 0],
            places[:, 1],
            s=64,
            marker="D",
            color=theme.ink,
            edgecolors=theme.paper,
            linewidths=1,
            zorder=7,
            label="baseline",
        )


def _limits(axes: Axes, sweep: Sweep, shown: pd.DataFrame, x: np.ndarray, y: np.ndarray) -> None:
    """Room for all points, their whiskers, the baseline and the edge of each constraint that is plotted."""
    x_error, y_error = _errors(sweep, shown)
    ends = [
        np.concatenate([x - (0 if x_error is None else x_error), x + (0 if x_error is None else x_error)]),
        np.concatenate([y - y_error, y + y_error]),
    ]
    base = baseline_places(sweep)
    for plotted, (_, bounds) in enumerate(_plotted(sweep)):
        along = plotted if len(sweep.objectives) > 1 else 1
        places = base[:, plotted]
        ends[along] = np.concatenate(
            [ends[along], places[np.isfinite(places)], [labels.scale(bound.metric) * bound.bound for bound in bounds]]
        )
    for end, place in zip(ends, ("xlim", "ylim"), strict=True):
        low, high = float(end.min()), float(end.max())
        margin = 0.07 * (high - low) if high > low else 1.0
        axes.set(**{place: (low - margin, high + margin)})
    if len(sweep.objectives) == 1:
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))


def _plotted(sweep: Sweep) -> list[tuple[Objective, list[Constraint]]]:
    """The objectives on the axes, each with the constraints on its metric."""
    return [(one, [bound for bound in sweep.constraints if bound.metric == one.metric]) for one in sweep.objectives[:2]]


def _constraints(axes: Axes, sweep: Sweep, room: label_placement.Room, theme: Theme) -> None:
    """Shades where all constraints on plotted metrics hold, and names their edges."""
    region = {"x": list(axes.get_xlim()), "y": list(axes.get_ylim())}
    bounds = []
    for plotted, (_, constraints) in enumerate(_plotted(sweep)):
        along = "xy"[plotted] if len(sweep.objectives) > 1 else "y"
        for bound in constraints:
            edge = labels.scale(bound.metric) * bound.bound
            side = 1 if bound.op == "<=" else 0
            region[along][side] = (min if side else max)(region[along][side], edge)
            bounds.append((along, edge, bound))
    if not bounds:
        return
    (left, right), (bottom, top) = region["x"], region["y"]
    if left < right and bottom < top:
        axes.fill_between([left, right], bottom, top, color=theme.region, alpha=0.09, linewidth=0, zorder=0)
    for along, edge, _ in bounds:
        line = axes.axhline if along == "y" else axes.axvline
        line(edge, color=theme.region, linewidth=1.2, linestyle=(0, (5, 3)), zorder=1)
        ends = [(x, edge) for x in axes.get_xlim()] if along == "y" else [(edge, y) for y in axes.get_ylim()]
        room.take(label_placement.along(np.array(ends)))
    for along, edge, bound in bounds:
        _name_edge(axes, along, edge, labels.constraint_sign(bound), room, theme)


def _name_edge(axes: Axes, along: str, edge: float, text: str, room: label_placement.Room, theme: Theme) -> None:
    """Writes a constraint at either end and on either side of its edge, where it covers least."""
    look: dict[str, Any] = {"size": 8.5, "color": theme.region, "weight": "bold", "zorder": 8, "parse_math": False}
    axis = axes.get_yaxis_transform() if along == "y" else axes.get_xaxis_transform()
    middle = (0.5, edge) if along == "y" else (edge, 0.5)
    words = axes.annotate(
        text, middle, (0, 0), axis, "offset points", ha="center", va="center", rotation=0 if along == "y" else 90, **look
    )
    box = words.get_window_extent()
    length, height = (box.width, box.height) if along == "y" else (box.height, box.width)
    room_along = axes.bbox.width if along == "y" else axes.bbox.height
    to_end, aside = (room_along - length) / 2 / room.scale - 6, height / 2 / room.scale + 3
    moves = [(end * to_end, side * aside) for end in (-1, 1) for side in (1, -1)]
    room.put(words, moves if along == "y" else [(side, end) for end, side in moves])


def _axis_names(axes: Axes, sweep: Sweep, theme: Theme) -> None:
    """Units on the axes, and the way to the better end of each."""
    names = [labels.axis(objective.metric) for objective in sweep.objectives[:2]]
    better = [objective.direction == "maximize" for objective in sweep.objectives[:2]]
    ways: list[str] = ["better →" if more else "← better" for more in better]
    if len(names) == 1:
        names.insert(0, "trial")
        ways.insert(0, "")
    # all from the corners of the axes, so that name and arrow share a line whatever the ticks are
    words: dict[str, Any] = {"xycoords": "axes fraction", "textcoords": "offset points", "annotation_clip": False}
    name = words | {"size": 10, "color": theme.ink, "parse_math": False}
    way = words | {"size": 10, "color": theme.front, "weight": "bold"}
    across = axes.annotate(names[0], (0, 0), (0, -30), ha="left", va="baseline", **name)
    axes.annotate(ways[0], (1, 0), (0, -30), ha="right", va="baseline", **way)
    up = axes.annotate(names[1], (0, 0), (-35, 0), ha="right", va="bottom", rotation=90, **name)
    axes.annotate(ways[1], (0, 1), (-35, 0), ha="right", va="top", rotation=90, **way)
    arrow = 60 * axes.figure.dpi / 72
    across.set_fontsize(10 * min(1.0, (axes.bbox.width - arrow) / across.get_window_extent().width))
    up.set_fontsize(10 * min(1.0, (axes.bbox.height - arrow) / up.get_window_extent().height))
    if len(sweep.objectives) > 2:
        note = f"front in {len(sweep.objectives)} objectives, the first two shown"
        axes.annotate(note, (1, 1), (0, 4), ha="right", size=8, color=theme.muted, **words)


def _legend(figure: Figure, axes: Axes, theme: Theme) -> None:
    handles, names = axes.get_legend_handles_labels()
    wanted = ["front", "best", "best so far", "dominated", "outside the constraints", "baseline"]
    # a kind of point that the sweep has none of needs no key
    present = {
        name: handle
        for handle, name in zip(handles, names, strict=True)
        if not hasattr(handle, "get_offsets") or len(handle.get_offsets())
    }
    order = [name for name in wanted if name in present]
    top = 1 - 0.68 / figure.get_figheight()
    figure.legend(
        [present[name] for name in order], order, loc="upper left", bbox_to_anchor=(0.014, top),
        bbox_transform=figure.transFigure, ncols=len(order), frameon=False, fontsize=9, labelcolor=theme.ink, handletextpad=0.3,
        columnspacing=1.6, borderaxespad=0,
    )  # fmt: skip
    note = figure.text(0.98, top - 0.05 / figure.get_figheight(), "whiskers: ± 1 standard error", size=8, color=theme.muted)
    note.set(ha="right", va="top")


def _number(axes: Axes, sweep: Sweep, listed: pd.DataFrame, room: label_placement.Room, theme: Theme) -> None:
    """Writes each listed point's trial number where it covers least; points in one place share a label."""
    at_place: dict[tuple[float, float], list[str]] = {}
    for place, number in zip(np.column_stack(coordinates(sweep, listed)).tolist(), listed["number"], strict=True):
        at_place.setdefault((place[0], place[1]), []).append(f"#{number}")
    words: dict[str, Any] = {"size": 9.5, "weight": "bold", "color": theme.ink, "zorder": 9, "ha": "center", "va": "center"}
    for place, numbers in at_place.items():
        text = " ".join(numbers) if len(numbers) <= 4 else f"{' '.join(numbers[:4])} …"
        label = axes.annotate(text, place, (0, 0), textcoords="offset points", **words)
        room.put(label, label_placement.around(label, room.scale))


def _table(figure: Figure, sweep: Sweep, listed: pd.DataFrame, theme: Theme) -> None:
    """The listed points below the axes: trial, settings, objectives and constrained metrics with their standard errors."""
    names = labels.setting_names(sweep.space)
    columns = [["trial", *(f"#{number}" for number in listed["number"])]]
    settings = [[names[path], *map(labels.setting, listed[path])] for path in sweep.space]
    for name in sweep.judged:
        pairs = zip(listed[name], listed[f"{name}_se"], strict=True)
        columns.append(
            [f"{labels.metric_name(name)} ({labels.unit(name).strip()})", *(labels.percent(name, *pair) for pair in pairs)]
        )
    note = len(sweep.front) > len(listed)
    tall = figure.get_figheight()
    columns, ends, size = _fit(figure, columns[:1], settings, columns[1:])
    levels = [(FOOT + ROW * (len(listed) + note - row + 0.5)) / tall for row in range(len(listed) + 1)]
    for column, end in zip(columns, ends, strict=True):
        for row, (text, level) in enumerate(zip(column, levels, strict=True)):
            weight = "bold" if row and column is columns[0] else "normal"
            colour = theme.ink if row else theme.muted
            figure.text(end, level, text, size=size, color=colour, weight=weight, ha="right", va="center", parse_math=False)
    rule = levels[0] - 0.5 * ROW / tall
    figure.add_artist(Line2D([0.022, 0.98], [rule, rule], color=theme.muted, linewidth=0.6, transform=figure.transFigure))
    if note:
        text = f"{len(listed)} of the front's {len(sweep.front)} points are named; all are in front.csv"
        figure.text(0.022, (FOOT + 0.5 * ROW) / tall, text, size=8.5, color=theme.muted, va="center")


def _fit(
    figure: Figure, first: list[list[str]], settings: list[list[str]], last: list[list[str]]
) -> tuple[list[list[str]], list[float], float]:
    """Columns that fit the figure's width, the right end of each (in figure widths) and the size of the letters.

    Letters shrink first; what is still too wide loses settings from the end, and long texts their own end.
    """
    room = 0.958
    for size in (8.5, 8.0, 7.5, 7.0, 6.5, 6.0):
        columns = [*first, *settings, *last]
        widths = [_width(figure, column, size) for column in columns]
        if sum(widths) + 0.012 * len(widths) <= room:
            break
    else:
        left = [*settings]
        while left and sum(widths) + 0.012 * len(widths) > room:
            left.pop()
            columns = [*first, *left, ["…"] * len(first[0]), *last]
            widths = [_width(figure, column, size) for column in columns]
    # what is left over goes between the columns, but not so much that a row falls apart
    between = min((room - sum(widths)) / max(len(widths) - 1, 1), 0.1)
    return columns, (0.022 + np.cumsum(widths) + between * np.arange(len(widths))).tolist(), size


def _width(figure: Figure, column: list[str], size: float) -> float:
    """Of the widest text, in figure widths."""
    text = figure.text(0, 0, "", size=size, weight="bold", parse_math=False)
    widths = []
    for words in column:
        text.set_text(words)
        widths.append(text.get_window_extent().width)
    text.remove()
    return max(widths) / figure.bbox.width
