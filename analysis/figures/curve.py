"""A time series as inline SVG."""

from collections.abc import Sequence

import numpy as np
from markupsafe import Markup
from matplotlib.ticker import MaxNLocator

from analysis.figures.inline import inline
from analysis.figures.theme import LIGHT, canvas, themed

THINNED = 240  # at most this many values are drawn: the first, the last, and the others evenly


@themed
def curve(course: Sequence[tuple[int, float]], name: str, place: str) -> Markup:
    """`course` holds (step, value), `name` its unit; `place` is unique on the page. Empty with fewer than two finite values."""
    points = np.array([pair for pair in course if np.isfinite(pair[1])], dtype=float).reshape(-1, 2)
    if len(points) < 2:
        return Markup("")
    points = points[np.unique(np.linspace(0, len(points) - 1, THINNED).round().astype(int))]
    figure, (axes,) = canvas(LIGHT, (3.6, 1.9))
    axes.plot(*points.T, color=LIGHT.front)
    axes.plot(*points[-1], "o", color=LIGHT.front, markersize=4)
    axes.update_datalim([(points[0, 0], 0.0)])
    axes.autoscale_view()
    axes.set_xlabel("step")
    for axis in (axes.xaxis, axes.yaxis):
        axis.set_major_locator(MaxNLocator(4))
    return inline(figure, f"curve {place}", f"{name} over steps, last {points[-1, 1]:.4g}")
