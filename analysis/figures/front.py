"""The front as a picture, for files and for pages: all finished trials, the front, baselines and constraints."""

from collections.abc import Collection
from typing import Any

import numpy as np
from markupsafe import Markup
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Ellipse
from matplotlib.ticker import MaxNLocator
from textalloc import allocate

from analysis.explore.failure_signatures import paper_point
from analysis.figures.inline import inline
from analysis.figures.scene import NORMAL95, RADIUS95, Scene, evenly, named, scene
from analysis.figures.theme import LIGHT, WIDTH, broken, canvas, short, themed
from analysis.formatting import labels, numbers
from analysis.results.sweep import Sweep

LISTED = 10  # front points that are numbered: more would not be read
SIZES = {"wide": (WIDTH, 5.4), "narrow": (4.2, 4.8)}  # inches; the narrow one is for a phone
LOOKS: dict[str, tuple[str, dict[str, Any]]] = {
    "front": ("front", {"s": 64, "marker": "o", "color": LIGHT.front, "zorder": 6}),
    "dominated": ("dominated", {"s": 34, "marker": "s", "color": LIGHT.feasible, "zorder": 4}),
    "outside": ("outside the constraints", {"s": 46, "marker": "X", "color": LIGHT.infeasible, "zorder": 3}),
}
ARROWS = "<>v^"  # markers at the left, right, lower and upper edge


@themed
def front_figure(sweep: Sweep, shape: str = "wide", pages: Collection[int] | None = None) -> Figure:
    """All finished trials in the first two objectives (or one, by trial number), in percent, with 95 % ellipses.

    For a page, `pages` are the trials that it has a page of: marks get the URL of their trial's page or row, the page has the
    title, and the paper's own result is drawn too.
    """
    shown = scene(sweep)
    figure, (axes,) = canvas(LIGHT, SIZES[shape] if len(shown.rows) else (WIDTH, 2.4))
    if pages is None:
        figure.suptitle(short(sweep.name, 60), x=0.012, ha="left", size=13, weight="bold")
        axes.set_title(_counts(sweep), size=9, color=LIGHT.muted)
    if not len(shown.rows):
        axes.set_axis_off()
        axes.text(0.5, 0.5, _nothing(sweep), ha="center", va="center", size=13, color=LIGHT.muted, linespacing=1.6)
        return figure
    x, y = (broken(name, letters) for name, letters in zip(shown.names, (90, 56) if shape == "wide" else (46, 46), strict=True))
    axes.set(xlim=shown.window[0], ylim=shown.window[1], xlabel=x, ylabel=y)
    if shown.single:
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    _ground(axes, shown)
    _errors(axes, shown)
    names = _points(axes, shown, pages) | (_paper(axes, shown) if pages is not None else {})
    marks = sorted(zip(*axes.get_legend_handles_labels(), strict=True), key=lambda mark: -mark[0].get_zorder())
    figure.legend(
        *zip(*marks, strict=True), loc="outside lower left", ncols=2 if shape == "narrow" else 4 if len(marks) > 5 else 5
    )
    if names:
        _label(axes, shown, names)
    return figure


def front_svg(sweep: Sweep, pages: Collection[int]) -> Markup:
    """The front for a page, whose style shows the drawing that fits the screen; empty without a finished trial."""
    if not len(scene(sweep).rows):
        return Markup("")
    title = f"The trials of {sweep.name}: {' against '.join(map(labels.metric_name, _metrics(sweep)))}"
    ahead = {_url(int(row["number"]), pages): _words(sweep, row) for row in sweep.front.to_dict("records")}
    drawn = [inline(front_figure(sweep, shape, pages), f"front {shape}", title, ahead) for shape in SIZES]
    return Markup("").join(drawn)


def _metrics(sweep: Sweep) -> list[str]:
    return [one.metric for one in sweep.objectives]


def _words(sweep: Sweep, row: dict[Any, Any]) -> str:
    values = ", ".join(f"{labels.metric_name(name)} {numbers.sentence(row, name)}" for name in _metrics(sweep))
    return f"trial {row['number']}: {values}; on the front with a probability of {numbers.probability(row['p_front'])}"


def _url(number: int, pages: Collection[int]) -> str:
    return f"#{'trial' if number in pages else 'row'}-{number}"


def _counts(sweep: Sweep) -> str:
    states = sweep.states
    parts = [f"{states['complete']} finished trials"]
    if sweep.constraints and states["complete"]:
        parts.append(f"{int(sweep.trials['feasible'].sum())} within the constraints")
    if len(sweep.front):
        parts.append(f"{len(sweep.front)} on the front")
    return "  ·  ".join([*parts, *(f"{count} {state}" for state, count in states.items() if count and state != "complete")])


def _nothing(sweep: Sweep) -> str:
    """The reason for an empty figure."""
    if len(sweep.complete):
        return "Finished trials have no value for the objectives\n(is their baseline there?)"
    return "All trials failed" if 0 < len(sweep.trials) == sweep.states["failed"] else "No trial has finished yet"


def scatter_kinds(axes: Axes, places: np.ndarray, kinds: np.ndarray, urls: np.ndarray | None = None) -> None:
    """Points (n, 2) in the colour and the marker of their kind (see `scene.kinds`)."""
    for kind, (name, look) in LOOKS.items():
        if (mask := kinds == kind).any():
            drawn = axes.scatter(*places[mask].T, label=name, edgecolors=LIGHT.paper, linewidths=0.9, **look)
            drawn.set_urls([None] if urls is None else urls[mask].tolist())


def _ground(axes: Axes, shown: Scene) -> None:
    """The area that keeps the constraints, the edge of the front, and the baselines."""
    region = shown.region()
    if region is not None:
        left, right, bottom, top = region
        axes.fill_between([left, right], bottom, top, color=LIGHT.region, alpha=0.09, linewidth=0, zorder=0)
    for one in shown.bounds:
        line = axes.axhline if one.axis else axes.axvline
        line(
            one.edge, color=LIGHT.region, linewidth=1.2, linestyle=(0, (5, 3)), zorder=1,
            label=labels.constraint_sign(one.constraint),
        )  # fmt: skip
    axes.plot(*shown.edge.T, color=LIGHT.front, linewidth=1.5, alpha=0.8, label="best so far" if shown.single else None)
    if shown.single:
        for n, level in enumerate(shown.baselines[:, 1]):
            axes.axhline(level, color=LIGHT.ink, linewidth=1.2, linestyle=(0, (1, 2)), label=None if n else "baseline")
    elif len(shown.baselines):
        look: dict[str, Any] = {"s": 60, "marker": "D", "color": LIGHT.ink, "edgecolors": LIGHT.paper, "zorder": 5}
        axes.scatter(*shown.baselines.T, label="baseline", **look)


def ellipse(x_error: float, y_error: float, correlation: float) -> tuple[float, float, float]:
    """The 95 % ellipse of two errors: longer half axis, shorter one, angle of the longer one (degrees, counter-clockwise).

    An unknown correlation counts as 0.
    """
    together = (0.0 if np.isnan(correlation) else correlation) * x_error * y_error
    values, vectors = np.linalg.eigh(np.array([[x_error**2, together], [together, y_error**2]]))
    longer = vectors[:, 1]
    half = RADIUS95 * np.sqrt(np.clip(values, 0, None))
    return float(half[1]), float(half[0]), float(np.degrees(np.arctan2(longer[1], longer[0])))


def _errors(axes: Axes, shown: Scene) -> None:
    """95 % ellipses of the front's trials; with one objective, 95 % intervals of all."""
    if shown.single:
        x, y = shown.places.T
        axes.errorbar(x, y, NORMAL95 * shown.errors[:, 1], fmt="none", ecolor=LIGHT.muted, elinewidth=0.9, zorder=2)
        return
    mask = (shown.kinds == "front") & np.isfinite(shown.errors).all(axis=1)
    correlations = shown.rows["correlation"][mask]
    for place, error, correlation in zip(shown.places[mask], shown.errors[mask], correlations, strict=True):
        longer, shorter, angle = ellipse(error[0], error[1], correlation)
        # many ellipses over each other would hide all else
        for look in ({"fill": False, "alpha": 0.45}, {"linewidth": 0, "alpha": 0.5 / max(mask.sum(), 8)}):
            axes.add_patch(Ellipse(place, 2 * longer, 2 * shorter, angle=angle, color=LIGHT.front, **look))


def _points(axes: Axes, shown: Scene, pages: Collection[int] | None) -> dict[tuple[float, float], str]:
    """Draws the trials, those beyond the window as arrows at its edge; returns the labels by place."""
    low, high = shown.window.T
    at = np.clip(shown.places, low, high)
    beyond = np.column_stack([shown.places < low, shown.places > high])[:, [0, 2, 1, 3]]  # as ARROWS
    urls = np.array([pages if pages is None else _url(number, pages) for number in shown.rows["number"]])
    scatter_kinds(axes, at, np.where(beyond.any(axis=1), "", shown.kinds), urls)
    sharing: dict[tuple[float, float], dict[str, list[int]]] = {}
    for n in np.flatnonzero(beyond.any(axis=1)):
        look = LOOKS[shown.kinds[n]][1] | {"marker": ARROWS[int(np.argmax(beyond[n]))], "clip_on": False}
        axes.scatter(*at[n], label=None if sharing else "beyond the axes", **look).set_urls([urls[n]])
        row, out = shown.rows.iloc[n].to_dict(), beyond[n].reshape(2, 2).any(axis=1)[1 if shown.single else 0 :]
        values = [numbers.value(row, name) for name, far in zip(_metrics(shown.sweep), out, strict=False) if far]
        place = float(at[n, 0]), float(at[n, 1])
        sharing.setdefault(place, {}).setdefault(", ".join(values), []).append(row["number"])
    names = {place: _sharing(found) for place, found in sharing.items()}
    listed = scene(shown.sweep, evenly(shown.sweep.front, LISTED))
    return named(listed.places, listed.rows["number"]) | (names if len(names) <= LISTED else {})


def _sharing(found: dict[str, list[int]]) -> str:
    """The label of an arrow, from the numbers of its trials by their values: "#0 and 3 more: −25.0; #7: −30.0"."""
    parts = [f"#{first}{f' and {len(others)} more' if others else ''}: {text}" for text, (first, *others) in found.items()]
    rest = sum(len(numbers) for numbers in list(found.values())[2:])
    return "; ".join([*parts[:2], *([f"{rest} more"] if rest else [])])


def _paper(axes: Axes, shown: Scene) -> dict[tuple[float, float], str]:
    """Draws the paper's Llama 3.2 1B, at the edge if it is beyond the window."""
    metrics = _metrics(shown.sweep)[:2]
    found = None if shown.single else paper_point(shown.sweep.objectives[:2])
    if found is None:
        return {}
    place = np.array([labels.scale(name) * share for name, share in zip(metrics, found, strict=True)])
    at = np.clip(place, *shown.window.T)
    look: dict[str, Any] = {"s": 60, "marker": "^", "facecolors": "none", "edgecolors": LIGHT.ink, "linewidths": 1.3}
    axes.scatter(*at, label="the paper's Llama 3.2 1B", clip_on=False, **look)
    # the paper's forgetting is a lower bound
    values = [
        f"{'above ' if name == 'math.forgetting' else ''}{labels.percent(name, share)}{labels.unit(name)}"
        for name, share, far in zip(metrics, found, at != place, strict=True)
        if far
    ]
    return {(float(at[0]), float(at[1])): ": ".join(["paper", *([", ".join(values)] if values else [])])}


def _label(axes: Axes, shown: Scene, names: dict[tuple[float, float], str]) -> None:
    """Labels beside their points, where they cover least."""
    x, y = np.array(list(names)).T
    bold = ["bold" if text.startswith("#") and ":" not in text else "normal" for text in names.values()]
    lines = [shown.edge, *(_line(one.axis, one.edge, shown.window) for one in shown.bounds)]
    lines = [line for line in lines if len(line)]
    places = np.concatenate([shown.places, np.array(list(names)), *([] if shown.single else [shown.baselines])])
    places = np.clip(places, *shown.window.T)
    drawn: dict[str, Any] = {"x_lines": [line[:, 0] for line in lines], "y_lines": [line[:, 1] for line in lines]}
    allocate(
        axes, x, y, list(names.values()), x_scatter=places[:, 0], y_scatter=places[:, 1], **(drawn if lines else {}),
        textsize=9, fontweight=bold, textcolor=LIGHT.ink, linecolor=LIGHT.muted, linewidth=0.6, max_distance=0.3, zorder=8,
    )  # fmt: skip


def _line(axis: int, edge: float, window: np.ndarray) -> np.ndarray:
    """The ends (2, 2) of a bound's line."""
    ends = np.full((2, 2), edge)
    ends[:, 1 - axis] = window[1 - axis]
    return ends
