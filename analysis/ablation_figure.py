"""The figures of an ablation, as its file describes them: a metric by a setting or by another metric, a line per arm."""

from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.layout_engine import ConstrainedLayoutEngine

from analysis import labels
from analysis.answer import Answer, FigureSpec
from analysis.effects import AS_TRAINED
from analysis.figures import MARKERS
from analysis.metrics import LEARNING
from analysis.plots import LIGHT, Theme, style

_PANEL = (3.9, 3.3)  # inches
_CLASSES = {"word": "words", "digit": "digits", "operator": "operators", "format": "format"}


def draw(answer: Answer, spec: FigureSpec, theme: Theme = LIGHT) -> Figure | None:
    """None where there is nothing to show."""
    rows = _rows(answer, spec)
    if rows.empty:
        return None
    if spec.kind == "layers":
        return _layers(answer, rows, spec, theme)
    shown = [name for name in spec.y if name in rows and rows[name].notna().any()]
    if not shown:
        return None
    figure, panels = _canvas(theme, 1 if spec.kind == "classes" else len(shown))
    if spec.kind == "classes":
        ticks = _places(rows, spec)
        for number, name in enumerate(shown):
            _line(panels[0], rows, name, ticks, theme, number, _CLASSES.get(name.split("_")[-2], name))
        panels[0].set_ylabel("change of bits per byte")
        _name(panels[0], spec, ticks, theme)
    else:
        for panel, name in zip(panels, shown, strict=True):
            _panel(panel, rows, spec, name, theme)
    _legend(figure, panels[0], theme)
    return figure


def _rows(answer: Answer, spec: FigureSpec) -> pd.DataFrame:
    """The finished points that the figure is of; what is derived only where it asks for that."""
    if answer.sweep is None:
        return pd.DataFrame()
    rows = answer.sweep.trials
    rows = rows[rows["state"] == "complete"]
    asked = {spec.x, *spec.by}
    wanted = {path: value for path, value in AS_TRAINED.items() if path in rows and path not in asked} | spec.only
    for path, value in wanted.items():
        if path in rows:
            several = value if isinstance(value, list | tuple) else [value]
            rows = rows[[any(_same(one, other) for other in several) for one in rows[path]]]
    return rows


def _same(one: Any, other: Any) -> bool:
    absent = one is None or (isinstance(one, float) and np.isnan(one))
    return (other is None) if absent else one == other


# ---------------------------------------------------------------------- lines


def _places(rows: pd.DataFrame, spec: FigureSpec) -> tuple[pd.Series, list[tuple[float, str]] | None, bool]:
    """Where each row stands on the axis; the ticks where these are named; whether the axis is logarithmic."""
    values = rows[spec.x]
    if spec.x == "derive.samples":  # the adapter as it was trained has seen all rows
        whole = rows["data.samples"] if "data.samples" in rows else pd.Series(_samples(rows), index=rows.index)
        values = values.fillna(whole)
    numbers = pd.to_numeric(values, errors="coerce")
    if numbers.notna().all() and not any(isinstance(one, bool) for one in values):
        return numbers, None, spec.log
    names = list(dict.fromkeys("as trained" if _same(one, None) else labels.setting(one) for one in values))
    places = [names.index("as trained" if _same(one, None) else labels.setting(one)) for one in values]
    return pd.Series(places, index=rows.index, dtype=float), list(enumerate(names)), False


def _samples(rows: pd.DataFrame) -> float:
    """Of a training whose number of rows does not vary: as far beyond the last copy as that is beyond the one before."""
    taken = sorted(rows["derive.samples"].dropna().unique())
    return float(taken[-1] * (taken[-1] / taken[-2] if len(taken) > 1 else 2)) if taken else 1.0


def _panel(axes: Axes, rows: pd.DataFrame, spec: FigureSpec, name: str, theme: Theme) -> None:
    ticks = _places(rows, spec)
    varied = [path for path in spec.by if path in rows and rows[path].astype(str).nunique() > 1]
    groups = [((), rows)] if not varied else list(rows.groupby(varied, sort=False, dropna=False))
    for number, (value, part) in enumerate(groups):
        told = ", ".join(_told(path, one) for path, one in zip(varied, value, strict=True))
        _line(axes, part, name, (ticks[0].loc[part.index], *ticks[1:]), theme, number, told)
    if not name.endswith((".value", ".base")):
        axes.axhline(0, color=theme.muted, linewidth=0.9, linestyle=(0, (1, 2)), zorder=1)
    axes.set_ylabel(labels.axis(name).replace(" (", "\n("))
    _name(axes, spec, ticks, theme)


def _told(path: str, value: Any) -> str:
    last = labels.setting_names([path])[path]
    return f"{last} {'none' if _same(value, None) else labels.setting(value)}"


def _line(axes: Axes, rows: pd.DataFrame, name: str, ticks: Any, theme: Theme, number: int, label: str) -> None:
    order = np.argsort(ticks[0].to_numpy(), kind="stable")
    x, factor = ticks[0].to_numpy()[order], labels.scale(name)
    y = factor * rows[name].to_numpy(dtype=float)[order]
    colour, marker = theme.series[number % len(theme.series)], MARKERS[number % len(MARKERS)]
    joined = {} if ticks[1] is None else {"linestyle": "none"}
    nudge = 0.0 if ticks[1] is None else 0.07 * number
    axes.plot(x + nudge, y, color=colour, marker=marker, markersize=5, linewidth=1.5, label=label or None, zorder=3, **joined)
    if f"{name}_low" in rows:
        low, high = (factor * rows[f"{name}_{end}"].to_numpy(dtype=float)[order] for end in ("low", "high"))
        known = np.isfinite(low) & np.isfinite(high)
        axes.vlines((x + nudge)[known], low[known], high[known], color=colour, linewidth=1, alpha=0.55, zorder=2)


def _name(axes: Axes, spec: FigureSpec, ticks: Any, theme: Theme) -> None:
    is_metric = spec.x.partition(".")[0] == LEARNING or spec.x.endswith(("gain", "drop", "delta", "value"))
    axes.set_xlabel(labels.axis(spec.x) if is_metric else spec.x)
    if ticks[1] is not None:
        axes.set_xticks([place for place, _ in ticks[1]], [name for _, name in ticks[1]])
        axes.margins(x=0.15)
        if sum(len(name) for _, name in ticks[1]) > 28:
            for text in axes.get_xticklabels():
                text.set(rotation=30, ha="right", rotation_mode="anchor")
    elif ticks[2]:
        axes.set_xscale("log")
        found = sorted(set(ticks[0]))
        axes.set_xticks(found, [f"{one:g}" for one in found])
        axes.set_xticks([], minor=True)
    style(axes, theme)


# ---------------------------------------------------------------------- layers


def _layers(answer: Answer, rows: pd.DataFrame, spec: FigureSpec, theme: Theme) -> Figure | None:
    """How alike the hidden states are to the base's, by block; mean over sources of a trial's first seed."""
    assert answer.sweep is not None
    figure, (axes, *_) = _canvas(theme, 1)
    for number, row in enumerate(rows.to_dict("records")):
        found = list(answer.sweep.records[row["key"]].similarity.values()) if row["key"] in answer.sweep.records else []
        if not found:
            continue
        told = ", ".join(_told(path, row[path]) for path in spec.by if path in row)
        y = np.mean(found, axis=0)
        colour, marker = theme.series[number % len(theme.series)], MARKERS[number % len(MARKERS)]
        axes.plot(range(len(y)), y, color=colour, marker=marker, markersize=5, linewidth=1.5, label=told)
    if not axes.lines:
        return None
    axes.set_xlabel("block (0: embeddings)")
    axes.set_ylabel("likeness to the base (CKA)")
    axes.xaxis.get_major_locator().set_params(integer=True)
    style(axes, theme)
    _legend(figure, axes, theme)
    return figure


# ---------------------------------------------------------------------- canvas


def _canvas(theme: Theme, panels: int) -> tuple[Figure, list[Axes]]:
    across = min(panels, 2)
    down = -(-panels // across)
    width = max(_PANEL[0] * across, 5.4)
    figure = Figure(figsize=(width, _PANEL[1] * down + 0.5), dpi=160, facecolor=theme.paper)
    figure.set_layout_engine(ConstrainedLayoutEngine(w_pad=0.09, h_pad=0.09))
    FigureCanvasAgg(figure)
    found = np.atleast_1d(figure.subplots(down, across)).ravel().tolist()
    for spare in found[panels:]:
        spare.set_axis_off()
    for axes in found[:panels]:
        axes.set_facecolor(theme.paper)
    return figure, found[:panels]


def _legend(figure: Figure, axes: Axes, theme: Theme) -> None:
    handles, names = axes.get_legend_handles_labels()
    if len(handles) < 2:
        return
    legend = figure.legend(handles, names, loc="outside upper left", ncols=2, frameon=False, fontsize=8.5)
    for text in legend.get_texts():
        text.set(color=theme.ink, parse_math=False)
