"""The figures of an ablation, drawn as its `FigureSpec`s ask: what came of the points over a setting, or over what was learnt.

Colours are Okabe and Ito's, markers differ too. A figure has no title in it; `caption` says what it shows, `numbers` holds it.
"""

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import zip_longest
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.layout_engine import ConstrainedLayoutEngine
from matplotlib.ticker import MaxNLocator, NullLocator

from analysis.ablations.answer import Answer, FigureSpec
from analysis.figures.front import LIGHT, Theme, style
from analysis.figures.sweep import MARKERS
from analysis.formatting import labels
from analysis.metrics.names import LEARNING, split_metric
from analysis.results.sweep import Sweep, read_manifest
from trials.errors import InputError

WIDTH = 7.2  # inches: letters of 9 points are still read where the picture is 500 px wide
LINES = 8  # in colour; more are not told apart, and stand behind in grey
TICKS = 8  # values of x that are ticks themselves
TURNED = 22  # letters of a name that stands aslant
STEPS = [1, 2, 2.5, 5, 10]
NAMES = {
    "data.samples": "training rows",
    "derive.samples": "training rows",
    "derive.rank": "rank that is kept",
    "derive.strength": "strength of the adapter",
    "derive.off": "switched off",
    "base.model": "base",
}
_AS_TRAINED = {"derive.samples": "data.samples", "derive.rank": "lora.rank", "derive.strength": 1.0}
"""What a point that nothing was derived from stands at: another path's value, or a number."""


@dataclass(frozen=True)
class Line:
    """Points that are joined: rows of the sweep's trials with what x is in the column "x"."""

    label: str
    rows: pd.DataFrame


@dataclass(frozen=True)
class Axis:
    """The places of what x may be: numbers as they are, all else one after the other."""

    values: tuple[Any, ...]
    numeric: bool
    log: bool
    measured: bool
    """Whether x is a metric, or names metrics."""

    def step(self, of: int) -> float:
        """How far `of` lines stand apart, their bars uncovered; of numbers too little to be read as another one."""
        if not self.numeric:
            return min(0.16, 0.7 / of)
        return 0.0 if self.measured or self.log else 0.004 * float(max(self.values) - min(self.values))

    @property
    def names(self) -> list[str]:
        """Of what is no number, in lines."""
        return [] if self.numeric else [_broken(_text(value), 14) for value in self.values]

    def turned(self, letters: int) -> bool:
        """Whether the names find no room side by side in a panel that is so many letters wide."""
        widest = max((len(line) for name in self.names for line in name.split("\n")), default=0)
        return widest + 1 > letters / len(self.values)

    def place(self, value: Any) -> float:
        return float(value) if self.numeric else float(next(n for n, one in enumerate(self.values) if _same(one, value)))


def draw(answer: Answer, spec: FigureSpec, theme: Theme = LIGHT) -> Figure | None:
    """The figure, or None where the sweep has nothing to show in it."""
    if spec.kind == "layers":
        return _layers(answer, spec, theme)
    found, metrics = lines(answer, spec), _measured(answer, spec)
    if not found or not metrics:
        return None
    axis = _axis(spec, found)
    if spec.kind == "metrics":
        return _metrics(found, metrics, theme)
    if spec.kind == "classes":
        return _classes(answer, spec, found, metrics, axis, theme)
    columns = _columns(len(metrics), len(found) > 1 or axis.turned(_letters(3)))
    letters = _letters(columns)
    figure, panels = _canvas(theme, len(metrics), columns, len(found) > 1, axis.turned(letters))
    for metric, axes in zip(metrics, panels, strict=True):
        for n, line in enumerate(found):
            _line(axes, axis, line, metric, n, len(found), theme, labels.scale(metric))
        axes.set_title(_broken(_metric(metric), letters - (TURNED // 2 if axis.turned(letters) else 0)), **_words(theme))
        _reference(axes, found, metric, theme)
        _ticks(axes, axis, spec, letters, theme)
    _legend(figure, panels, len(found), theme)
    return figure


def caption(answer: Answer, spec: FigureSpec) -> str:
    """What the figure shows, in words."""
    if spec.kind == "layers":
        return (
            "Hidden states on held-out rows against the base's, layer by layer from the embeddings on (linear CKA): 1 is "
            "alike. Means over sources and seeds."
        )
    seeds = f" and {answer.seeds} seeds" if answer.seeds > 1 else ""
    parts = [f"Bars are 95 % intervals over documents{seeds}."]
    found = lines(answer, spec)
    levels = [_base_level(found, name) for name in _measured(answer, spec)]
    if 0.0 in levels:
        parts.append("The line at 0 is the base.")
    if any(levels):
        parts.append("The dashed line is the base.")
    if spec.kind == "lines" and len(found) > LINES:
        parts.append(f"The first {LINES} of {len(found)} groups are in colour, the others grey.")
    return " ".join(parts)


def numbers(answer: Answer, spec: FigureSpec) -> list[dict[str, Any]]:
    """What is drawn, in the metrics' own units: per line its points, or its similarities by layer."""
    if spec.kind == "layers":
        return [{"line": name, "similarity": values.tolist()} for name, values in _similarities(answer, spec)]
    metrics = _measured(answer, spec)
    return [
        {"line": line.label, "points": [_point(row, metrics) for row in line.rows.to_dict("records")]}
        for line in lines(answer, spec)
    ]


def _point(row: dict[Any, Any], metrics: Sequence[str]) -> dict[str, Any]:
    ends = {"value": "", "low": "_low", "high": "_high"}
    return {"x": row["x"]} | {name: {told: row[f"{name}{end}"] for told, end in ends.items()} for name in metrics}


# ---------------------------------------------------------------------- what is shown


def lines(answer: Answer, spec: FigureSpec) -> list[Line]:
    """A line for each combination of what `by` may be; with more of them than are told apart, for each setting that is varied.

    Rows that lack a path of `by` (nothing replayed has no source) begin every line, where x is a setting with an order.
    """
    rows = _rows(answer, spec)
    if rows.empty:
        return []
    groups: dict[tuple[str, ...], list[Any]] = {}
    for index, row in rows.iterrows():
        groups.setdefault(tuple(_key(row[path]) for path in spec.by), []).append(index)
    if len(groups) > LINES and (families := _families(rows, spec.by)):
        return [Line(name, rows.loc[places]) for name, places in families.items()]
    found = {key: rows.loc[places] for key, places in groups.items()}
    lacking = [key for key, group in found.items() if any(_null(group[path].iloc[0]) for path in spec.by)]
    if 0 < len(lacking) < len(found) and not _is_metric(spec.x) and _ordered(rows["x"]):
        shared = pd.concat([found.pop(key) for key in lacking])
        found = {key: pd.concat([shared, group]) for key, group in found.items()}
    several = [path for path in spec.by if len({_key(value) for value in rows[path]}) > 1]
    return [Line(", ".join(_value(path, group[path].iloc[-1]) for path in several), group) for group in found.values()]


def _rows(answer: Answer, spec: FigureSpec) -> pd.DataFrame:
    """The complete rows that `only` leaves, in order of x where that has one; derived ones where the figure is about these."""
    if answer.sweep is None:
        return pd.DataFrame()
    trials = answer.sweep.trials
    rows = trials[trials["state"] == "complete"]
    for path in [spec.x, *spec.by, *spec.only]:
        if path not in rows:  # the same in all points: what the trials were asked for says it
            rows = rows.assign(**{path: [_setting(answer.sweep, key, path) for key in rows["key"]]})
    asked = dict(spec.only)
    for path in ("derive.off", "derive.samples", "derive.rank", "derive.strength"):
        if path in rows and path not in (spec.x, *spec.by, *asked):
            asked[path] = [None, 1.0] if path == "derive.strength" else None
    for path, wanted in asked.items():
        several = wanted if isinstance(wanted, (list, tuple)) else [wanted]
        rows = rows[np.array([any(_same(value, one) for one in several) for value in rows[path]], dtype=bool)]
    rows = rows.assign(
        x=pd.Series([_x(answer.sweep, row, spec.x) for row in rows.to_dict("records")], rows.index, dtype=object)
    )
    if _is_metric(spec.x):
        rows = rows[~rows["x"].map(_null)]
    if len(rows) and _ordered(rows["x"]):
        rows = rows.sort_values("x", key=lambda column: column.astype(float), kind="stable")
    return rows


def _x(sweep: Sweep, row: dict[Any, Any], path: str) -> Any:
    value = row[path]
    if not _null(value) or path not in _AS_TRAINED:
        return None if _null(value) else value
    trained = _AS_TRAINED[path]
    if not isinstance(trained, str):
        return trained
    if not _null(row.get(trained)):
        return row[trained]
    return _setting(sweep, row["key"], trained)


def _setting(sweep: Sweep, key: str, path: str) -> Any:
    """From a trial's spec; None of what it does not have."""
    found: Any = sweep.records[key].spec
    for name in path.split("."):
        found = getattr(found, name, None)
    return found


def _families(rows: pd.DataFrame, by: Sequence[str]) -> dict[str, list[Any]]:
    """Rows by the one path of `by` in which they differ from what is usual; empty where some differ in several."""
    usual = {path: rows[path].map(_key).mode().iloc[0] for path in by}
    found: dict[str, list[Any]] = {}
    for index, row in rows.iterrows():
        other = [path for path in by if _key(row[path]) != usual[path]]
        if len(other) > 1:
            return {}
        found.setdefault(path_name(other[0]) if other else "none of these", []).append(index)
    return found


def _measured(answer: Answer, spec: FigureSpec) -> list[str]:
    """Those of `y` that the shown rows have a value of."""
    rows = _rows(answer, spec)
    return [name for name in spec.y if name in rows and rows[name].notna().any()]


def _axis(spec: FigureSpec, found: Sequence[Line]) -> Axis:
    values = [value for line in found for value in line.rows["x"]]
    numeric = _ordered(values)
    distinct: list[Any] = []
    for value in values:
        if not any(_same(value, one) for one in distinct):
            distinct.append(value)
    return Axis(
        tuple(sorted(distinct) if numeric else sorted(distinct, key=lambda one: one is not None)),
        numeric,
        spec.log,
        _is_metric(spec.x),
    )


def _similarities(answer: Answer, spec: FigureSpec) -> list[tuple[str, np.ndarray]]:
    """Per line its name and its similarities, of shape (layers,)."""
    sweep, by = answer.sweep, spec.by or (spec.x,)
    rows = _rows(answer, spec)
    if sweep is None or rows.empty:
        return []
    keys = {trial.number: trial.keys for trial in read_manifest(sweep.folder).trials}
    several = [path for path in by if len({_key(value) for value in rows[path]}) > 1] or list(by)
    found: dict[str, list[list[float]]] = {}
    for row in rows.to_dict("records"):
        name = ", ".join(_value(path, row[path]) for path in several)
        records = [sweep.records[key] for key in keys[row["number"]] if key in sweep.records]
        found.setdefault(name, []).extend(one for record in records for one in record.similarity.values())
    layers = {len(one) for ones in found.values() for one in ones}
    return [(name, np.mean(ones, axis=0)) for name, ones in found.items() if ones] if len(layers) == 1 else []


# ---------------------------------------------------------------------- pieces


def _classes(
    answer: Answer, spec: FigureSpec, found: Sequence[Line], metrics: Sequence[str], axis: Axis, theme: Theme
) -> Figure:
    """Metrics of one role and unit as lines of one panel; of several lines the rows are one."""
    figure, (axes,) = _canvas(theme, 1, 1, True)
    whole = Line("", pd.concat([line.rows for line in found]))
    for n, metric in enumerate(metrics):
        _line(axes, axis, Line(_class(metric), whole.rows), metric, n, len(metrics), theme, labels.scale(metric))
    axes.set_title(_broken(_shared([_metric(name) for name in metrics]), _letters(1)), **_words(theme))
    _reference(axes, [whole], metrics[0], theme)
    _ticks(axes, axis, spec, _letters(1), theme)
    _legend(figure, [axes], len(metrics), theme)
    return figure


def _metrics(found: Sequence[Line], metrics: Sequence[str], theme: Theme) -> Figure:
    """Metrics of one unit side by side in one panel."""
    axis = Axis(tuple(labels.metric_name(name) for name in metrics), numeric=False, log=False, measured=True)
    figure, (axes,) = _canvas(theme, 1, 1, len(found) > 1, axis.turned(_letters(1)))
    ends = ("", "_low", "_high")
    for n, line in enumerate(found):
        # a row for each point and metric, under the name that the one panel draws
        parts = [line.rows[[f"{name}{end}" for end in ends]].set_axis([f"y{end}" for end in ends], axis=1) for name in metrics]
        rows = pd.concat([part.assign(x=name) for part, name in zip(parts, axis.values, strict=True)], ignore_index=True)
        _line(axes, axis, Line(line.label, rows), "y", n, len(found), theme, labels.scale(metrics[0]))
    axes.set_title(_metric(metrics[0]).partition("(")[2].rstrip(")"), **_words(theme))
    _reference(axes, found, metrics[0], theme)
    _names(axes, axis, _letters(1))
    _legend(figure, [axes], len(found), theme)
    return figure


def _layers(answer: Answer, spec: FigureSpec, theme: Theme) -> Figure | None:
    found = _similarities(answer, spec)
    if not found:
        return None
    figure, (axes,) = _canvas(theme, 1, 1, len(found) > 1)
    for n, (name, values) in enumerate(found):
        colour, marker = _look(n, theme)
        axes.plot(
            np.arange(len(values)), values, color=colour, marker=marker, markersize=5, linewidth=1.7, label=name, zorder=3
        )
    axes.axhline(1, color=theme.muted, linewidth=0.9, zorder=1)
    axes.set_title("likeness of the hidden states to the base's (linear CKA)", **_words(theme))
    axes.set_xlabel("layer (0: the embeddings)", color=theme.ink, size=9.5)
    axes.xaxis.set_major_locator(MaxNLocator(10, integer=True))
    _legend(figure, [axes], len(found), theme)
    return figure


def _line(axes: Axes, axis: Axis, line: Line, metric: str, n: int, of: int, theme: Theme, factor: float) -> None:
    """Points with their intervals, joined through the mean of those at the same x."""
    rows = line.rows[line.rows[metric].notna()]
    if rows.empty:
        return
    aside = axis.step(of) * (n - (of - 1) / 2)
    x = np.array([axis.place(value) for value in rows["x"]])
    y, low, high = (factor * rows[f"{metric}{end}"].to_numpy(dtype=float) for end in ("", "_low", "_high"))
    errors = np.nan_to_num(np.array([y - low, high - y])).clip(min=0)
    colour, marker = _look(n, theme)
    strength = 1.0 if n < LINES else 0.5
    axes.errorbar(
        x + aside, y, errors, fmt=marker, color=colour, markersize=5.5, markeredgecolor=theme.paper, markeredgewidth=0.7,
        elinewidth=1.1, capsize=2.5, alpha=strength, zorder=3 if n < LINES else 2, label=line.label if n < LINES else None,
    )  # fmt: skip
    if len(set(x)) > 1 and (axis.numeric or (of > 1 and not axis.measured)):
        places = np.unique(x)
        means = [y[x == place].mean() for place in places]
        axes.plot(places + aside, means, color=colour, linewidth=1.5, alpha=0.75 * strength, zorder=2)


def _reference(axes: Axes, found: Sequence[Line], metric: str, theme: Theme) -> None:
    level = _base_level(found, metric)
    if level is not None:
        look = {"linestyle": (0, (5, 3)), "linewidth": 1.1} if level else {"linewidth": 0.9}
        axes.axhline(labels.scale(metric) * level, color=theme.muted, zorder=1, **look)


def _base_level(found: Sequence[Line], metric: str) -> float | None:
    """Where the base is: at 0 of a difference, at its own score of a score; None where the rows have several bases."""
    role, kind = split_metric(metric)
    if kind == "value":
        own = {round(float(one), 12) for line in found for one in line.rows[f"{role}.base"].dropna()}
        return own.pop() if len(own) == 1 else None
    return 0.0 if kind.endswith(("gain", "drop", "forgetting", "delta", "kl")) else None


def _ticks(axes: Axes, axis: Axis, spec: FigureSpec, letters: int, theme: Theme) -> None:
    """In a panel that is so many letters wide."""
    axes.set_xlabel(_axis_name(spec.x), color=theme.ink, size=9.5, parse_math=False)
    axes.yaxis.set_major_locator(MaxNLocator(6, steps=STEPS))
    if not axis.numeric:
        _names(axes, axis, letters)
        return
    axes.margins(x=0.06)
    if axis.log:
        _logarithmic(axes, axis, letters)
    elif len(axis.values) == 1:
        axes.set_xticks(axis.values, [_text(axis.values[0])])
    else:
        axes.xaxis.set_major_locator(MaxNLocator(letters // 6, steps=STEPS))


def _names(axes: Axes, axis: Axis, letters: int) -> None:
    texts = axis.names
    look: dict[str, Any] = {}
    if axis.turned(letters):
        texts = [text if len(text) <= TURNED else f"{text[: TURNED - 1]}…" for text in map(_text, axis.values)]
        look = {"rotation": 40, "ha": "right", "rotation_mode": "anchor"}
    axes.set_xticks(range(len(texts)), texts, parse_math=False, **look)
    axes.set_xlim(-0.6, len(texts) - 0.4)


def _logarithmic(axes: Axes, axis: Axis, letters: int) -> None:
    """A zero stands at the left end; of values that are ticks those that would cover the one before are left out."""
    above = [float(value) for value in axis.values if value > 0]
    if not above:
        return
    if min(axis.values) > 0:
        axes.set_xscale("log")
    else:
        axes.set_xscale("symlog", linthresh=min(above), linscale=0.6)
    values = [float(value) for value in axis.values]
    places = axes.transData.transform([(value, 0.0) for value in values])[:, 0]
    if len(values) <= TICKS:
        shown: list[int] = []
        for n in range(len(values)):
            room = 0.5 * (len(_text(axis.values[n])) + len(_text(axis.values[shown[-1]])) + 2) / letters if shown else 0.0
            if not shown or places[n] - places[shown[-1]] > room * (places[-1] - places[0]):
                shown.append(n)
        axes.set_xticks([values[n] for n in shown], [_text(axis.values[n]) for n in shown])
    axes.xaxis.set_minor_locator(NullLocator())
    if values[0] == values[-1]:
        return
    low, high = (axes.transData.transform((end, 0.0))[0] for end in (values[0], values[-1]))  # ticks have moved them
    edge = 0.06 * (high - low)
    inverse = axes.transData.inverted()
    axes.set_xlim(inverse.transform((low - edge, 0))[0], inverse.transform((high + edge, 0))[0])


def _columns(panels: int, narrow: bool) -> int:
    """Three panels side by side leave no room for a legend or for long names."""
    return panels if panels < 3 or (panels == 3 and not narrow) else 2


def _letters(columns: int) -> int:
    """How many letters of a tick's size are as wide as a panel."""
    return int((72 * WIDTH / columns - 40) / 5.4)


def _canvas(theme: Theme, panels: int, columns: int, keyed: bool, turned: bool = False) -> tuple[Figure, list[Axes]]:
    rows = math.ceil(panels / columns)
    figure = Figure(
        figsize=(WIDTH, 0.3 + (3.4 if turned else 2.75) * rows + 0.3 * (keyed and panels < 3)), dpi=200, facecolor=theme.paper,
        layout=ConstrainedLayoutEngine(w_pad=0.08, h_pad=0.08),
    )  # fmt: skip
    FigureCanvasAgg(figure)
    found = [figure.add_subplot(rows, columns, place + 1) for place in range(panels)]
    for axes in found:
        style(axes, theme)
    return figure, found


def _legend(figure: Figure, panels: Sequence[Axes], several: int, theme: Theme) -> None:
    """In the place that three panels leave free, else above them."""
    handles, names = _keys(panels)
    if several < 2 or not names:
        return
    look: dict[str, Any] = {"frameon": False, "fontsize": 9, "labelcolor": theme.ink, "handletextpad": 0.4}
    if len(panels) == 3:
        free = figure.add_subplot(2, 2, 4)
        free.set_axis_off()
        legend = free.legend(handles, names, loc="upper left", **look)
    else:
        columns = max(1, min(len(names), 92 // (max(map(len, names)) + 6)))
        legend = figure.legend(handles, names, loc="outside upper left", ncols=columns, columnspacing=1.4, **look)
    for text in legend.get_texts():
        text.set_parse_math(False)


def _keys(panels: Sequence[Axes]) -> tuple[list[Any], list[str]]:
    """Of all panels: a line may be missing in the first."""
    found: dict[str, tuple[int, Any]] = {}
    for axes in panels:
        for n, (handle, name) in enumerate(zip(*axes.get_legend_handles_labels(), strict=True)):
            found.setdefault(name, (n, handle))
    return [handle for _, handle in found.values()], list(found)


def _look(n: int, theme: Theme) -> tuple[str, str]:
    if n >= LINES:
        return theme.muted, "."
    return (*theme.series, theme.muted)[n], (*MARKERS, "*")[n]


def _words(theme: Theme) -> dict[str, Any]:
    return {"size": 9.5, "color": theme.ink, "loc": "left", "parse_math": False}


# ---------------------------------------------------------------------- names


def path_name(path: str) -> str:
    """A setting as people call it: "replay share" for data.replay.share."""
    return NAMES.get(path, " ".join(path.split(".")[1:] or [path]).replace("_", " "))


def _axis_name(x: str) -> str:
    return _metric(x) if _is_metric(x) else path_name(x)


def _metric(name: str) -> str:
    """With its unit."""
    return labels.axis(name).removeprefix(f"{LEARNING} ").replace("percentage points", "points")


def _is_metric(name: str) -> bool:
    try:
        split_metric(name)
    except InputError:
        return False
    return True


def _class(metric: str) -> str:
    """ "digits" of math.gold_bpb_digit_delta."""
    kind = split_metric(metric)[1]
    part = kind.removeprefix("gold_bpb_").removesuffix("_delta")
    return "all" if part == kind or part == "delta" else part if part == "format" else f"{part}s"


def _shared(texts: Sequence[str]) -> str:
    """The words that all begin with, and those that all end with."""
    if len(texts) == 1:
        return texts[0]
    words = [text.split(" (")[0].replace("'s", "").replace(",", " ,").split() for text in texts]
    columns = zip_longest(*words)
    start = [column[0] for column in columns if len(set(column)) == 1]
    unit = texts[0].partition(" (")[2]
    return " ".join(start).replace(" ,", ",") + (f" ({unit}" if unit else "")


def _value(path: str, value: Any) -> str:
    """A setting of a line: numbers with their name, texts alone."""
    if _null(value):
        return f"no {path_name(path).split()[-1]}"
    if isinstance(value, (bool, np.bool_)) or not isinstance(value, str):
        return f"{path_name(path)} {_text(value)}"
    return _text(value)


def _text(value: Any) -> str:
    if _null(value):
        return "none"
    if isinstance(value, np.generic):
        value = value.item()
    return labels.setting(value).rsplit("/", 1)[-1]


def _broken(text: str, width: int) -> str:
    """In lines; a unit in brackets stays whole."""
    found = [""]
    for word in re.findall(r"\([^)]*\)|\S+", text):
        if found[-1] and len(found[-1]) + 1 + len(word) > width:
            found.append("")
        found[-1] = f"{found[-1]} {word}".strip()
    return "\n".join(found)


# ---------------------------------------------------------------------- values


def _null(value: Any) -> bool:
    return value is None or (isinstance(value, (float, np.floating)) and math.isnan(value))


def _number(value: Any) -> bool:
    return isinstance(value, (int, float, np.number)) and not isinstance(value, bool) and not _null(value)


def _ordered(values: Any) -> bool:
    return all(_number(value) for value in values)


def _same(value: Any, wanted: Any) -> bool:
    if _null(value) or _null(wanted):
        return _null(value) and _null(wanted)
    if _number(value) and _number(wanted):
        return bool(np.isclose(value, wanted, rtol=1e-6, atol=0))
    return type(value) is type(wanted) and bool(value == wanted)


def _key(value: Any) -> str:
    return "" if _null(value) else f"{float(value):.9g}" if _number(value) else str(value)
