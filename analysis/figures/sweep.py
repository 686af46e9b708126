"""The figures of a sweep, one function each, for its report and for a paper: colours are Okabe and Ito's, markers differ too.

A figure has no title in it: `FIGURES` holds its title and its caption beside it.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator, NullFormatter

from analysis.explore.cost import hours_name
from analysis.explore.importance import bases, dependences, importance, interaction, matched, needed, varied
from analysis.explore.selection import course, knee, traded, tradeoff
from analysis.figures.front import LISTED, WIDTH, evenly, front_figure, scatter_kinds
from analysis.figures.scene import kinds
from analysis.figures.theme import LIGHT, MARKERS, Theme, broken, canvas, short, themed
from analysis.formatting import labels
from analysis.metrics.names import LEARNING, split_metric
from analysis.results.sweep import Sweep

HATCHES = ("", "////", "....", "xxxx")
PATHS = 6  # settings in the small multiples
BARS = 12  # trials that are taken apart
DOTS = 2000  # trials that are drawn one by one: more are a blot
LOG = 8  # times the lowest, from which an axis is logarithmic


@dataclass(frozen=True)
class Figured:
    title: str
    words: str | Callable[[Sweep], str]
    draw: Callable[[Sweep, Theme], Figure | None]
    """None where the sweep has nothing to show."""
    data: Callable[[Sweep], pd.DataFrame]
    """What is drawn, in the metrics' own units (shares, not percent)."""

    def caption(self, sweep: Sweep) -> str:
        return self.words if isinstance(self.words, str) else self.words(sweep)


@themed
def hypervolume(sweep: Sweep, theme: Theme = LIGHT) -> Figure | None:
    """The front's hypervolume as the trials came in, and over the hours that they took."""
    found = course(sweep)
    if found.empty or not found["hypervolume"].max() > 0:
        return None
    figure, (left, right) = canvas(theme, (WIDTH, 3.4), 2, 2)
    for axes, x, name in ((left, "trials", "ended trials"), (right, "gpu_hours", f"{hours_name(sweep)} of the trials")):
        places = np.append(0.0, found[x])
        volume = np.append(0.0, found["hypervolume"])
        axes.step(places, volume, where="post", color=theme.front, linewidth=1.8)
        axes.plot(places[-1], volume[-1], "o", color=theme.front, markeredgecolor=theme.paper, markersize=7)
        axes.set_xlabel(name)
        axes.set_xlim(0, places[-1] * 1.04 or 1.0)
        axes.set_ylim(0, 1.08 * volume[-1])
    left.xaxis.set_major_locator(MaxNLocator(6, integer=True))
    right.xaxis.set_major_locator(MaxNLocator(6))
    left.set_ylabel("hypervolume")
    return figure


@themed
def trade(sweep: Sweep, theme: Theme = LIGHT) -> Figure | None:
    """The best of the first objective that is to be had for each bound on the second."""
    pair, steps = traded(sweep), tradeoff(sweep)
    if pair is None or steps.empty:
        return None
    first, second = pair
    figure, (axes,) = canvas(theme, (WIDTH, 4.4))
    x, y = labels.scale(second.metric) * steps["bound"], labels.scale(first.metric) * steps["best"]
    errors = np.nan_to_num(labels.scale(first.metric) * steps["best_se"].to_numpy(dtype=float))
    bounds = [labels.scale(one.metric) * one.bound for one in sweep.constraints if one.metric == second.metric]
    end = _end(sweep, second.metric, second.direction == "minimize", [*x, *bounds])
    axes.step(np.append(x, end), np.append(y, y.iloc[-1]), where="post", color=theme.front, linewidth=1.6)
    axes.errorbar(x, y, errors, fmt="none", ecolor=theme.front, elinewidth=0.9, alpha=0.6)
    axes.scatter(x, y, s=44, marker="o", color=theme.front, edgecolors=theme.paper, linewidths=0.9, zorder=4)
    if len(steps) <= LISTED:
        for number, place in zip(steps["number"], zip(x, y, strict=True), strict=True):
            axes.annotate(f"#{number}", place, (6, -5), textcoords="offset points", size=9, va="top")
    best = knee(sweep)
    at = steps["number"] == best
    if best is not None and at.any():
        look: dict[str, Any] = {"facecolors": "none", "edgecolors": theme.infeasible, "linewidths": 1.6, "zorder": 5}
        axes.scatter(x[at], y[at], s=150, marker="o", label=f"knee of the front (trial #{best})", **look)
    for bound in [one for one in sweep.constraints if one.metric == second.metric]:
        edge = labels.scale(bound.metric) * bound.bound
        axes.axvline(edge, color=theme.region, linestyle=(0, (5, 3)), linewidth=1.2, label=labels.constraint_sign(bound))
    ways = {"minimize": "at most", "maximize": "at least"}
    axes.set_xlabel(f"{labels.axis(second.metric)}, {ways[second.direction]}")
    axes.set_ylabel(f"best {labels.axis(first.metric)}")
    if second.direction == "maximize":
        axes.invert_xaxis()
    _legend(axes)
    return figure


def _end(sweep: Sweep, metric: str, smaller_is_stricter: bool, bounds: Sequence[float]) -> float:
    """Where the last step ends: a little beyond the loosest of the bounds and of what any trial was."""
    values = labels.scale(metric) * sweep.trials[f"{metric}_search"].to_numpy(dtype=float)
    values = np.append(values[np.isfinite(values)], bounds)
    margin = 0.05 * (np.ptp(values) or 1.0)
    return float(values.max() + margin if smaller_is_stricter else values.min() - margin)


@themed
def mattered(sweep: Sweep, theme: Theme = LIGHT) -> Figure | None:
    """The share of each setting in what the objectives varied by, after two methods."""
    table, second = importance(sweep), importance(sweep, "ped_anova")
    metrics = [str(name) for name in table if table[name].notna().any()]
    if not metrics:
        return None
    table = table.loc[varied(sweep)][metrics]
    order = table.max(axis=1).sort_values().index
    names = labels.setting_names(sweep.space)
    high = 0.8 / len(metrics)
    figure, (axes,) = canvas(theme, (WIDTH, 1.3 + 0.34 * len(order) * max(1.0, 0.6 * len(metrics))))
    for place, metric in enumerate(metrics):
        level = np.arange(len(order)) + 0.4 - (place + 0.5) * high
        colour = theme.series[place % len(theme.series)]
        axes.barh(
            level, 100 * table[metric][order], 0.9 * high, color=colour, edgecolor=theme.paper, linewidth=0,
            hatch=HATCHES[place % len(HATCHES)], label=labels.metric_name(metric),
        )  # fmt: skip
        axes.plot(
            100 * second[metric][order], level, "D", color=theme.paper, markeredgecolor=theme.ink, markersize=5,
            linestyle="none", label="among the best tenth (PED-ANOVA)" if place == len(metrics) - 1 else None,
        )  # fmt: skip
    axes.set_yticks(np.arange(len(order)), [short(names[path], 40) for path in order])
    axes.set_xlabel("share in what the objective varied by (%)")
    largest = np.nanmax(np.maximum(table.to_numpy(dtype=float), second.loc[table.index][metrics].to_numpy(dtype=float)))
    axes.set_xlim(0, max(5.0, 106 * float(largest)))
    axes.grid(visible=False, axis="y")
    _legend(axes)
    return figure


@themed
def depended(sweep: Sweep, theme: Theme = LIGHT) -> Figure | None:
    """How the first two objectives depend on each setting, the others as they were: a row an objective, a column a setting."""
    paths = _most_important(sweep)[:PATHS]
    found = {one.metric: dependences(sweep, one.metric, paths) for one in sweep.objectives[:2]}
    found = {metric: of_path for metric, of_path in found.items() if of_path and not next(iter(of_path.values())).empty}
    if not found:
        return None
    figure, grid = canvas(theme, (WIDTH, 0.5 + 2.3 * len(found)), len(found) * len(paths), len(paths))
    names = labels.setting_names(sweep.space)
    done = sweep.trials[sweep.trials["state"] == "complete"].iloc[:DOTS]
    for place, (metric, of_path) in enumerate(found.items()):
        row = grid[place * len(paths) : (place + 1) * len(paths)]
        for path, axes in zip(paths, row, strict=True):
            factor, line = labels.scale(metric), of_path[path]
            tried = pd.DataFrame({"value": done[path], "told": factor * done[metric]})
            line = line.assign(**{name: factor * line[name] for name in ("low", "mean", "high")})
            _dependence(axes, tried, line, theme.series[place], theme)
            axes.sharey(row[0])
            if axes is not row[0]:
                axes.tick_params(labelleft=False)
            if place == len(found) - 1:
                axes.set_xlabel(short(names[path], 22))
        row[0].set_ylabel(broken(labels.axis(metric), 26))
    return figure


def _dependence(axes: Axes, tried: pd.DataFrame, line: pd.DataFrame, colour: str, theme: Theme) -> None:
    place = _places(axes, list(line["value"]))
    dots = [(place(value), told) for value, told in zip(tried["value"], tried["told"], strict=True)]
    known = np.array([dot for dot in dots if dot[0] is not None], dtype=float).reshape(-1, 2)
    axes.scatter(
        known[:, 0], known[:, 1], s=9, color=theme.muted, alpha=0.45, linewidths=0, zorder=2, rasterized=len(known) > 500
    )
    x = np.array([place(value) for value in line["value"]], dtype=float)
    low, mean, high = (line[name].to_numpy(dtype=float) for name in ("low", "mean", "high"))
    if isinstance(line["value"].iloc[0], str):
        axes.errorbar(x, mean, [mean - low, high - mean], fmt="o", color=colour, capsize=3, zorder=4)
        return
    axes.fill_between(x, low, high, color=colour, alpha=0.2, linewidth=0, zorder=1)
    axes.plot(x, mean, color=colour, linewidth=1.8, marker="o", markersize=3.5, zorder=4)


@themed
def together(sweep: Sweep, theme: Theme = LIGHT) -> Figure | None:
    """The first two objectives over the two settings that mattered most."""
    paths = _most_important(sweep)[:2]
    if len(paths) < 2:
        return None
    metrics = [one.metric for one in sweep.objectives[:2]]
    found = [(metric, interaction(sweep, metric, paths[1], paths[0])) for metric in metrics]
    found = [(metric, table) for metric, table in found if not table.empty]
    if not found:
        return None
    figure, panels = canvas(theme, (WIDTH, 3.6), len(found), len(found))
    names = labels.setting_names(sweep.space)
    for (metric, table), axes in zip(found, panels, strict=True):
        shown = axes.pcolormesh(labels.scale(metric) * table.to_numpy(dtype=float), cmap="cividis", rasterized=True)
        axes.grid(visible=False)
        for axis, values in ((axes.xaxis, table.columns), (axes.yaxis, table.index)):
            every = max(1, -(-len(values) // 4)) if len(values) > 6 else 1
            texts = [short(labels.setting(_round(value)), 12) for value in values][::every]
            axis.set_ticks(np.arange(len(values))[::every] + 0.5, texts)
        axes.set_xlabel(short(names[paths[0]], 40))
        bar = figure.colorbar(shown, ax=axes, pad=0.02)
        bar.set_label(broken(labels.axis(metric), 34), size=9)
        bar.ax.tick_params(colors=theme.muted, labelsize=8, length=0)
        bar.outline.set_visible(False)  # type: ignore[operator]
    panels[0].set_ylabel(short(names[paths[1]], 34))
    return figure


@themed
def learnt(sweep: Sweep, theme: Theme = LIGHT) -> Figure | None:
    """What all finished trials learnt against what they forgot, by base, with a line through each where they compare."""
    metric, gain = forgotten(sweep), f"{LEARNING}.gain"
    if metric is None or gain not in sweep.metrics:
        return None
    rows = sweep.trials[sweep.trials["state"] == "complete"]
    rows = rows[np.isfinite(rows[[gain, metric]].to_numpy(dtype=float)).all(axis=1)]
    if rows.empty:
        return None
    figure, (axes,) = canvas(theme, (WIDTH, 4.4))
    lines = matched(sweep, metric)
    factor = labels.scale(metric)
    for place, (base, group) in enumerate(rows.groupby(bases(sweep).loc[rows.index], sort=False)):
        colour, marker = theme.series[place % len(theme.series)], MARKERS[place % len(MARKERS)]
        axes.scatter(
            group[gain], factor * group[metric], s=34, marker=marker, color=colour, edgecolors=theme.paper, linewidths=0.6,
            alpha=0.85 if len(group) <= 200 else 0.35, label=short(str(base), 50), zorder=3, rasterized=len(group) > 500,
        )  # fmt: skip
        line = lines[lines["base"] == base]
        if len(line):
            axes.fill_between(
                line["learnt"], factor * line["low"], factor * line["high"], color=colour, alpha=0.15, linewidth=0
            )
            axes.plot(line["learnt"], factor * line["mean"], color=colour, linewidth=1.8, zorder=4)
    axes.axhline(0, color=theme.muted, linewidth=0.8, zorder=1)
    axes.set_xlabel("learnt: " + labels.axis(gain).removeprefix(f"{LEARNING} "))
    axes.set_ylabel(labels.axis(metric))
    _legend(axes)
    return figure


def forgotten(sweep: Sweep) -> str | None:
    """The metric that says what was forgotten: the first judged forgetting or drop, else any role's."""
    kinds = ("forgetting", "drop")
    for names in (sweep.judged, sweep.metrics):
        for kind in kinds:
            for name in names:
                if split_metric(name)[1] == kind and sweep.trials[name].notna().any():
                    return name
    return None


@themed
def apart(sweep: Sweep, theme: Theme = LIGHT) -> Figure | None:
    """Forgetting taken apart into format and skill: all trials in the plane of both, the front's as bars."""
    roles = [split_metric(name)[0] for name in sweep.metrics if split_metric(name)[1] == "format_forgetting"]
    for role in roles:
        parts = [f"{role}.format_forgetting", f"{role}.skill_forgetting"]
        rows = sweep.trials[(sweep.trials["state"] == "complete") & sweep.trials[parts].notna().all(axis=1)]
        if len(rows):
            figure, (plane, bars) = canvas(theme, (WIDTH, 4.0), 2, 2)
            _plane(plane, rows, parts, theme)
            _bars(bars, rows, parts, theme)
            return figure
    return None


def _plane(axes: Axes, rows: pd.DataFrame, parts: Sequence[str], theme: Theme) -> None:
    x, y = (100 * rows[part].to_numpy(dtype=float) for part in parts)
    scatter_kinds(axes, (x, y, kinds(rows)), theme)
    axes.axhline(0, color=theme.muted, linewidth=0.8, zorder=1)
    axes.axvline(0, color=theme.muted, linewidth=0.8, zorder=1)
    axes.set_xlabel(broken(labels.axis(parts[0]), 44))
    axes.set_ylabel(broken(labels.axis(parts[1]), 44))
    _legend(axes)


def _bars(axes: Axes, rows: pd.DataFrame, parts: Sequence[str], theme: Theme) -> None:
    """Of the front's trials, or where it is empty of those that forgot least, at most BARS."""
    total = rows[list(parts)].sum(axis=1)
    chosen = rows[rows["on_front"]] if rows["on_front"].any() else rows.loc[total.nsmallest(BARS).index]
    chosen = chosen.loc[total.loc[chosen.index].sort_values().index]
    chosen = evenly(chosen, BARS)
    level = np.arange(len(chosen))
    above, below = np.zeros(len(chosen)), np.zeros(len(chosen))
    for part, name, colour, hatch in zip(parts, ("format", "skill"), theme.series, ("", "////"), strict=False):
        value = 100 * chosen[part].to_numpy(dtype=float)
        start = np.where(value >= 0, above, below)
        axes.barh(level, value, 0.7, left=start, color=colour, hatch=hatch, edgecolor=theme.paper, linewidth=0, label=name)
        above, below = above + np.maximum(value, 0), below + np.minimum(value, 0)
    axes.plot(100 * total.loc[chosen.index], level, "D", color=theme.ink, markeredgecolor=theme.paper, label="together")
    axes.set_yticks(level, [f"#{number}" for number in chosen["number"]])
    axes.axvline(0, color=theme.muted, linewidth=0.8)
    axes.margins(x=0.08)
    axes.set_xlabel("forgetting (% of the base)")
    axes.grid(visible=False, axis="y")
    _legend(axes)


# ---------------------------------------------------------------------- pieces


def _legend(axes: Axes) -> None:
    """Above the axes, where it covers nothing."""
    handles, names = axes.get_legend_handles_labels()
    if names:
        wide = min(len(names), 3)
        axes.legend(handles, names, loc="lower left", bbox_to_anchor=(0, 1.0), ncols=wide, borderaxespad=0.2)


def _places(axes: Axes, values: Sequence[Any]) -> Callable[[Any], float | None]:
    """Sets up the x axis for the values of one setting; returns where a value of it lies, None where it has no place."""
    if isinstance(values[0], str):
        place = {value: float(number) for number, value in enumerate(values)}
        axes.set_xticks(list(place.values()), [short(value, 14) for value in values], rotation=30, ha="right")
        axes.set_xlim(-0.5, len(values) - 0.5)
        return lambda value: place.get("none" if _absent(value) else str(value))
    if min(values) > 0 and max(values) / min(values) >= LOG:
        axes.set_xscale("log")
        told = list(values) if len(values) <= 6 else _decades(min(values), max(values))
        axes.set_xticks(told, [labels.setting(value) for value in told])
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
    return value is None or (isinstance(value, float) and np.isnan(value))


def _most_important(sweep: Sweep) -> list[str]:
    """The varied paths, the one with the largest share in any of the first two objectives first."""
    shares = importance(sweep).iloc[:, :2].max(axis=1)
    return [path for path in shares.sort_values(ascending=False, kind="stable").index if path in varied(sweep)]


def _round(value: Any) -> Any:
    """A number to the two digits that a tick has room for."""
    return float(f"{value:.1e}") if isinstance(value, float) else value


# ---------------------------------------------------------------------- all of them


def _course_caption(sweep: Sweep) -> str:
    point = ", ".join(
        f"{labels.metric_name(one.metric)} {labels.percent(one.metric, value)}{labels.unit(one.metric)}"
        for one, value in zip(sweep.objectives, sweep.reference, strict=True)
    )
    return f"Volume that the front dominates, from {point}, in the metrics' own units; trials in the order of their numbers."


def _mattered_caption(sweep: Sweep) -> str:
    done = int((sweep.trials["state"] == "complete").sum())
    return (
        f"From {done} finished trials (at least {needed(sweep)} are asked for). Bars: fANOVA, main effects over all trials; "
        "diamonds: PED-ANOVA, how much the best tenth of the trials differs from the others. With few trials both are rough."
    )


def _judged(sweep: Sweep) -> pd.DataFrame:
    rows = sweep.trials[sweep.trials["state"] == "complete"]
    columns = [column for name in sweep.judged for column in (name, f"{name}_se")]
    return rows[["number", "key", *columns, "feasible", "on_front"]]


def _shares(sweep: Sweep) -> pd.DataFrame:
    both = [importance(sweep, name).assign(evaluator=name) for name in ("fanova", "ped_anova")]
    return pd.concat(both).reset_index()


def _dependences(sweep: Sweep) -> pd.DataFrame:
    paths = _most_important(sweep)[:PATHS]
    found = [
        line.assign(metric=one.metric, path=path)
        for one in sweep.objectives[:2]
        for path, line in dependences(sweep, one.metric, paths).items()
    ]
    return pd.concat(found, ignore_index=True)[["metric", "path", "value", "mean", "low", "high"]]


def _interactions(sweep: Sweep) -> pd.DataFrame:
    first, second = _most_important(sweep)[:2]
    tables = {one.metric: interaction(sweep, one.metric, first, second) for one in sweep.objectives[:2]}
    long = [
        pd.Series(table.stack(), name="mean").reset_index().assign(metric=metric)
        for metric, table in tables.items()
        if len(table)
    ]
    return pd.concat(long, ignore_index=True)


def _learnings(sweep: Sweep) -> pd.DataFrame:
    """The lines, where there are any, below the trials."""
    metric, gain = forgotten(sweep) or "", f"{LEARNING}.gain"
    rows = sweep.trials[sweep.trials["state"] == "complete"]
    dots = pd.DataFrame({"learnt": rows[gain], "base": bases(sweep).loc[rows.index], "number": rows["number"]})
    lines = matched(sweep, metric)
    dots["value"] = rows[metric]
    return pd.concat([dots, lines], ignore_index=True) if len(lines) else dots


def _parts(sweep: Sweep) -> pd.DataFrame:
    rows = sweep.trials[sweep.trials["state"] == "complete"]
    kinds = ("forgetting", "format_forgetting", "skill_forgetting")
    return rows[["number", "key", *(name for name in sweep.metrics if split_metric(name)[1] in kinds), "on_front"]]


FIGURES: dict[str, Figured] = {
    "front": Figured(
        "The front",
        "Each finished trial in the first two objectives, ± one standard error; the front, the baseline and the constraints.",
        partial(front_figure, table=False),
        _judged,
    ),
    "course": Figured("Hypervolume over trials and hours of work", _course_caption, hypervolume, course),
    "tradeoff": Figured(
        "The best within any bound",
        "The best that any trial reached within each bound, ± one standard error; all other constraints are kept.",
        trade,
        tradeoff,
    ),
    "importance": Figured("What mattered", _mattered_caption, mattered, _shares),
    "dependence": Figured(
        "What each setting did",
        "Partial dependence of a random forest with its 95 % interval over bootstraps of the trials (band or bar); "
        "dots are the trials. The settings that mattered most come first.",
        depended,
        _dependences,
    ),
    "interaction": Figured(
        "Two settings together",
        "Partial dependence on the two settings that mattered most, the others as the trials had them.",
        together,
        _interactions,
    ),
    "learning": Figured(
        "Learning against forgetting",
        "All finished trials by base: lines, where two bases learnt alike, are local linear with 95 % intervals over "
        "bootstraps of the trials. Forgetting compares at equal learning alone: who learnt little forgot little.",
        learnt,
        _learnings,
    ),
    "parts": Figured(
        "Forgetting taken apart",
        "Format: answers that lack the task's marker; skill: wrong ones that have it; together they are the forgetting rate. "
        "Left all finished trials, right those of the front, or where it is empty those that forgot least.",
        apart,
        _parts,
    ),
}
