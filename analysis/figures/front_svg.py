"""The front as an inline SVG for pointer, keyboard and touch; without script it is a picture with links.

`front.svg.j2` draws what this module places on the screen. A point carries its trial's number (data-n) and, unless there are
too many, the half axes and the angle of its 95 % ellipse (data-e); the page's script finds everything else about it in the
table of all trials.
"""

from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from markupsafe import Markup

from analysis.explore.failure_signatures import paper_point
from analysis.export.templates import HTML
from analysis.figures.label_placement import Room
from analysis.figures.scene import Bound, Scene, evenly, named, padded, scene
from analysis.figures.svg import Plane, number, ticks
from analysis.formatting import labels, numbers
from analysis.results.sweep import Sweep

ELLIPSES = 3_000  # with more finished trials, only the front's have their ellipse
LINES = 600  # at most this many trials are drawn as lines over all objectives
CLOSER = 0.5  # a closer look at the front is offered if it fills no more than this share of an axis
NEAR = 0.4  # the paper's point is in the picture if that widens an axis by no more than this share of it, at each end
NAMED = 14  # front points that are numbered in the picture
_PLANE = {"wide": (920, 540, (64, 24, 18, 56)), "narrow": (400, 420, (46, 12, 14, 52))}
_RADIUS95 = float(np.sqrt(-2 * np.log(0.05)))  # of the ellipse that holds 95 % of a bivariate normal, in standard errors
_NORMAL95 = 1.959964


@dataclass(frozen=True)
class View:
    """A scene on a plane of the screen."""

    scene: Scene
    plane: Plane
    narrow: bool
    near: bool
    paper: tuple[float, float] | None
    """The place of the paper's point, if it has one on these axes."""
    paper_inside: bool

    @property
    def places(self) -> tuple[np.ndarray, np.ndarray]:
        return self.plane.at(self.scene.x, self.scene.y)

    def of(self, mask: np.ndarray) -> "View":
        return replace(self, scene=self.scene.of(mask))


def front_svg(sweep: Sweep, pages: Collection[int], shape: str, near: bool = False) -> Markup:
    """The front as "wide" or "narrow" SVG; `pages` are the trials that have a page. Empty without a finished trial.

    With `near` only the surroundings of the front; empty if these are nearly everything.
    """
    shown = scene(sweep)
    if shown.rows.empty or (near and not _worth_a_closer_look(shown)):
        return Markup("")
    view = _view(shown, shape, near)
    plane, few = view.plane, 4 if view.narrow else 7
    ahead, rest = view.of(shown_front := view.scene.kinds == "front"), view.of(~shown_front)
    many = len(rest.scene.rows) >= 300
    shaped = len(view.scene.rows) <= ELLIPSES
    circles = _circles(rest, shaped)
    text = HTML.get_template("front.svg.j2").render(
        view=view,
        plane=plane,
        title=f"The trials of {sweep.name}: {' against '.join(name for name, _ in reversed(view.scene.names))}",
        grid=plane.grid(ticks(*plane.x, few), ticks(*plane.y, few + 1)),
        region=_region(view),
        bounds=[_bound(view, one) for one in view.scene.bounds],
        edge=list(zip(*plane.at(*view.scene.edge.T), strict=True)),
        many=many,
        groups={kind: [one for one in circles if one["kind"] == kind] for kind in ("outside", "dominated")},
        ahead=[one | _link(sweep, one["row"], pages) for one in _circles(ahead, True)],
        names=list(_names(ahead)),
        baselines=list(zip(*plane.at(*view.scene.baselines.T), strict=True)),
        paper=_paper(view),
    )
    return Markup(text)


def _worth_a_closer_look(shown: Scene) -> bool:
    ahead = shown.kinds == "front"
    if shown.single or not ahead.any():
        return False
    spans = [[high - low for low, high in one.ranges(_RADIUS95)] for one in (shown.of(ahead), shown)]
    return min(close / (whole or 1.0) for close, whole in zip(*spans, strict=True)) < CLOSER


def _view(shown: Scene, shape: str, near: bool) -> View:
    objectives = shown.sweep.objectives[:2]
    shares = None if shown.single else paper_point(objectives)
    x, y = (shown.of(shown.kinds == "front") if near else shown).ranges(_RADIUS95)
    if near:
        within = (shown.x >= x[0]) & (shown.x <= x[1]) & (shown.y >= y[0]) & (shown.y <= y[1])
        shown = shown.of(within | (shown.kinds == "front"))
    paper, inside = None, False
    if shares is not None:
        paper = (labels.scale(objectives[0].metric) * shares[0], labels.scale(objectives[1].metric) * shares[1])
        ends = list(zip(paper, (x, y), strict=True))
        inside = all(low - NEAR * (high - low) <= place <= high + NEAR * (high - low) for place, (low, high) in ends)
    if inside:
        x, y = ((min(low, place), max(high, place)) for place, (low, high) in ends)
    plane = Plane(*_PLANE[shape], padded(x, 0.06), padded(y, 0.06))
    return View(shown, plane, shape == "narrow", near, paper, inside)


def ellipse(x_error: float, y_error: float, correlation: float) -> tuple[float, float, float]:
    """The 95 % ellipse of two errors: longer half axis, shorter one, angle of the longer one (degrees, counter-clockwise).

    An unknown correlation counts as 0.
    """
    together = (0.0 if np.isnan(correlation) else correlation) * x_error * y_error
    values, vectors = np.linalg.eigh(np.array([[x_error**2, together], [together, y_error**2]]))
    longer = vectors[:, 1]
    half = _RADIUS95 * np.sqrt(np.clip(values, 0, None))
    return float(half[1]), float(half[0]), float(np.degrees(np.arctan2(longer[1], longer[0])))


def _ellipses(view: View) -> Iterator[tuple[float, float, float] | None]:
    """On the screen, where an angle turns clockwise; None for an unknown error. With one objective, a bar."""
    across, up = view.plane.scales
    shown = view.scene
    correlations = shown.rows["correlation"].to_numpy(dtype=float) if not shown.single else shown.x
    for x, y, correlation in zip(shown.x_error * across, shown.y_error * up, correlations, strict=True):
        if np.isnan(x + y):
            yield None
        elif shown.single:
            yield 2.0, _NORMAL95 * y, 0.0
        else:
            longer, shorter, angle = ellipse(x, y, correlation)
            yield longer, shorter, -angle


def _circles(view: View, shaped: bool) -> list[dict[str, Any]]:
    shapes = list(_ellipses(view)) if shaped else [None] * len(view.scene.rows)
    kinds, rows = view.scene.kinds, view.scene.rows.to_dict("records")
    return [
        {"x": f"{x:.1f}", "y": f"{y:.1f}", "row": row, "kind": kind, "ellipse": shape and [f"{one:.1f}" for one in shape]}
        for x, y, row, kind, shape in zip(*view.places, rows, kinds, shapes, strict=True)
    ]


def _link(sweep: Sweep, row: Mapping[Any, Any], pages: Collection[int]) -> dict[str, str]:
    metrics = [one.metric for one in sweep.objectives]
    values = ", ".join(f"{labels.metric_name(name)} {numbers.sentence(row, name)}" for name in metrics)
    label = f"trial {row['number']}: {values}; on the front with a probability of {numbers.probability(row['p_front'])}"
    return {"target": f"{'trial' if row['number'] in pages else 'row'}-{row['number']}", "label": label}


def _names(ahead: View) -> Iterator[tuple[float, float, str]]:
    """Trial numbers beside the points of the front; points at one place share theirs."""
    left, right, top, bottom = ahead.plane.box
    # on the screen down is positive, and a front point's circle has a radius of 6.5
    places = np.column_stack(ahead.places).round(1) * [1, -1]
    room = Room((left, right, -bottom, -top), places, scale=2.2)
    for at, text in list(named(places, ahead.scene.rows["number"]).items())[:NAMED]:
        x, y = room.put(at, (8.2 * len(text), 14))  # the browser's font is unknown: digits are at most this wide
        yield x, 5 - y, text


def _region(view: View) -> tuple[float, float, float, float] | None:
    """left, top, width and height of the area that keeps the constraints."""
    found = view.scene.region(view.plane.x, view.plane.y)
    if found is None:
        return None
    (x0, x1), (y1, y0) = view.plane.at(np.array(found[:2]), np.array(found[2:]))
    return x0, y0, x1 - x0, y1 - y0


def _bound(view: View, one: Bound) -> dict[str, Any]:
    """An edge with its name; the name of a level edge stands at its emptier end."""
    left, right, *_ = view.plane.box
    x, y = (float(place[0]) for place in view.plane.at(np.array([one.edge]), np.array([one.edge])))
    text = labels.constraint_sign(one.constraint)
    room = Room(view.plane.box, np.column_stack(view.places))
    start, end = (room.cost((at, at + 7 * len(text), y - 20, y)) for at in (left + 6, right - 4 - 7 * len(text)))
    return {"level": one.axis == "y", "x": x, "y": y, "text": text, "at_end": end <= start}


def _paper(view: View) -> dict[str, Any] | None:
    """The paper's Llama 3.2 1B; far off the picture it is drawn at the edge."""
    if view.paper is None:
        return None
    left, right, top, bottom = view.plane.box
    x, y = (float(place[0]) for place in view.plane.at(np.array([view.paper[0]]), np.array([view.paper[1]])))
    x = float(np.clip(x, left + 9, right - 9))
    parts = []
    for metric, place in zip([one.metric for one in view.scene.sweep.objectives], view.paper, strict=False):
        above = "above " if metric == "math.forgetting" else ""  # the paper's forgetting is a lower bound
        parts.append(f"{labels.metric_name(metric)} {above}{number(place)}{labels.unit(metric)}")
    title = f"paper, Llama 3.2 1B: {', '.join(parts)}"
    return {"x": x, "y": float(np.clip(y, top + 9, bottom - 9)), "at_end": x > (left + right) / 2, "title": title}


def parallel_svg(sweep: Sweep, pages: Collection[int]) -> Markup:
    """Each finished trial as a line over all objectives, better at the top. Empty with fewer than three objectives."""
    metrics = [one.metric for one in sweep.objectives]
    done = sweep.complete
    done = done[np.isfinite(done[metrics].to_numpy(dtype=float)).all(axis=1)]
    if len(metrics) < 3 or done.empty:
        return Markup("")
    low, high = (done[metrics].agg(end).to_numpy(dtype=float) for end in ("min", "max"))
    rising = np.array([one.direction == "maximize" for one in sweep.objectives])
    best, worst = np.where(rising, high, low), np.where(rising, low, high)
    across = np.linspace(70, 850, len(metrics))

    def path(values: np.ndarray) -> str:
        span = np.where(best == worst, 1.0, best - worst)
        share = np.where(best == worst, 0.5, (values - worst) / span)
        return "M" + "L".join(f"{x:.1f} {280 - 220 * one:.1f}" for x, one in zip(across, share, strict=True))

    rest, ahead = evenly(done[~done["on_front"]], LINES), done[done["on_front"]]
    shown = [[labels.percent(name, end) for name, end in zip(metrics, ends, strict=True)] for ends in (best, worst)]
    text = HTML.get_template("parallel.svg.j2").render(
        faint=[path(values) for values in rest[metrics].to_numpy(dtype=float)],
        strong=[
            (number, f"{'trial' if number in pages else 'row'}-{number}", path(values))
            for number, values in zip(ahead["number"], ahead[metrics].to_numpy(dtype=float), strict=True)
        ],
        axes=list(zip(across, map(labels.metric_name, metrics), *shown, strict=True)),
    )
    return Markup(text)
