"""The plane of an inline SVG: numbers to places, ticks, grid. Colours are the page's own, by class."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from markupsafe import Markup
from matplotlib.ticker import MaxNLocator


@dataclass(frozen=True)
class Plane:
    """A drawing of `width` by `height`, with margins (left, right, top, bottom), that shows x and y, (low, high) each."""

    width: float
    height: float
    margins: tuple[float, float, float, float]
    x: tuple[float, float]
    y: tuple[float, float]

    @property
    def box(self) -> tuple[float, float, float, float]:
        """left, right, top, bottom of the axes."""
        left, right, top, bottom = self.margins
        return left, self.width - right, top, self.height - bottom

    @property
    def scales(self) -> tuple[float, float]:
        """The drawn length of one unit of x and of y."""
        left, right, top, bottom = self.box
        return (right - left) / ((self.x[1] - self.x[0]) or 1.0), (bottom - top) / ((self.y[1] - self.y[0]) or 1.0)

    def at(self, x: np.ndarray, y: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Places of points (n,) each; a larger y is higher up."""
        left, _, _, bottom = self.box
        across, up = self.scales
        return left + (np.asarray(x, dtype=float) - self.x[0]) * across, bottom - (np.asarray(y, dtype=float) - self.y[0]) * up

    def grid(self, across: Sequence[float], up: Sequence[float], name: str = "") -> Markup:
        """Lines and numbers at the ticks; `name` stands below the right end."""
        left, right, top, bottom = self.box
        parts = []
        for tick, place in zip(up, self.at(np.zeros(len(up)), np.array(up))[1], strict=True):
            text = f'<text x="{left - 8:g}" y="{place + 4:.1f}" class="e">{number(tick)}</text>'
            parts.append(f'<path d="M{left:g} {place:.1f}H{right:g}"/>{text}')
        for tick, place in zip(across, self.at(np.array(across), np.zeros(len(across)))[0], strict=True):
            text = f'<text x="{place:.1f}" y="{bottom + 17:g}" class="m">{number(tick)}</text>'
            parts.append(f'<path d="M{place:.1f} {top:g}V{bottom:g}"/>{text}')
        named = Markup('<text x="{}" y="{}" class="e">{}</text>').format(right, bottom + 29, name) if name else ""
        return Markup('<g class="grid">{}{}</g>').format(Markup("".join(parts)), named)


def ticks(low: float, high: float, most: int = 7) -> list[float]:
    found = MaxNLocator(most, steps=[1, 2, 2.5, 5, 10]).tick_values(low, high)
    slack = 1e-9 * (high - low)
    return [float(tick) + 0.0 for tick in found if low - slack <= tick <= high + slack]


def number(tick: float) -> str:
    return f"{tick:g}".replace("-", "\N{MINUS SIGN}")
