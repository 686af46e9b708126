"""The front as an inline SVG that answers to pointer, keyboard and finger; without script it is still a picture with links.

A point is a circle that carries its trial's number (data-n) and, where there is room for it, the half axes and the angle of its
95 % ellipse (data-e); what is said of it is read by the page's script from the table of all trials.
"""

from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from markupsafe import Markup

from analysis.explore.failure_signatures import paper_point
from analysis.figures.front import evenly
from analysis.figures.scene import Bound, Scene, padded, scene
from analysis.figures.svg import Plane, number, ticks
from analysis.formatting import labels
from analysis.formatting import numbers as told
from analysis.results.sweep import Sweep

ELLIPSES = 3_000  # above so many finished trials only the front's have their ellipse
LINES = 600  # at most so many trials are drawn as lines over all objectives
CLOSER = 0.5  # a closer look at the front is offered if it fills no more than this share of an axis
NEAR = 0.4  # the paper's point is in the picture if that widens an axis by no more than this share of it, at each end
NAMED = 14  # front points that are numbered in the picture
_PLANE = {"wide": (920, 540, (64, 24, 18, 56)), "narrow": (400, 420, (46, 12, 14, 52))}
_RADIUS95 = float(np.sqrt(-2 * np.log(0.05)))  # of the ellipse that holds 95 % of a bivariate normal, in standard errors
_NORMAL95 = 1.959964
_ABOVE = "above "  # the paper's forgetting is a lower bound


@dataclass(frozen=True)
class View:
    """A scene on a plane of the screen."""

    scene: Scene
    plane: Plane
    narrow: bool
    paper: tuple[float, float] | None
    """The place of the paper's point, if it has one on these axes."""
    paper_inside: bool

    @property
    def places(self) -> tuple[np.ndarray, np.ndarray]:
        return self.plane.at(self.scene.x, self.scene.y)

    def of(self, mask: np.ndarray) -> "View":
        return View(self.scene.of(mask), self.plane, self.narrow, self.paper, self.paper_inside)


def front_svg(sweep: Sweep, pages: Collection[int], shape: str, near: bool = False) -> Markup:
    """`shape` is "wide" or "narrow", `pages` are the trials that have a page. Empty where no finished trial has a place.

    With `near` only the surroundings of the front; empty where these are nearly all there is.
    """
    shown = scene(sweep)
    if shown.rows.empty or (near and not _worth_a_closer_look(shown)):
        return Markup("")
    view = _view(shown, shape, near)
    plane, few = view.plane, 4 if view.narrow else 7
    parts = [
        _region(view),
        plane.grid(ticks(*plane.x, few), ticks(*plane.y, few + 1)),
        _bounds(view),
        _edge(view),
        Markup('<g class="ellipses">{}</g>').format(Markup("").join(_front_ellipses(view))),
        _points(view),
        _baselines(view),
        _front_points(view, pages),
        _paper(view),
        _axis_names(view),
    ]
    kind = f"{'narrow' if view.narrow else 'wide-shape'}{' near' if near else ''}"
    name = f"The trials of {sweep.name}: {' against '.join(labels.axis(one.metric) for one in reversed(sweep.objectives[:2]))}"
    return Markup('<svg class="front {}" viewBox="0 0 {:g} {:g}" role="group" aria-label="{}">{}</svg>').format(
        kind, plane.width, plane.height, name, Markup("").join(parts)
    )


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
    return View(shown, Plane(*_PLANE[shape], padded(x, 0.06), padded(y, 0.06)), shape == "narrow", paper, inside)


def ellipse(x_error: float, y_error: float, correlation: float) -> tuple[float, float, float]:
    """Half axes, the longer first, and the angle (degrees, counter-clockwise) of the longer one, of the 95 % ellipse of two
    errors; an unknown correlation counts as 0."""
    together = (0.0 if np.isnan(correlation) else correlation) * x_error * y_error
    values, vectors = np.linalg.eigh(np.array([[x_error**2, together], [together, y_error**2]]))
    longer = vectors[:, 1]
    half = _RADIUS95 * np.sqrt(np.clip(values, 0, None))
    return float(half[1]), float(half[0]), float(np.degrees(np.arctan2(longer[1], longer[0])))


def _ellipses(view: View) -> list[tuple[float, float, float] | None]:
    """On the screen, where an angle turns clockwise; None where an error is unknown. With one objective a bar."""
    across, up = view.plane.scales
    shown = view.scene
    if shown.single:
        return [None if np.isnan(error) else (2.0, _NORMAL95 * error * up, 0.0) for error in shown.y_error]
    found: list[tuple[float, float, float] | None] = []
    correlations = shown.rows["correlation"].to_numpy(dtype=float)
    for x, y, correlation in zip(shown.x_error * across, shown.y_error * up, correlations, strict=True):
        longer, shorter, angle = (np.nan,) * 3 if np.isnan(x + y) else ellipse(x, y, correlation)
        found.append(None if np.isnan(x + y) else (longer, shorter, -angle))
    return found


def _front_ellipses(view: View) -> Iterator[Markup]:
    ahead = view.of(view.scene.kinds == "front")
    shape = Markup('<ellipse rx="{:.1f}" ry="{:.1f}" transform="translate({:.1f} {:.1f}) rotate({:.1f})"/>')
    for x, y, found in zip(*ahead.places, _ellipses(ahead), strict=True):
        if found is not None:
            yield shape.format(max(found[0], 0.5), max(found[1], 0.5), x, y, found[2])


def _circles(view: View, radius: float, shaped: bool) -> list[Markup]:
    """Each with its trial's number and, if `shaped`, its ellipse."""
    shapes = _ellipses(view) if shaped else [None] * len(view.scene.rows)
    found = []
    for x, y, trial, shape in zip(*view.places, view.scene.rows["number"], shapes, strict=True):
        beside = "" if shape is None else f' data-e="{shape[0]:.1f} {shape[1]:.1f} {shape[2]:.1f}"'
        found.append(Markup(f'<circle cx="{x:.1f}" cy="{y:.1f}" r="{radius}" data-n="{trial}"{beside}/>'))
    return found


def _points(view: View) -> Markup:
    """Those that are not on the front; many of them are smaller and fainter."""
    many = (view.scene.kinds != "front").sum() >= 300
    shaped = len(view.scene.rows) <= ELLIPSES
    groups = [
        Markup('<g class="{}">{}</g>').format(
            f"{kind}{' many' if many else ''}",
            Markup("").join(_circles(view.of(view.scene.kinds == kind), 2.6 if many else 4.2, shaped)),
        )
        for kind in ("outside", "dominated")
    ]
    return Markup("").join(groups)


def _front_points(view: View, pages: Collection[int]) -> Markup:
    ahead = view.of(view.scene.kinds == "front")
    link = Markup('<a href="#{}-{}" aria-label="trial {}: {}; on the front with a probability of {}">{}</a>')
    found = []
    for row, circle in zip(ahead.scene.rows.to_dict("records"), _circles(ahead, 6.5, True), strict=True):
        objectives = ahead.scene.sweep.objectives
        said = ", ".join(f"{labels.metric_name(one.metric)} {told.sentence(row, one.metric)}" for one in objectives)
        page, chance = "trial" if row["number"] in pages else "row", told.probability(row["p_front"])
        found.append(link.format(page, row["number"], row["number"], said, chance, circle))
    return Markup('<g class="onfront">{}{}</g>').format(Markup("").join(found), Markup("").join(_numbers(ahead)))


def _numbers(ahead: View) -> Iterator[Markup]:
    """Trial numbers beside the points of the front, where there is room; points at one place share theirs."""
    at_place: dict[tuple[float, float], list[int]] = {}
    for x, y, trial in zip(*ahead.places, ahead.scene.rows["number"], strict=True):
        at_place.setdefault((round(float(x), 1), round(float(y), 1)), []).append(trial)
    left, right, top, bottom = ahead.plane.box
    taken = [(x - 7, x + 7, y - 7, y + 7) for x, y in at_place]
    for (x, y), numbers in list(at_place.items())[:NAMED]:
        text = " ".join(f"#{one}" for one in numbers[:3]) + (" …" if len(numbers) > 3 else "")
        wide = 8.2 * len(text)
        for dx, dy in ((9, -9), (-9 - wide, -9), (9, 18), (-9 - wide, 18), (-wide / 2, -13), (-wide / 2, 23)):
            box = (x + dx, x + dx + wide, y + dy - 11, y + dy + 2)
            free = not any(a < box[1] and box[0] < b and c < box[3] and box[2] < d for a, b, c, d in taken)
            if free and left <= box[0] and box[1] <= right and top <= box[2] and box[3] <= bottom:
                taken.append(box)
                yield Markup('<text x="{:.1f}" y="{:.1f}">{}</text>').format(x + dx, y + dy, text)
                break


def _region(view: View) -> Markup:
    found = view.scene.region(view.plane.x, view.plane.y)
    if found is None:
        return Markup("")
    (x0, x1), (y1, y0) = view.plane.at(np.array(found[:2]), np.array(found[2:]))
    shape = Markup('<rect class="region" x="{:.1f}" y="{:.1f}" width="{:.1f}" height="{:.1f}"/>')
    return shape.format(x0, y0, x1 - x0, y1 - y0)


def _bounds(view: View) -> Markup:
    return Markup('<g class="bounds">{}</g>').format(Markup("").join(_bound(view, one) for one in view.scene.bounds))


def _bound(view: View, one: Bound) -> Markup:
    """An edge with its name: of a level one at the emptier end."""
    left, right, top, bottom = view.plane.box
    x, y = (float(place[0]) for place in view.plane.at(np.array([one.edge]), np.array([one.edge])))
    text = labels.constraint_sign(one.constraint)
    if one.axis == "x":
        place = Markup('transform="translate({:.1f} {:.1f}) rotate(-90)" class="e"').format(x - 6, top + 4)
        return Markup('<path d="M{:.1f} {:g}V{:g}"/><text {}>{}</text>').format(x, top, bottom, place, text)
    wide = 7 * len(text)
    at_end = _crowd(view, (right - wide, right), (y - 20, y)) <= _crowd(view, (left, left + wide), (y - 20, y))
    place = Markup('x="{:.1f}" y="{:.1f}" class="{}"').format(right - 4 if at_end else left + 6, y - 6, "e" if at_end else "s")
    return Markup('<path d="M{:g} {:.1f}H{:g}"/><text {}>{}</text>').format(left, y, right, place, text)


def _crowd(view: View, across: tuple[float, float], up: tuple[float, float]) -> int:
    """How many points lie in that part of the drawing."""
    x, y = view.places
    return int(((x > across[0] - 6) & (x < across[1] + 6) & (y > up[0] - 6) & (y < up[1] + 6)).sum())


def _edge(view: View) -> Markup:
    corners = view.scene.edge
    if not len(corners):
        return Markup("")
    places = zip(*view.plane.at(*corners.T), strict=True)
    return Markup('<path class="edge" d="M{}"/>').format("L".join(f"{x:.1f} {y:.1f}" for x, y in places))


def _baselines(view: View) -> Markup:
    left, right, *_ = view.plane.box
    level = '<path d="M{left:g} {y:.1f}H{right:g}"/><text x="{text:g}" y="{above:.1f}">baseline</text>'
    mark = '<path class="mark" d="M{x:.1f} {top:.1f}l7 7l-7 7l-7-7z"><title>baseline</title></path>'
    shape = level if view.scene.single else mark
    found = [
        shape.format(left=left, right=right, text=left + 6, x=x, y=y, above=y - 6, top=y - 7)
        for x, y in zip(*view.plane.at(*view.scene.baselines.T), strict=True)
    ]
    return Markup(f'<g class="baseline">{"".join(found)}</g>')


def _paper(view: View) -> Markup:
    """The paper's Llama 3.2 1B; where it lies far off, at the edge, with an arrow that says so in words."""
    if view.paper is None:
        return Markup("")
    left, right, top, bottom = view.plane.box
    x, y = (float(place[0]) for place in view.plane.at(np.array([view.paper[0]]), np.array([view.paper[1]])))
    x, y = float(np.clip(x, left + 9, right - 9)), float(np.clip(y, top + 9, bottom - 9))
    at_end = x > (left + right) / 2
    parts = []
    for metric, place in zip([one.metric for one in view.scene.sweep.objectives], view.paper, strict=False):
        above = _ABOVE if metric == "math.forgetting" else ""
        parts.append(f"{labels.metric_name(metric)} {above}{number(place)}{labels.unit(metric)}")
    said = f"paper, Llama 3.2 1B: {', '.join(parts)}"
    beside = "paper" if view.paper_inside else "paper, off the picture"
    return Markup(
        '<g class="paper"><path class="mark" d="M{:.1f} {:.1f}l7 12h-14z"><title>{}</title></path>'
        '<text x="{:.1f}" y="{:.1f}" class="{}">{}</text></g>'
    ).format(x, y - 8, said, x + (-11 if at_end else 11), y + 4, "e" if at_end else "s", beside)


def _axis_names(view: View) -> Markup:
    left, right, top, bottom = view.plane.box
    (x, x_way), (y, y_way) = view.scene.names
    return Markup(
        '<g class="names"><text x="{0}" y="{1}">{2}</text><text x="{3}" y="{1}" class="e way">{4}</text>'
        '<text transform="translate({5} {6}) rotate(-90)">{7}</text>'
        '<text transform="translate({5} {8}) rotate(-90)" class="e way">{9}</text></g>'
    ).format(left, view.plane.height - 10, x, right, x_way, 10 if view.narrow else 14, bottom, y, top, y_way)


def parallel_svg(sweep: Sweep, pages: Collection[int]) -> Markup:
    """With more than two objectives: each finished trial as a line over all of them, better at the top. Empty otherwise."""
    metrics = [one.metric for one in sweep.objectives]
    done = sweep.complete
    done = done[np.isfinite(done[metrics].to_numpy(dtype=float)).all(axis=1)]
    if len(metrics) < 3 or done.empty:
        return Markup("")
    rest, ahead = evenly(done[~done["on_front"]], LINES), done[done["on_front"]]
    values = done[metrics].to_numpy(dtype=float)
    low, high = values.min(axis=0), values.max(axis=0)
    places = np.linspace(70, 850, len(metrics))

    def path(row: dict[Any, float]) -> str:
        return "L".join(
            f"{x:.1f} {_height(sweep, at, row[name], low, high):.1f}"
            for at, (x, name) in enumerate(zip(places, metrics, strict=True))
        )

    faint = "".join(f'<path d="M{path(row)}"/>' for row in rest[metrics].to_dict("records"))
    strong = Markup("").join(
        Markup('<a href="#{}-{}" aria-label="trial {}"><path d="M{}" data-n="{}"/></a>').format(
            "trial" if row["number"] in pages else "row", row["number"], row["number"], path(row), row["number"]
        )
        for row in ahead.to_dict("records")
    )
    return Markup(
        '<svg class="parallel" viewBox="0 0 920 340" role="group" aria-label="All objectives of each finished trial">'
        '<g class="faint">{}</g><g class="strong">{}</g>{}</svg>'
    ).format(Markup(faint), strong, _axes(sweep, places, low, high))


def _height(sweep: Sweep, at: int, value: float, low: Sequence[float], high: Sequence[float]) -> float:
    share = (value - low[at]) / (high[at] - low[at]) if high[at] > low[at] else 0.5
    return 280 - 220 * (share if sweep.objectives[at].direction == "maximize" else 1 - share)


def _axes(sweep: Sweep, places: np.ndarray, low: np.ndarray, high: np.ndarray) -> Markup:
    found = []
    for at, (x, one) in enumerate(zip(places, sweep.objectives, strict=True)):
        best, worst = (high[at], low[at]) if one.direction == "maximize" else (low[at], high[at])
        anchor = "m" if 0 < at < len(places) - 1 else "s" if at == 0 else "e"
        name_x = x if anchor == "m" else x - 60 if at == 0 else x + 60
        found.append(
            Markup(
                '<path d="M{0:.1f} 60V280"/><text x="{1:.1f}" y="24" class="{2} name">{3}</text>'
                '<text x="{0:.1f}" y="48" class="m">{4}</text><text x="{0:.1f}" y="302" class="m">{5}</text>'
            ).format(
                x, name_x, anchor, labels.metric_name(one.metric), *(labels.percent(one.metric, end) for end in (best, worst))
            )
        )
    return Markup('<g class="axes">{}</g>').format(Markup("").join(found))
