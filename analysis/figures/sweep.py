"""The figures of a sweep, one function each, for its report and for a paper.

A figure has no title of its own: `FIGURES` holds its title and its caption.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from analysis.explore.cost import hours_name
from analysis.explore.importance import bases, matched
from analysis.explore.selection import course, knee, traded, tradeoff
from analysis.figures.front import LISTED, front_figure, scatter_kinds
from analysis.figures.importance import (
    depended,
    dependence_data,
    importance_caption,
    interaction_data,
    mattered,
    shares,
    together,
)
from analysis.figures.mix import answered
from analysis.figures.mix import data as mix_data
from analysis.figures.scene import evenly, kinds, named
from analysis.figures.theme import LIGHT, MARKERS, WIDTH, broken, canvas, legend_above, short, themed
from analysis.formatting import labels
from analysis.metrics.definitions import JOINT_KINDS
from analysis.metrics.names import LEARNING, split_metric
from analysis.results import schema as col
from analysis.results.sweep import Sweep

BARS = 12  # trials whose forgetting is decomposed
FAINT = 600  # trials beside the front that are drawn as lines over all objectives


@dataclass(frozen=True)
class Figured:
    title: str
    words: str | Callable[[Sweep], str]
    draw: Callable[[Sweep], Figure | None]
    """None if the sweep has nothing to show."""
    data: Callable[[Sweep], pd.DataFrame]
    """The drawn numbers, in the metrics' own units (shares, not percent)."""

    def caption(self, sweep: Sweep) -> str:
        return self.words if isinstance(self.words, str) else self.words(sweep)


@themed
def hypervolume(sweep: Sweep) -> Figure | None:
    """The front's hypervolume over trials and over hours of work."""
    found = course(sweep)
    if found.empty or not found["hypervolume"].max() > 0:
        return None
    figure, (left, right) = canvas(LIGHT, (WIDTH, 3.4), 2, 2)
    for axes, x, name in ((left, "trials", "ended trials"), (right, "gpu_hours", f"{hours_name(sweep)} of the trials")):
        places = np.append(0.0, found[x])
        volume = np.append(0.0, found["hypervolume"])
        axes.step(places, volume, where="post", color=LIGHT.front, linewidth=1.8)
        axes.plot(places[-1], volume[-1], "o", color=LIGHT.front, markeredgecolor=LIGHT.paper, markersize=7)
        axes.set_xlabel(name)
        axes.set_xlim(0, places[-1] * 1.04 or 1.0)
        axes.set_ylim(0, 1.08 * volume[-1])
    left.xaxis.set_major_locator(MaxNLocator(6, integer=True))
    right.xaxis.set_major_locator(MaxNLocator(6))
    left.set_ylabel("hypervolume")
    return figure


@themed
def objectives(sweep: Sweep) -> Figure | None:
    """Each finished trial as a line over three or more objectives."""
    metrics = [one.metric for one in sweep.objectives]
    done = sweep.complete
    done = done[np.isfinite(done[metrics].to_numpy(dtype=float)).all(axis=1)]
    if len(metrics) < 3 or done.empty:
        return None
    figure, (axes,) = canvas(LIGHT, (WIDTH, 3.4))
    low, high = done[metrics].min(), done[metrics].max()
    rising = [one.direction == "maximize" for one in sweep.objectives]
    best, worst = high.where(rising, low), low.where(rising, high)
    heights = ((done[metrics] - worst) / (best - worst)).fillna(0.5)  # equal values have no better one
    on_front = done["on_front"].to_numpy(dtype=bool)
    axes.plot(evenly(heights[~on_front], FAINT).T.to_numpy(), color=LIGHT.muted, linewidth=0.8, alpha=0.3)
    axes.plot(heights[on_front].T.to_numpy(), color=LIGHT.front, linewidth=1.8, alpha=0.8)
    if on_front.sum() <= LISTED:
        for at, text in named(
            heights[on_front].iloc[:, [-1]].assign(x=len(metrics) - 1).to_numpy(), done["number"][on_front]
        ).items():
            axes.annotate(text, at[::-1], (6, 0), textcoords="offset points", size=9, va="center")
    ends = zip(metrics, best, worst, strict=True)
    names = [[broken(labels.metric_name(name), 24), *(labels.percent(name, end) for end in both)] for name, *both in ends]
    axes.set_xticks(range(len(metrics)), [worst for *_, worst in names])
    top = axes.secondary_xaxis("top")
    top.set_xticks(range(len(metrics)), [f"{name}\n{best}" for name, best, _ in names])
    top.tick_params(colors=LIGHT.ink, labelsize=9, length=0)
    axes.set_yticks([])
    return figure


@themed
def trade(sweep: Sweep) -> Figure | None:
    """The best value of the first objective within each bound on the second."""
    pair, steps = traded(sweep), tradeoff(sweep)
    if pair is None or steps.empty:
        return None
    first, second = pair
    figure, (axes,) = canvas(LIGHT, (WIDTH, 4.4))
    x, y = labels.scale(second.metric) * steps["bound"], labels.scale(first.metric) * steps["best"]
    errors = np.nan_to_num(labels.scale(first.metric) * steps["best_se"].to_numpy(dtype=float))
    bounds = [labels.scale(one.metric) * one.bound for one in sweep.constraints if one.metric == second.metric]
    values = labels.scale(second.metric) * sweep.trials[col.searched(second.metric)].to_numpy(dtype=float)
    values = np.array([*values[np.isfinite(values)], *x, *bounds])
    margin = 0.05 * (np.ptp(values) or 1.0)  # the last step ends a little beyond the loosest bound and every trial
    end = values.max() + margin if second.direction == "minimize" else values.min() - margin
    axes.step(np.append(x, end), np.append(y, y.iloc[-1]), where="post", color=LIGHT.front, linewidth=1.6)
    axes.errorbar(x, y, errors, fmt="none", ecolor=LIGHT.front, elinewidth=0.9, alpha=0.6)
    axes.scatter(x, y, s=44, marker="o", color=LIGHT.front, edgecolors=LIGHT.paper, linewidths=0.9, zorder=4)
    if len(steps) <= LISTED:
        for number, place in zip(steps["number"], zip(x, y, strict=True), strict=True):
            axes.annotate(f"#{number}", place, (6, -5), textcoords="offset points", size=9, va="top")
    best = knee(sweep)
    at = steps["number"] == best
    if best is not None and at.any():
        look: dict[str, Any] = {"facecolors": "none", "edgecolors": LIGHT.infeasible, "linewidths": 1.6, "zorder": 5}
        axes.scatter(x[at], y[at], s=150, marker="o", label=f"knee of the front (trial #{best})", **look)
    for bound in [one for one in sweep.constraints if one.metric == second.metric]:
        edge = labels.scale(bound.metric) * bound.bound
        axes.axvline(edge, color=LIGHT.region, linestyle=(0, (5, 3)), linewidth=1.2, label=labels.constraint_sign(bound))
    ways = {"minimize": "at most", "maximize": "at least"}
    axes.set_xlabel(f"{labels.axis(second.metric)}, {ways[second.direction]}")
    axes.set_ylabel(f"best {labels.axis(first.metric)}")
    if second.direction == "maximize":
        axes.invert_xaxis()
    legend_above(axes)
    return figure


@themed
def learnt(sweep: Sweep) -> Figure | None:
    """Learning against forgetting of all finished trials by base, with a line where the bases can be compared."""
    metric, gain = forgotten(sweep), f"{LEARNING}.gain"
    if metric is None or gain not in sweep.metrics:
        return None
    rows = sweep.complete
    rows = rows[np.isfinite(rows[[gain, metric]].to_numpy(dtype=float)).all(axis=1)]
    if rows.empty:
        return None
    figure, (axes,) = canvas(LIGHT, (WIDTH, 4.4))
    lines = matched(sweep, metric)
    factor = labels.scale(metric)
    for place, (base, group) in enumerate(rows.groupby(bases(sweep).loc[rows.index], sort=False)):
        colour, marker = LIGHT.series[place % len(LIGHT.series)], MARKERS[place % len(MARKERS)]
        axes.scatter(
            group[gain], factor * group[metric], s=34, marker=marker, color=colour, edgecolors=LIGHT.paper, linewidths=0.6,
            alpha=0.85 if len(group) <= 200 else 0.35, label=short(str(base), 50), zorder=3, rasterized=len(group) > 500,
        )  # fmt: skip
        line = lines[lines["base"] == base]
        if len(line):
            axes.fill_between(
                line["learnt"], factor * line["low"], factor * line["high"], color=colour, alpha=0.15, linewidth=0
            )
            axes.plot(line["learnt"], factor * line["mean"], color=colour, linewidth=1.8, zorder=4)
    axes.axhline(0, color=LIGHT.muted, linewidth=0.8, zorder=1)
    axes.set_xlabel("learned: " + labels.axis(gain).removeprefix(f"{LEARNING} "))
    axes.set_ylabel(labels.axis(metric))
    legend_above(axes)
    return figure


def forgotten(sweep: Sweep) -> str | None:
    """The metric of forgetting: the first judged forgetting or drop, else any role's."""
    kinds = (*JOINT_KINDS, "forgetting", "drop")
    for names in (sweep.judged, sweep.metrics):
        for kind in kinds:
            for name in names:
                if split_metric(name)[1] == kind and sweep.trials[name].notna().any():
                    return name
    return None


@themed
def apart(sweep: Sweep) -> Figure | None:
    """Forgetting decomposed into format and skill: all trials in the plane of both, the front's as bars."""
    roles = [split_metric(name)[0] for name in sweep.metrics if split_metric(name)[1] == "format_forgetting"]
    for role in roles:
        parts = [f"{role}.format_forgetting", f"{role}.skill_forgetting"]
        rows = sweep.complete[sweep.complete[parts].notna().all(axis=1)]
        if len(rows):
            figure, (plane, bars) = canvas(LIGHT, (WIDTH, 4.0), 2, 2)
            _plane(plane, rows, parts)
            _bars(bars, rows, parts)
            return figure
    return None


def _plane(axes: Axes, rows: pd.DataFrame, parts: Sequence[str]) -> None:
    scatter_kinds(axes, 100 * rows[list(parts)].to_numpy(dtype=float), kinds(rows))
    axes.axhline(0, color=LIGHT.muted, linewidth=0.8, zorder=1)
    axes.axvline(0, color=LIGHT.muted, linewidth=0.8, zorder=1)
    axes.set_xlabel(broken(labels.axis(parts[0]), 44))
    axes.set_ylabel(broken(labels.axis(parts[1]), 44))
    legend_above(axes)


def _bars(axes: Axes, rows: pd.DataFrame, parts: Sequence[str]) -> None:
    """At most BARS of the front's trials, or, if it is empty, of those that forgot least."""
    total = rows[list(parts)].sum(axis=1)
    chosen = rows[rows["on_front"]] if rows["on_front"].any() else rows.loc[total.nsmallest(BARS).index]
    chosen = chosen.loc[total.loc[chosen.index].sort_values().index]
    chosen = evenly(chosen, BARS)
    level = np.arange(len(chosen))
    above, below = np.zeros(len(chosen)), np.zeros(len(chosen))
    for part, name, colour, hatch in zip(parts, ("format", "skill"), LIGHT.series, ("", "////"), strict=False):
        value = 100 * chosen[part].to_numpy(dtype=float)
        start = np.where(value >= 0, above, below)
        axes.barh(level, value, 0.7, left=start, color=colour, hatch=hatch, edgecolor=LIGHT.paper, linewidth=0, label=name)
        above, below = above + np.maximum(value, 0), below + np.minimum(value, 0)
    axes.plot(100 * total.loc[chosen.index], level, "D", color=LIGHT.ink, markeredgecolor=LIGHT.paper, label="together")
    axes.set_yticks(level, [f"#{number}" for number in chosen["number"]])
    axes.axvline(0, color=LIGHT.muted, linewidth=0.8)
    axes.margins(x=0.08)
    axes.set_xlabel("forgetting (% of the base)")
    axes.grid(visible=False, axis="y")
    legend_above(axes)


def _course_caption(sweep: Sweep) -> str:
    point = ", ".join(
        f"{labels.metric_name(one.metric)} {labels.percent(one.metric, value)}{labels.unit(one.metric)}"
        for one, value in zip(sweep.objectives, sweep.reference, strict=True)
    )
    return (
        f"Volume that the front dominates on the documents that the search saw, from {point}, in the metrics' own units; "
        "trials in order of their numbers."
    )


def _judged(sweep: Sweep) -> pd.DataFrame:
    rows = sweep.complete
    columns = [column for name in sweep.judged for column in (name, col.se(name))]
    return rows[["number", "key", *columns, "feasible", "on_front"]]


def _learnings(sweep: Sweep) -> pd.DataFrame:
    """The trials, then the points of the lines."""
    metric, gain = forgotten(sweep) or "", f"{LEARNING}.gain"
    rows = sweep.complete
    dots = pd.DataFrame({"learnt": rows[gain], "base": bases(sweep).loc[rows.index], "number": rows["number"]})
    lines = matched(sweep, metric)
    dots["value"] = rows[metric]
    return pd.concat([dots, lines], ignore_index=True) if len(lines) else dots


def _parts(sweep: Sweep) -> pd.DataFrame:
    rows = sweep.complete
    kinds = ("forgetting", "format_forgetting", "skill_forgetting")
    return rows[["number", "key", *(name for name in sweep.metrics if split_metric(name)[1] in kinds), "on_front"]]


FIGURES: dict[str, Figured] = {
    "front": Figured(
        "The front",
        "Each finished trial in the first two objectives. The ellipses hold the true values of the front's trials with 95 % "
        "confidence. Trials far from the front are marked at the picture's edge.",
        front_figure,
        _judged,
    ),
    "objectives": Figured(
        "All objectives at once",
        f"Each finished trial, better at the top. The strong lines are the front's; of the others at most {FAINT} are drawn.",
        objectives,
        _judged,
    ),
    "course": Figured("Hypervolume over trials and hours of work", _course_caption, hypervolume, course),
    "tradeoff": Figured(
        "The best within any bound",
        "The best trial within each bound, ± one standard error, among those that keep all other constraints.",
        trade,
        tradeoff,
    ),
    "importance": Figured("Importance of the settings", importance_caption, mattered, shares),
    "dependence": Figured(
        "The effect of each setting",
        "Partial dependence of a random forest with its 95 % interval over bootstraps of the trials (band or bar); "
        "dots are the trials. The most important settings come first.",
        depended,
        dependence_data,
    ),
    "interaction": Figured(
        "Two settings together",
        "Partial dependence on the two most important settings, averaged over the trials' other settings.",
        together,
        interaction_data,
    ),
    "mix": Figured(
        "The law of the mix",
        "Each metric over the share of a source in the training rows, at the average of the other settings, with its 95 % "
        "interval. Dots are the trainings as they are, whatever their other settings.",
        answered,
        mix_data,
    ),
    "learning": Figured(
        "Learning against forgetting",
        "All finished trials by base. Lines are local linear fits with 95 % intervals over bootstraps of the trials, where "
        "two bases learned equally much. Compare forgetting at equal learning only: little learning forgets little.",
        learnt,
        _learnings,
    ),
    "parts": Figured(
        "Forgetting by format and skill",
        "Format: answers without the task's marker. Skill: wrong answers with it. Together they are the forgetting rate. "
        "Left: all finished trials. Right: those of the front or, if it is empty, those that forgot least.",
        apart,
        _parts,
    ),
}
