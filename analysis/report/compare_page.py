"""A comparison of two sweeps as files: compare.json, fronts.png, fronts.svg and compare.html, a page that needs no network."""

import json
import math
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

from matplotlib.figure import Figure

from analysis.explore.compare import Comparison, as_dict, front_rows, names, verdict
from analysis.export.templates import HTML
from analysis.figures.inline import inline
from analysis.figures.scene import scene
from analysis.figures.theme import LIGHT, WIDTH, canvas, legend_above, png, svg, themed
from analysis.formatting import labels, numbers
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
    words = verdict(comparison)
    picture = inline(fronts_figure(comparison), "fronts", f"The fronts of both sweeps over each other. {words}")
    return HTML.get_template("compare.html.j2").render(
        comparison=comparison, verdict=words, inf=math.inf, picture=picture, table=_table(comparison)
    )


def _table(comparison: Comparison) -> Table:
    """Both fronts; objectives ± one standard error."""
    metrics = [one.metric for one in comparison.objectives]
    heads = ["sweep", "trial", *map(labels.column, metrics), "dominated by the other", "key"]
    rows = [
        [
            name,
            f"#{row['number']}",
            *(numbers.estimate(row, one) for one in metrics),
            "yes" if beaten else "no",
            row["key"],
        ]
        for place, name in enumerate(names(comparison))
        for row, beaten in front_rows(comparison, place)
    ]
    return Table.of([Column(head) for head in heads], rows)


@themed
def fronts_figure(comparison: Comparison) -> Figure:
    """Both fronts in the first two objectives (one: by trial number), ± one standard error, in the labels' units."""
    figure, (axes,) = canvas(LIGHT, (WIDTH, 5.4))
    for sweep, letter, marker, colour in zip((comparison.a, comparison.b), "AB", "o^", LIGHT.series, strict=False):
        front = scene(replace(sweep, objectives=comparison.objectives), sweep.front)
        if not len(front.rows):
            continue
        if not front.single:
            axes.plot(*front.edge.T, color=colour, linewidth=1.4, alpha=0.7, zorder=2)
        (x, y), (x_error, y_error) = front.places.T, front.errors.T
        look: dict[str, Any] = {"fmt": "none", "ecolor": colour, "elinewidth": 1, "alpha": 0.45, "zorder": 3}
        axes.errorbar(x, y, y_error, None if front.single else x_error, **look)
        look = {"s": 46, "edgecolors": LIGHT.paper, "linewidths": 1, "zorder": 4}
        label = f"{letter}: {sweep.name[:40]}, {len(front.rows)} on the front"
        axes.scatter(x, y, marker=marker, color=colour, label=label, **look)
        axes.set(xlabel=front.names[0], ylabel=front.names[1])
    if axes.collections:
        legend_above(axes)
    else:
        axes.set_axis_off()
        axes.text(0.5, 0.5, "Neither front has a point", ha="center", va="center", size=13, color=LIGHT.muted)
    return figure
