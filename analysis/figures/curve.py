"""A time series as a small inline SVG."""

from collections.abc import Sequence

import numpy as np
from markupsafe import Markup

from analysis.figures.svg import Plane, ticks

THINNED = 240  # at most this many values are drawn: the first, the last, and the others evenly


def curve(course: Sequence[tuple[int, float]], name: str) -> Markup:
    """`course` holds (step, value); `name` has its unit. Empty with fewer than two finite values."""
    points = np.array([pair for pair in course if np.isfinite(pair[1])], dtype=float).reshape(-1, 2)
    if len(points) < 2:
        return Markup("")
    points = points[np.unique(np.linspace(0, len(points) - 1, THINNED).round().astype(int))]
    x, y = points.T
    low, high = min(float(y.min()), 0.0), float(y.max())
    plane = Plane(340, 170, (44, 12, 12, 30), (float(x.min()), float(x.max())), (low, high if high > low else low + 1.0))
    across, up = plane.at(x, y)
    path = "M" + "L".join(f"{a:.1f} {b:.1f}" for a, b in zip(across, up, strict=True))
    last = Markup('<circle cx="{:.1f}" cy="{:.1f}" r="3"/>').format(across[-1], up[-1])
    return Markup(
        '<svg class="curve" viewBox="0 0 340 170" role="img" aria-label="{} over steps, last {:.4g}">{}<path d="{}"/>{}</svg>'
    ).format(name, y[-1], plane.grid(ticks(*plane.x, 4), ticks(*plane.y, 4), "step"), path, last)
