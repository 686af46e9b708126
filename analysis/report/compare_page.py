"""A comparison of two sweeps as files: compare.json, fronts.png, fronts.svg and compare.html, a page that needs no network."""

import base64
import io
import json
import math
from functools import partial
from pathlib import Path

import matplotlib
import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from analysis.explore.compare import Comparison, as_dict, heads, rows, verdict
from analysis.export.files import TEMPLATES
from analysis.figures import label_placement
from analysis.figures.front import DARK, LIGHT, Theme, png
from analysis.formatting import labels
from analysis.results.sweep import Sweep
from trials.ledger.storage import replace_file

# Okabe-Ito's blue and vermilion (orange in the dark): told apart by the colour-blind, and by their markers by everyone
_COLOURS = {LIGHT: ("#0072B2", "#D55E00"), DARK: ("#56B4E9", "#E69F00")}
_MARKERS = ("o", "^")


def write(comparison: Comparison, folder: Path) -> list[Path]:
    """Writes all four, and returns their paths."""
    text = json.dumps(as_dict(comparison), indent=1, allow_nan=False) + "\n"
    picture = fronts_figure(comparison)
    files = {
        "compare.json": text.encode(),
        "fronts.png": png(picture),
        "fronts.svg": svg(picture),
        "compare.html": page(comparison).encode(),
    }
    for name, content in files.items():
        replace_file(folder / name, partial(Path.write_bytes, data=content))
    return [folder / name for name in files]


def page(comparison: Comparison) -> str:
    """compare.html as text."""
    pictures = {name: _inline(png(fronts_figure(comparison, theme))) for name, theme in (("light", LIGHT), ("dark", DARK))}
    cells = [{"kind": "", "cells": [(text, text, "") for text in row]} for row in rows(comparison)]
    table = {"heads": [(head, "", False) for head in heads(comparison)], "rows": cells}
    return TEMPLATES.get_template("compare.html.j2").render(
        comparison=comparison, verdict=verdict(comparison), inf=math.inf, pictures=pictures, table=table
    )


def fronts_figure(comparison: Comparison, theme: Theme = LIGHT) -> Figure:
    """Both fronts in the first two objectives (one: by trial number), ± one standard error, in the labels' units."""
    figure = Figure(figsize=(9.0, 5.4), dpi=200, facecolor=theme.paper)
    FigureCanvasAgg(figure)
    axes = figure.add_axes((0.085, 0.12, 0.895, 0.76))
    axes.set_facecolor(theme.paper)
    axes.grid(color=theme.grid, linewidth=0.8)
    axes.set_axisbelow(True)
    for side, spine in axes.spines.items():
        spine.set_visible(side in ("left", "bottom"))
        spine.set_color(theme.muted)
    axes.tick_params(colors=theme.muted, labelsize=9, length=0, pad=5)
    pair = (comparison.a, comparison.b)
    for sweep, letter, marker, colour in zip(pair, "AB", _MARKERS, _COLOURS[theme], strict=True):
        if not len(sweep.front):
            continue
        x, y, x_error, y_error = _coordinates(sweep, comparison)
        if len(comparison.objectives) == 2:
            order = np.lexsort((y, x))
            largest = comparison.objectives[0].direction == "maximize"
            line = label_placement.stairs(x[order], y[order], "pre" if largest else "post")
            axes.plot(line[:, 0], line[:, 1], color=colour, linewidth=1.4, alpha=0.7, zorder=2)
        axes.errorbar(x, y, y_error, x_error, fmt="none", ecolor=colour, elinewidth=1, alpha=0.45, zorder=3)
        label = f"{letter}: {sweep.name[:40]}, {len(x)} on the front"
        axes.scatter(x, y, s=46, marker=marker, color=colour, edgecolors=theme.paper, linewidths=1, zorder=4, label=label)
    metrics = [one.metric for one in comparison.objectives[:2]]
    names = [labels.axis(metric) for metric in metrics] if len(metrics) == 2 else ["trial", labels.axis(metrics[0])]
    axes.set_xlabel(names[0], color=theme.muted, size=9.5, parse_math=False)
    axes.set_ylabel(names[1], color=theme.muted, size=9.5, parse_math=False)
    if axes.collections:
        legend = axes.legend(loc="lower left", bbox_to_anchor=(0, 1.0), ncols=2, frameon=False, fontsize=9.5)
        for text in legend.get_texts():
            text.set(color=theme.ink, parse_math=False)
    else:
        axes.set_axis_off()
        axes.text(0.5, 0.5, "Neither front has a point", ha="center", va="center", size=13, color=theme.muted)
    return figure


def _coordinates(sweep: Sweep, comparison: Comparison) -> tuple[np.ndarray, np.ndarray, np.ndarray | None, np.ndarray]:
    """x, y and their standard errors, (n,) each; an unknown error is 0."""
    values, errors = [], []
    for objective in comparison.objectives[:2]:
        factor = labels.scale(objective.metric)
        values.append(factor * sweep.front[objective.metric].to_numpy(dtype=float))
        errors.append(factor * np.nan_to_num(sweep.front[f"{objective.metric}_se"].to_numpy(dtype=float)))
    if len(values) == 1:
        return sweep.front["number"].to_numpy(dtype=float), values[0], None, errors[0]
    return values[0], values[1], errors[0], errors[1]


def svg(figure: Figure) -> bytes:
    """Equal figures are equal bytes: no date, and no random names."""
    buffer = io.BytesIO()
    with matplotlib.rc_context({"svg.hashsalt": "slimsweep"}):
        figure.savefig(buffer, format="svg", facecolor=figure.get_facecolor(), metadata={"Date": None, "Creator": None})
    return buffer.getvalue()


def _inline(picture: bytes) -> str:
    return "data:image/png;base64," + base64.b64encode(picture).decode()
