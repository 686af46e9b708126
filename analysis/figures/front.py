"""The front as a picture: all finished trials, their errors, the front, baselines and constraints; a table of the front."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.text import Annotation
from matplotlib.ticker import MaxNLocator

from analysis.export.trial_table import front_table
from analysis.figures.label_placement import Room
from analysis.figures.scene import KINDS, Bound, Scene, along, evenly, named, padded, scene
from analysis.figures.theme import LIGHT, Theme, short, style, themed
from analysis.formatting import labels
from analysis.formatting.table import Column
from analysis.results.sweep import Sweep

WIDTH, HEIGHT = 9.0, 5.6  # inches; at 100 of its 200 dots an inch the picture is 900 px wide
EMPTY = 2.8  # the height of a figure without points
ABOVE, UNDER = 1.08, 0.62  # inches of title and legend, and of the lower axis' ticks and name
ROW, FOOT = 0.24, 0.14  # inches of a table row, and of the margin below the table
LISTED = 10  # front points that are labelled and listed: more would not be read


@themed
def front_figure(sweep: Sweep, theme: Theme = LIGHT, table: bool = True) -> Figure:
    """All finished trials in the first two objectives (or one, by trial number), the front, the baseline and the constraints.

    Axes are in percent. Whiskers are one standard error to each side. With `table`, the front's points are listed below.
    """
    shown = scene(sweep)
    listed = evenly(sweep.front, LISTED)
    rows = len(listed) + 1 + (len(sweep.front) > len(listed)) if table and len(listed) and len(shown.rows) else 0
    below = ROW * rows + FOOT if rows else 0.0
    height = HEIGHT if len(shown.rows) else EMPTY
    figure = Figure(figsize=(WIDTH, height + below), dpi=200, facecolor=theme.paper)
    FigureCanvasAgg(figure)
    tall = figure.get_figheight()
    axes = figure.add_axes((0.085, (below + UNDER) / tall, 0.895, (height - UNDER - ABOVE) / tall))
    style(axes, theme)
    _title(figure, sweep, theme)
    if not len(shown.rows):
        axes.set_axis_off()
        look: dict[str, Any] = {"ha": "center", "va": "center", "size": 13, "linespacing": 1.6}
        axes.text(0.5, 0.5, _nothing(sweep), transform=axes.transAxes, color=theme.muted, **look)
        return figure
    _points(axes, shown, theme)
    x_range, y_range = shown.ranges(1.0)
    errors = np.concatenate([shown.y - np.nan_to_num(shown.y_error), shown.y + np.nan_to_num(shown.y_error), y_range])
    across = np.concatenate([shown.x - np.nan_to_num(shown.x_error), shown.x + np.nan_to_num(shown.x_error), x_range])
    axes.set(xlim=padded((across.min(), across.max()), 0.07), ylim=padded((errors.min(), errors.max()), 0.07))
    if shown.single:
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    room = _constraints(axes, shown, theme)
    _axis_names(axes, shown, theme)
    _legend(figure, axes, theme)
    _numbers(axes, scene(sweep, listed), room)
    if rows:
        _table(figure, sweep, listed, theme)
    return figure


def _title(figure: Figure, sweep: Sweep, theme: Theme) -> None:
    states = sweep.states
    parts = [f"{states['complete']} finished trials"]
    if sweep.constraints and states["complete"]:
        parts.append(f"{int(sweep.trials['feasible'].sum())} within the constraints")
    if sweep.trials["on_front"].any():
        parts.append(f"{int(sweep.trials['on_front'].sum())} on the front")
    parts += [f"{count} {state}" for state, count in states.items() if count and state != "complete"]
    tall = figure.get_figheight()
    figure.text(0.022, 1 - 0.2 / tall, short(sweep.name, 60), size=13, weight="bold", va="top")
    figure.text(0.022, 1 - 0.46 / tall, "  ·  ".join(parts), size=9, color=theme.muted, va="top")


def _nothing(sweep: Sweep) -> str:
    """The reason for an empty figure."""
    if len(sweep.complete):
        return "Finished trials have no value for the objectives\n(is their baseline there?)"
    return "All trials failed" if 0 < len(sweep.trials) == sweep.states["failed"] else "No trial has finished yet"


def scatter_kinds(axes: Axes, shown: tuple[np.ndarray, np.ndarray, np.ndarray], theme: Theme, front: str = "front") -> None:
    """Points (x, y, one of KINDS) in the colour and the marker of their kind; `front` is the front's name in the legend."""
    x, y, kinds = shown
    looks: dict[str, tuple[str, dict[str, Any]]] = {
        "front": (front, {"s": 72, "marker": "o", "color": theme.front, "edgecolors": theme.paper, "zorder": 6}),
        "dominated": ("dominated", {"s": 38, "marker": "s", "color": theme.feasible, "edgecolors": theme.paper, "zorder": 4}),
        "outside": ("outside the constraints", {"s": 38, "marker": "x", "color": theme.infeasible, "zorder": 3}),
    }
    for kind in KINDS:
        mask = kinds == kind
        name, look = looks[kind]
        if mask.any():
            wide = 1.6 if kind == "outside" else 0.9
            axes.scatter(x[mask], y[mask], linewidths=wide, label=name, rasterized=mask.sum() > 500, **look)


def _points(axes: Axes, shown: Scene, theme: Theme) -> None:
    scatter_kinds(axes, (shown.x, shown.y, shown.kinds), theme, "best" if shown.single else "front")
    strengths = {"front": (theme.front, 0.75), "dominated": (theme.feasible, 0.5), "outside": (theme.infeasible, 0.3)}
    for kind, (colour, strength) in strengths.items():
        some = shown.of(shown.kinds == kind)
        look: dict[str, Any] = {"fmt": "none", "ecolor": colour, "elinewidth": 0.9, "alpha": strength, "zorder": 2}
        axes.errorbar(some.x, some.y, some.y_error, None if shown.single else some.x_error, **look)
    name = "best so far" if shown.single else None
    axes.plot(*shown.edge.T, color=theme.front, linewidth=1.5, alpha=0.8, zorder=2.5, label=name)
    places = shown.baselines
    if not shown.single and len(places):
        look = {"s": 64, "marker": "D", "color": theme.ink, "edgecolors": theme.paper, "linewidths": 1, "zorder": 7}
        axes.scatter(*places.T, label="baseline", **look)
    for n, (_, level) in enumerate(places if shown.single else ()):
        axes.axhline(level, color=theme.ink, linewidth=1.2, linestyle=(0, (1, 2)), zorder=2, label=None if n else "baseline")


def _constraints(axes: Axes, shown: Scene, theme: Theme) -> Room:
    """Shades the area that keeps all constraints on the axes and names their edges; returns the room for other labels."""
    steps = np.linspace(-1, 1, 11)[:, None]
    x_places, y_places = shown.x + steps * np.nan_to_num(shown.x_error), shown.y + steps * np.nan_to_num(shown.y_error)
    across = np.stack(np.broadcast_arrays(x_places, shown.y), axis=-1).reshape(-1, 2)
    up = np.stack(np.broadcast_arrays(shown.x, y_places), axis=-1).reshape(-1, 2)
    taken = [across, up, along(shown.edge), *([] if shown.single else [shown.baselines])]
    x, y = axes.get_xlim(), axes.get_ylim()
    region = shown.region(x, y)
    if region is not None:
        left, right, bottom, top = region
        axes.fill_between([left, right], bottom, top, color=theme.region, alpha=0.09, linewidth=0, zorder=0)
    for one in shown.bounds:
        line = axes.axhline if one.axis == "y" else axes.axvline
        line(one.edge, color=theme.region, linewidth=1.2, linestyle=(0, (5, 3)), zorder=1)
        ends = [(end, one.edge) for end in x] if one.axis == "y" else [(one.edge, end) for end in y]
        taken.append(along(np.array(ends)))
    frame = axes.bbox
    scale = axes.figure.dpi / 72
    room = Room((frame.x0, frame.x1, frame.y0, frame.y1), axes.transData.transform(np.concatenate(taken)), scale)
    for one in shown.bounds:
        _name_edge(axes, one, room, theme)
    return room


def _name_edge(axes: Axes, bound: Bound, room: Room, theme: Theme) -> None:
    """Names a constraint at either end and on either side of its edge."""
    level = bound.axis == "y"
    look: dict[str, Any] = {"size": 8.5, "color": theme.region, "weight": "bold", "zorder": 8, "rotation": 0 if level else 90}
    at = ((0.5, bound.edge), axes.get_yaxis_transform()) if level else ((bound.edge, 0.5), axes.get_xaxis_transform())
    words = _label(axes, labels.constraint_sign(bound.constraint), at, look)
    box, frame = words.get_window_extent(), axes.bbox
    to_end = ((frame.width - box.width) if level else (frame.height - box.height)) / 2 - 6 * room.scale
    aside = (box.height if level else box.width) / 2 + 3 * room.scale
    moves = [(end * to_end, side * aside) for end in (-1, 1) for side in (1, -1)]
    _put(words, room, moves if level else [(side, end) for end, side in moves])


def _label(axes: Axes, text: str, at: tuple[tuple[float, float], Any], look: dict[str, Any]) -> Annotation:
    return axes.annotate(text, at[0], (0, 0), at[1], "offset points", ha="center", va="center", **look)


def _put(label: Annotation, room: Room, moves: Sequence[tuple[float, float]] = ()) -> None:
    """Moves a centred label, which still covers its point, to the best of its places."""
    box = label.get_window_extent()
    start = ((box.x0 + box.x1) / 2, (box.y0 + box.y1) / 2)
    x, y = room.put(start, (box.width, box.height), moves)
    label.set_position(((x - start[0]) / room.scale, (y - start[1]) / room.scale))


def _axis_names(axes: Axes, shown: Scene, theme: Theme) -> None:
    """Names of the axes with their units, and an arrow to the better end of each."""
    (x, x_way), (y, y_way) = shown.names
    # positions relative to the corners of the axes: name and arrow share a line for any ticks
    words: dict[str, Any] = {"xycoords": "axes fraction", "textcoords": "offset points", "annotation_clip": False}
    way = words | {"size": 10, "color": theme.front, "weight": "bold"}
    across = axes.annotate(x, (0, 0), (0, -30), ha="left", va="baseline", size=10, **words)
    axes.annotate(x_way, (1, 0), (0, -30), ha="right", va="baseline", **way)
    up = axes.annotate(y, (0, 0), (-35, 0), ha="right", va="bottom", rotation=90, size=10, **words)
    axes.annotate(y_way, (0, 1), (-35, 0), ha="right", va="top", rotation=90, **way)
    arrow = 60 * axes.figure.dpi / 72
    across.set_fontsize(10 * min(1.0, (axes.bbox.width - arrow) / across.get_window_extent().width))
    up.set_fontsize(10 * min(1.0, (axes.bbox.height - arrow) / up.get_window_extent().height))
    if (count := len(shown.sweep.objectives)) > 2:
        note = f"front in {count} objectives, the first two shown"
        axes.annotate(note, (1, 1), (0, 4), ha="right", size=8, color=theme.muted, **words)


def _legend(figure: Figure, axes: Axes, theme: Theme) -> None:
    tall = figure.get_figheight()
    top = 1 - 0.68 / tall
    handles, names = axes.get_legend_handles_labels()
    look: dict[str, Any] = {"ncols": len(names), "handletextpad": 0.3, "columnspacing": 1.6, "borderaxespad": 0}
    figure.legend(
        handles, names, loc="upper left", bbox_to_anchor=(0.014, top), bbox_transform=figure.transFigure, **look
    )  # fmt: skip
    note = "whiskers: ± 1 standard error"
    figure.text(0.98, top - 0.05 / tall, note, size=8, color=theme.muted, ha="right", va="top")


def _numbers(axes: Axes, listed: Scene, room: Room) -> None:
    for at, text in named(np.column_stack([listed.x, listed.y]), listed.rows["number"]).items():
        _put(_label(axes, text, (at, "data"), {"size": 9.5, "weight": "bold", "zorder": 9}), room)


def _table(figure: Figure, sweep: Sweep, listed: pd.DataFrame, theme: Theme) -> None:
    """The listed points below the axes: trial, settings, objectives and constrained metrics with their standard errors."""
    columns, ends, size = _fit(list(front_table(sweep, listed, brief=True).columns[:-1]), len(sweep.space))
    tall, note = figure.get_figheight(), len(sweep.front) > len(listed)
    levels = [(FOOT + ROW * (len(listed) + note - row + 0.5)) / tall for row in range(len(listed) + 1)]
    for column, end in zip(columns, ends, strict=True):
        look: dict[str, Any] = {"size": size, "ha": "right", "va": "center"}
        figure.text(end, levels[0], column.name, color=theme.muted, **look)
        for text, level in zip(column.cells, levels[1:], strict=True):
            figure.text(end, level, text, weight="bold" if column.kind == "number" else "normal", **look)
    rule = levels[0] - 0.5 * ROW / tall
    figure.add_artist(Line2D([0.022, 0.98], [rule, rule], color=theme.muted, linewidth=0.6, transform=figure.transFigure))
    if note:
        text = f"{len(listed)} of the front's {len(sweep.front)} points are named; all are in front.csv"
        figure.text(0.022, (FOOT + 0.5 * ROW) / tall, text, size=8.5, color=theme.muted, va="center")


def _fit(columns: list[Column], settings: int) -> tuple[list[Column], list[float], float]:
    """Columns that fit the figure's width, the right end of each (in figure widths), and the font size.

    Letters shrink first; then settings, the columns after the first, are left out from the end.
    """
    room = 0.958
    for size, kept in [*((size, settings) for size in (8.5, 7.5, 6.5)), *((6.0, kept) for kept in range(settings, -1, -1))]:
        left_out = [Column("…", cells=["…"] * len(columns[0].cells))] if kept < settings else []
        shown = [*columns[: 1 + kept], *left_out, *columns[1 + settings :]]
        letters = [max(len(str(text)) for text in (one.name, *one.cells)) for one in shown]
        widths = [0.66 * size / 72 / WIDTH * count for count in letters]  # of bold letters, with room to spare
        if sum(widths) + 0.012 * len(widths) <= room:
            break
    # the remaining room goes between the columns, up to a limit beyond which a row falls apart
    between = min((room - sum(widths)) / max(len(widths) - 1, 1), 0.1)
    return shown, (0.022 + np.cumsum(widths) + between * np.arange(len(widths))).tolist(), size
