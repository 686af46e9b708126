"""A comparison of two sweeps as files: compare.json, fronts.png, fronts.svg and compare.html, a page that needs no network."""

import json
import math
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

from matplotlib.figure import Figure

from analysis.explore.compare import Comparison, as_dict, heads, rows, verdict
from analysis.export.templates import HTML
from analysis.figures.scene import scene
from analysis.figures.theme import DARK, LIGHT, Theme, canvas, png, svg, themed
from analysis.formatting.table import Column, Table
from trials.ledger.storage import replace_file


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
    pictures = {name: png(fronts_figure(comparison, theme)) for name, theme in (("light", LIGHT), ("dark", DARK))}
    table = Table.of([Column(head) for head in heads(comparison)], rows(comparison))
    return HTML.get_template("compare.html.j2").render(
        comparison=comparison, verdict=verdict(comparison), inf=math.inf, pictures=pictures, table=table
    )


@themed
def fronts_figure(comparison: Comparison, theme: Theme = LIGHT) -> Figure:
    """Both fronts in the first two objectives (one: by trial number), ± one standard error, in the labels' units."""
    figure, (axes,) = canvas(theme, (9.0, 5.4))
    for sweep, letter, marker, colour in zip((comparison.a, comparison.b), "AB", "o^", theme.series, strict=False):
        front = scene(replace(sweep, objectives=comparison.objectives), sweep.front)
        if not len(front.rows):
            continue
        if not front.single:
            axes.plot(*front.edge.T, color=colour, linewidth=1.4, alpha=0.7, zorder=2)
        errors = front.y_error, None if front.single else front.x_error
        axes.errorbar(front.x, front.y, *errors, fmt="none", ecolor=colour, elinewidth=1, alpha=0.45, zorder=3)
        look: dict[str, Any] = {"s": 46, "edgecolors": theme.paper, "linewidths": 1, "zorder": 4}
        label = f"{letter}: {sweep.name[:40]}, {len(front.rows)} on the front"
        axes.scatter(front.x, front.y, marker=marker, color=colour, label=label, **look)
        (x, _), (y, _) = front.names
        axes.set(xlabel=x, ylabel=y)
    if axes.collections:
        axes.legend(loc="lower left", bbox_to_anchor=(0, 1.0), ncols=2)
    else:
        axes.set_axis_off()
        axes.text(0.5, 0.5, "Neither front has a point", ha="center", va="center", size=13, color=theme.muted)
    return figure
