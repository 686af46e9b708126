"""Figures of the settings' effect on the objectives: importance, dependence on one setting, dependence on two."""

import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator, NullFormatter

from analysis.explore.importance import dependences, importance, interaction, needed, varied
from analysis.figures.theme import LIGHT, WIDTH, broken, canvas, legend_above, short, themed
from analysis.formatting import labels
from analysis.results.sweep import Sweep

HATCHES = ("", "////", "....", "xxxx")
PATHS = 6  # settings in the small multiples
DOTS = 2000  # trials that are drawn one by one; more would merge into a blot
LOG = 8  # ratio of the largest to the smallest value from which an axis is logarithmic


@themed
def mattered(sweep: Sweep) -> Figure | None:
    """The share of each setting in the objectives' variance, by two methods."""
    table, second = importance(sweep), importance(sweep, "ped_anova")
    metrics = [str(name) for name in table if table[name].notna().any()]
    if not metrics:
        return None
    table = table.loc[varied(sweep)][metrics]
    order = table.max(axis=1).sort_values().index
    names = labels.setting_names(sweep.space)
    high = 0.8 / len(metrics)
    figure, (axes,) = canvas(LIGHT, (WIDTH, 1.3 + 0.34 * len(order) * max(1.0, 0.6 * len(metrics))))
    for place, metric in enumerate(metrics):
        level = np.arange(len(order)) + 0.4 - (place + 0.5) * high
        colour = LIGHT.series[place % len(LIGHT.series)]
        axes.barh(
            level, 100 * table[metric][order], 0.9 * high, color=colour, edgecolor=LIGHT.paper, linewidth=0,
            hatch=HATCHES[place % len(HATCHES)], label=labels.metric_name(metric),
        )  # fmt: skip
        axes.plot(
            100 * second[metric][order], level, "D", color=LIGHT.paper, markeredgecolor=LIGHT.ink, markersize=5,
            linestyle="none", label="among the best tenth (PED-ANOVA)" if place == len(metrics) - 1 else None,
        )  # fmt: skip
    axes.set_yticks(np.arange(len(order)), [short(names[path], 40) for path in order])
    axes.set_xlabel("share of the objective's variance (%)")
    largest = np.nanmax(np.maximum(table.to_numpy(dtype=float), second.loc[table.index][metrics].to_numpy(dtype=float)))
    axes.set_xlim(0, max(5.0, 106 * float(largest)))
    axes.grid(visible=False, axis="y")
    legend_above(axes)
    return figure


@themed
def depended(sweep: Sweep) -> Figure | None:
    """Partial dependence of the first two objectives on each setting: a row for each objective, a column for each setting."""
    paths = _most_important(sweep)[:PATHS]
    found = {one.metric: dependences(sweep, one.metric, paths) for one in sweep.objectives[:2]}
    found = {metric: of_path for metric, of_path in found.items() if of_path and not next(iter(of_path.values())).empty}
    if not found:
        return None
    figure, grid = canvas(LIGHT, (WIDTH, 0.5 + 2.3 * len(found)), len(found) * len(paths), len(paths))
    names = labels.setting_names(sweep.space)
    done = sweep.complete.iloc[:DOTS]
    for place, (metric, of_path) in enumerate(found.items()):
        row = grid[place * len(paths) : (place + 1) * len(paths)]
        for path, axes in zip(paths, row, strict=True):
            factor, line = labels.scale(metric), of_path[path]
            tried = pd.DataFrame({"value": done[path], "shown": factor * done[metric]})
            line = line.assign(**{name: factor * line[name] for name in ("low", "mean", "high")})
            _dependence(axes, tried, line, LIGHT.series[place])
            axes.sharey(row[0])
            if axes is not row[0]:
                axes.tick_params(labelleft=False)
            if place == len(found) - 1:
                axes.set_xlabel(short(names[path], 22))
        row[0].set_ylabel(broken(labels.axis(metric), 26))
    return figure


def _dependence(axes: Axes, tried: pd.DataFrame, line: pd.DataFrame, colour: str) -> None:
    place = _places(axes, list(line["value"]))
    dots = [(place(value), height) for value, height in zip(tried["value"], tried["shown"], strict=True)]
    known = np.array([dot for dot in dots if dot[0] is not None], dtype=float).reshape(-1, 2)
    axes.scatter(
        known[:, 0], known[:, 1], s=9, color=LIGHT.muted, alpha=0.45, linewidths=0, zorder=2, rasterized=len(known) > 500
    )
    x = np.array([place(value) for value in line["value"]], dtype=float)
    low, mean, high = (line[name].to_numpy(dtype=float) for name in ("low", "mean", "high"))
    if isinstance(line["value"].iloc[0], str):
        axes.errorbar(x, mean, [mean - low, high - mean], fmt="o", color=colour, capsize=3, zorder=4)
        return
    axes.fill_between(x, low, high, color=colour, alpha=0.2, linewidth=0, zorder=1)
    axes.plot(x, mean, color=colour, linewidth=1.8, marker="o", markersize=3.5, zorder=4)


@themed
def together(sweep: Sweep) -> Figure | None:
    """The first two objectives over the two most important settings."""
    paths = _most_important(sweep)[:2]
    if len(paths) < 2:
        return None
    metrics = [one.metric for one in sweep.objectives[:2]]
    found = [(metric, interaction(sweep, metric, paths[1], paths[0])) for metric in metrics]
    found = [(metric, table) for metric, table in found if not table.empty]
    if not found:
        return None
    figure, panels = canvas(LIGHT, (WIDTH, 3.6), len(found), len(found))
    names = labels.setting_names(sweep.space)
    for (metric, table), axes in zip(found, panels, strict=True):
        shown = axes.pcolormesh(labels.scale(metric) * table.to_numpy(dtype=float), cmap="cividis", rasterized=True)
        axes.grid(visible=False)
        for axis, values in ((axes.xaxis, table.columns), (axes.yaxis, table.index)):
            every = max(1, -(-len(values) // 4)) if len(values) > 6 else 1
            texts = [
                short(labels.setting(float(f"{value:.1e}") if isinstance(value, float) else value), 12) for value in values
            ][::every]
            axis.set_ticks(np.arange(len(values))[::every] + 0.5, texts)
        axes.set_xlabel(short(names[paths[0]], 40))
        bar = figure.colorbar(shown, ax=axes, pad=0.02)
        bar.set_label(broken(labels.axis(metric), 34), size=9)
        bar.ax.tick_params(colors=LIGHT.muted, labelsize=8, length=0)
        bar.outline.set_visible(False)  # type: ignore[operator]
    panels[0].set_ylabel(short(names[paths[1]], 34))
    return figure


def _places(axes: Axes, values: Sequence[Any]) -> Callable[[Any], float | None]:
    """Sets up the x axis for the values of one setting; returns a function from a value to its place, None without one."""
    if isinstance(values[0], str):
        place = {value: float(number) for number, value in enumerate(values)}
        axes.set_xticks(list(place.values()), [short(value, 14) for value in values], rotation=30, ha="right")
        axes.set_xlim(-0.5, len(values) - 0.5)
        return lambda value: place.get("none" if _absent(value) else str(value))
    if min(values) > 0 and max(values) / min(values) >= LOG:
        axes.set_xscale("log")
        ticks = list(values) if len(values) <= 6 else _decades(min(values), max(values))
        axes.set_xticks(ticks, [labels.setting(value) for value in ticks])
        axes.xaxis.set_minor_formatter(NullFormatter())
    else:
        axes.xaxis.set_major_locator(MaxNLocator(4))
    return lambda value: None if _absent(value) else float(value)


def _decades(low: float, high: float) -> list[float]:
    """At most four round numbers between both, evenly on a log scale."""
    powers = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
    digits = (1, 2, 5) if high / low < 30 else (1, 3)
    found = [digit * 10.0**power for power in powers for digit in digits if low <= digit * 10.0**power <= high]
    return found[:: -(-len(found) // 4)] if found else [low, high]


def _absent(value: Any) -> bool:
    return value is None or value != value


def _most_important(sweep: Sweep) -> list[str]:
    """The varied paths, sorted by their largest share in one of the first two objectives."""
    shares = importance(sweep).iloc[:, :2].max(axis=1)
    return [path for path in shares.sort_values(ascending=False, kind="stable").index if path in varied(sweep)]


def shares(sweep: Sweep) -> pd.DataFrame:
    both = [importance(sweep, name).assign(evaluator=name) for name in ("fanova", "ped_anova")]
    return pd.concat(both).reset_index()


def dependence_data(sweep: Sweep) -> pd.DataFrame:
    paths = _most_important(sweep)[:PATHS]
    found = [
        line.assign(metric=one.metric, path=path)
        for one in sweep.objectives[:2]
        for path, line in dependences(sweep, one.metric, paths).items()
    ]
    return pd.concat(found, ignore_index=True)[["metric", "path", "value", "mean", "low", "high"]]


def interaction_data(sweep: Sweep) -> pd.DataFrame:
    first, second = _most_important(sweep)[:2]
    tables = {one.metric: interaction(sweep, one.metric, first, second) for one in sweep.objectives[:2]}
    long = [
        pd.Series(table.stack(), name="mean").reset_index().assign(metric=metric)
        for metric, table in tables.items()
        if len(table)
    ]
    return pd.concat(long, ignore_index=True)


def importance_caption(sweep: Sweep) -> str:
    done = len(sweep.complete)
    return (
        f"From {done} finished trials (at least {needed(sweep)} are required). Bars: fANOVA, main effects over all trials. "
        "Diamonds: PED-ANOVA, the best tenth of the trials against the others. With few trials both are rough."
    )
