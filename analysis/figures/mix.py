"""Figure of the law of the mix: each metric that decides over the share of a source."""

import pandas as pd
from matplotlib.figure import Figure

from analysis.explore.mix_law import laws
from analysis.figures.theme import LIGHT, WIDTH, broken, canvas, legend_above, themed
from analysis.formatting import labels
from analysis.results.sweep import Sweep

PANELS = 6  # laws that are drawn
DOTS = 2000  # trainings that are drawn one by one; more would merge into a blot


@themed
def answered(sweep: Sweep) -> Figure | None:
    """The curve of each law with its band, the trainings, and the bound."""
    found = [one for one in laws(sweep) if one.response is not None][:PANELS]
    if not found:
        return None
    columns = min(len(found), 3)
    figure, panels = canvas(LIGHT, (WIDTH, 0.6 + 2.7 * -(-len(found) // columns)), len(found), columns)
    for place, (one, axes) in enumerate(zip(found, panels, strict=True)):
        factor, curve, colour = labels.scale(one.metric), one.response, LIGHT.series[place % len(LIGHT.series)]
        assert curve is not None
        dots = one.values.iloc[:DOTS]
        axes.scatter(dots["share"], factor * dots["value"], s=9, color=LIGHT.muted, alpha=0.45, linewidths=0, zorder=2)
        axes.fill_between(curve.shares, factor * curve.low, factor * curve.high, color=colour, alpha=0.2, linewidth=0, zorder=1)
        axes.plot(curve.shares, factor * curve.mean, color=colour, linewidth=1.8, zorder=4)
        if one.bound is not None:
            bound = factor * one.bound.bound
            axes.axhline(
                bound, color=LIGHT.region, linestyle=(0, (5, 3)), linewidth=1.2, label=labels.constraint_sign(one.bound)
            )
        axes.set_xlabel(f"share of {one.source}")
        axes.set_ylabel(broken(labels.axis(one.metric), 30))
        legend_above(axes)
    return figure


def data(sweep: Sweep) -> pd.DataFrame:
    """The curves, then the trainings, each law's by its metric and source."""
    found = [one for one in laws(sweep) if one.response is not None]
    parts = []
    for one in found:
        curve = one.response
        assert curve is not None
        line = pd.DataFrame({"share": curve.shares, "mean": curve.mean, "low": curve.low, "high": curve.high})
        parts += [part.assign(metric=one.metric, source=one.source) for part in (line, one.values)]
    return pd.concat(parts, ignore_index=True)[["metric", "source", "share", "mean", "low", "high", "number", "value"]]
