"""The look of every figure, light and dark, as matplotlib's rcParams; figures as files.

Colours are Okabe and Ito's, which the colour-blind can distinguish; markers differ as well.
"""

import io
import math
import re
from collections.abc import Callable
from dataclasses import dataclass
from functools import wraps
from textwrap import fill
from typing import Any, ParamSpec, TypeVar

from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.layout_engine import ConstrainedLayoutEngine

WIDTH = 9.0  # inches of a figure; at 100 of its 200 dots an inch it is 900 px wide
MARKERS = "os^DvPX"

Given = ParamSpec("Given")
Drawn = TypeVar("Drawn")


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
    """Colours of bases, objectives or lines side by side, in this order."""

    @property
    def rc(self) -> Any:
        return {
            "text.parse_math": False,  # a "$" in a name is a "$"
            "text.color": self.ink,
            "axes.facecolor": self.paper,
            "axes.axisbelow": True,
            "axes.edgecolor": self.muted,
            "axes.spines.top": False,
            "axes.spines.right": False,
            "axes.labelcolor": self.ink,
            "axes.labelsize": 10,
            "axes.titlelocation": "left",
            "axes.titlesize": 9.5,
            "legend.frameon": False,
            "legend.fontsize": 9,
            "legend.handletextpad": 0.4,
            "legend.columnspacing": 1.4,
        }


LIGHT = Theme(
    *("#ffffff", "#1c2127", "#5f6b76", "#e6e9ec", "#0072B2", "#56B4E9", "#D55E00", "#009E73"),
    ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#1c2127"),
)
DARK = Theme(
    *("#171a1f", "#e8eaed", "#9aa4af", "#2b3038", "#56B4E9", "#3d7ea6", "#E69F00", "#2fbf94"),
    ("#56B4E9", "#E69F00", "#2fbf94", "#CC79A7", "#F0E442", "#D55E00", "#e8eaed"),
)


def themed(draw: Callable[Given, Drawn]) -> Callable[Given, Drawn]:
    """Runs a function that draws under the rcParams of the theme among its arguments, LIGHT by default."""

    @wraps(draw)
    def under(*given: Given.args, **named: Given.kwargs) -> Drawn:
        theme = next((one for one in (*given, *named.values()) if isinstance(one, Theme)), LIGHT)
        with rc_context(theme.rc):
            return draw(*given, **named)

    return under


def canvas(theme: Theme, size: tuple[float, float], panels: int = 1, columns: int = 1) -> tuple[Figure, list[Axes]]:
    """A figure of `size` inches with its panels row by row; 100 of its 200 dots an inch are a pixel of a page."""
    engine = ConstrainedLayoutEngine(w_pad=0.09, h_pad=0.09)
    figure = Figure(figsize=size, dpi=200, facecolor=theme.paper, layout=engine)
    FigureCanvasAgg(figure)
    rows = math.ceil(panels / columns)
    found = [figure.add_subplot(rows, columns, place + 1) for place in range(panels)]
    for axes in found:
        style(axes, theme)
    return figure, found


def style(axes: Axes, theme: Theme) -> None:
    # not by rcParams: matplotlib makes its ticks when it draws, after `themed` has ended
    axes.grid(color=theme.grid, linewidth=0.8)
    axes.tick_params(colors=theme.muted, labelsize=9, length=0, pad=5)


def legend_above(axes: Axes) -> None:
    """A legend above the axes, which covers nothing."""
    handles, names = axes.get_legend_handles_labels()
    if names:
        wide = min(len(names), 3)
        axes.legend(handles, names, loc="lower left", bbox_to_anchor=(0, 1.0), ncols=wide, borderaxespad=0.2)


def png(figure: Figure) -> bytes:
    """The figure as a PNG without metadata of the run: equal figures are equal bytes."""
    return _saved(figure, "png", {"Software": None})


@themed
def svg(figure: Figure, name: str = "slimsweep", fonts: str = "path") -> bytes:
    """The figure as an SVG; equal figures are equal bytes. `name` is hashed into its ids.

    Texts are outlines, so that no reader needs our fonts; with `fonts` "none" they are texts.
    """
    with rc_context({"svg.hashsalt": name, "svg.fonttype": fonts}):
        return _saved(figure, "svg", {"Date": None, "Creator": None})


def _saved(figure: Figure, kind: str, metadata: dict[str, Any]) -> bytes:
    buffer = io.BytesIO()
    figure.savefig(buffer, format=kind, facecolor=figure.get_facecolor(), metadata=metadata)
    return buffer.getvalue()


def short(text: str, length: int) -> str:
    return text if len(text) <= length else text[: length - 1] + "…"


def broken(text: str, width: int) -> str:
    """The text in lines of at most `width`; a unit in brackets stays whole."""
    whole = re.sub(r"\([^)]*\)", lambda unit: unit[0].replace(" ", "\N{NO-BREAK SPACE}"), text)
    return fill(whole, width, break_long_words=False, break_on_hyphens=False).replace("\N{NO-BREAK SPACE}", " ")
