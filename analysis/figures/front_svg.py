"""The front as an inline SVG that answers to pointer, keyboard and finger; without script it is still a picture with links.

A point is a circle that carries its trial's number (data-n) and, where there is room for it, the half axes and the angle of its
95 % ellipse (data-e); what is said of it is read by the page's script from the table of all trials.
"""

from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
from markupsafe import Markup

from analysis.explore.failure_signatures import paper_point
from analysis.figures.front import baseline_places, coordinates, front_line
from analysis.figures.svg import Plane, number, ticks
from analysis.formatting import labels
from analysis.formatting import numbers as told
from analysis.metrics.names import Constraint
from analysis.results.sweep import Sweep
from analysis.stats import pareto

ELLIPSES = 3_000  # above so many finished trials only the front's have their ellipse
LINES = 600  # at most so many trials are drawn as lines over all objectives
CLOSER = 0.5  # a closer look at the front is offered if it fills no more than this share of an axis
NEAR = 0.4  # the paper's point is in the picture if that widens an axis by no more than this share of it, at each end
NAMED = 14  # front points that are numbered in the picture
_PLANE = {"wide": (920, 540, (64, 24, 18, 56)), "narrow": (400, 420, (46, 12, 14, 52))}
_RADIUS95 = float(np.sqrt(-2 * np.log(0.05)))  # of the ellipse that holds 95 % of a bivariate normal, in standard errors
_NORMAL95 = 1.959964


@dataclass(frozen=True)
class Scene:
    """What is drawn, in the unit of the axes."""

    sweep: Sweep
    shown: pd.DataFrame
    plane: Plane
    narrow: bool
    paper: tuple[float, float] | None
    paper_inside: bool


def front_svg(sweep: Sweep, pages: Collection[int], shape: str, near: bool = False) -> Markup:
    """`shape` is "wide" or "narrow", `pages` are the trials that have a page. Empty where no finished trial has a place.

    With `near` only the surroundings of the front; empty where these are nearly all there is.
    """
    shown = _shown(sweep)
    if shown.empty or (near and not _worth_a_closer_look(sweep, shown)):
        return Markup("")
    scene = _scene(sweep, shown, shape, near)
    plane = scene.plane
    few = 7 if not scene.narrow else 4
    parts = [
        _region(scene),
        plane.grid(ticks(*plane.x, few), ticks(*plane.y, few + 1)),
        _bounds(scene),
        _line(scene),
        Markup('<g class="ellipses">{}</g>').format(Markup("").join(_front_ellipses(scene))),
        _points(scene),
        _baseline(scene),
        _front_points(scene, pages),
        _paper(scene),
        _axis_names(scene),
    ]
    name = f"The trials of {sweep.name}: {' against '.join(labels.axis(one.metric) for one in reversed(sweep.objectives[:2]))}"
    return Markup('<svg class="front {}" viewBox="0 0 {:g} {:g}" role="group" aria-label="{}">{}</svg>').format(
        f"{'narrow' if scene.narrow else 'wide-shape'}{' near' if near else ''}",
        plane.width,
        plane.height,
        name,
        Markup("").join(parts),
    )


def _shown(sweep: Sweep) -> pd.DataFrame:
    done = sweep.trials[sweep.trials["state"] == "complete"]
    plotted = done[[one.metric for one in sweep.objectives[:2]]].to_numpy(dtype=float)
    return done[np.isfinite(plotted).all(axis=1)]


def _worth_a_closer_look(sweep: Sweep, shown: pd.DataFrame) -> bool:
    if len(sweep.objectives) < 2 or not shown["on_front"].any():
        return False
    spans = [[high - low for low, high in _ranges(sweep, rows)] for rows in (shown[shown["on_front"]], shown)]
    return min(close / (whole or 1.0) for close, whole in zip(*spans, strict=True)) < CLOSER


def _scene(sweep: Sweep, shown: pd.DataFrame, shape: str, near: bool) -> Scene:
    width, height, margins = _PLANE[shape]
    shares = paper_point(sweep.objectives[:2]) if len(sweep.objectives) > 1 else None
    paper = None
    if shares is not None:
        scaled = [labels.scale(one.metric) * share for one, share in zip(sweep.objectives, shares, strict=False)]
        paper = (scaled[0], scaled[1])
    x_range, y_range = _ranges(sweep, shown[shown["on_front"]] if near else shown)
    if near:
        x, y = coordinates(sweep, shown)
        within = (x >= x_range[0]) & (x <= x_range[1]) & (y >= y_range[0]) & (y <= y_range[1])
        shown = shown[within | shown["on_front"]]
    inside = paper is not None
    for place, (low, high) in zip(paper or (), (x_range, y_range), strict=False):
        inside &= low - NEAR * (high - low) <= place <= high + NEAR * (high - low)
    if inside and paper is not None:
        x_range, y_range = (
            (min(low, place), max(high, place)) for place, (low, high) in zip(paper, (x_range, y_range), strict=True)
        )
    plane = Plane(width, height, margins, _padded(*x_range), _padded(*y_range))
    return Scene(sweep, shown, plane, shape == "narrow", paper, inside)


def _ranges(sweep: Sweep, shown: pd.DataFrame) -> tuple[tuple[float, float], tuple[float, float]]:
    """Of x and y: all points, the front's ellipses, the baseline, and the bounds."""
    x, y = coordinates(sweep, shown)
    ends = [[*x], [*y]]
    x_error, y_error = _errors(sweep, shown)
    on_front = shown["on_front"].to_numpy(dtype=bool)
    base = baseline_places(sweep)
    for along, (places, error) in enumerate(((x, x_error), (y, y_error))):
        reach = _RADIUS95 * np.nan_to_num(error[on_front])
        ends[along] += [*(places[on_front] - reach), *(places[on_front] + reach)]
    for plotted, objective in enumerate(sweep.objectives[:2]):
        along = plotted if len(sweep.objectives) > 1 else 1
        ends[along] += [place for place in base[:, plotted] if np.isfinite(place)]
        ends[along] += [labels.scale(one.metric) * one.bound for one in sweep.constraints if one.metric == objective.metric]
    return (min(ends[0]), max(ends[0])), (min(ends[1]), max(ends[1]))


def _padded(low: float, high: float) -> tuple[float, float]:
    margin = 0.06 * (high - low) if high > low else 1.0
    return low - margin, high + margin


def _errors(sweep: Sweep, rows: pd.DataFrame) -> tuple[np.ndarray, np.ndarray]:
    """Standard errors (n,) each in the axes' unit; NaN where unknown. With one objective those of x are 0."""
    found = [labels.scale(one.metric) * rows[f"{one.metric}_se"].to_numpy(dtype=float) for one in sweep.objectives[:2]]
    return (np.zeros(len(rows)), found[0]) if len(found) == 1 else (found[0], found[1])


def ellipse(x_error: float, y_error: float, correlation: float) -> tuple[float, float, float]:
    """Half axes, the longer first, and the angle (degrees, counter-clockwise) of the longer one, of the 95 % ellipse of two
    errors; an unknown correlation counts as 0."""
    together = (0.0 if np.isnan(correlation) else correlation) * x_error * y_error
    values, vectors = np.linalg.eigh(np.array([[x_error**2, together], [together, y_error**2]]))
    longer = vectors[:, 1]
    half = _RADIUS95 * np.sqrt(np.clip(values, 0, None))
    return float(half[1]), float(half[0]), float(np.degrees(np.arctan2(longer[1], longer[0])))


def _ellipses(scene: Scene, rows: pd.DataFrame) -> list[tuple[float, float, float] | None]:
    """On the screen, where an angle turns clockwise; None where an error is unknown. With one objective a bar."""
    across, up = scene.plane.scales
    x_error, y_error = _errors(scene.sweep, rows)
    if len(scene.sweep.objectives) == 1:
        return [None if np.isnan(error) else (2.0, _NORMAL95 * error * up, 0.0) for error in y_error]
    found: list[tuple[float, float, float] | None] = []
    for one, other, correlation in zip(x_error * across, y_error * up, rows["correlation"].to_numpy(dtype=float), strict=True):
        if np.isnan(one) or np.isnan(other):
            found.append(None)
        else:
            longer, shorter, angle = ellipse(one, other, correlation)
            found.append((longer, shorter, -angle))
    return found


def _front_ellipses(scene: Scene) -> Iterator[Markup]:
    rows = scene.shown[scene.shown["on_front"]]
    for x, y, shape in zip(*_places(scene, rows), _ellipses(scene, rows), strict=True):
        if shape is not None:
            yield Markup(
                '<ellipse rx="{:.1f}" ry="{:.1f}" transform="translate({:.1f} {:.1f}) rotate({:.1f})"/>'
            ).format(max(shape[0], 0.5), max(shape[1], 0.5), x, y, shape[2])  # fmt: skip


def _places(scene: Scene, rows: pd.DataFrame) -> tuple[np.ndarray, np.ndarray]:
    return scene.plane.at(*coordinates(scene.sweep, rows))


def _data(row_number: int, shape: tuple[float, float, float] | None) -> str:
    beside = "" if shape is None else f' data-e="{shape[0]:.1f} {shape[1]:.1f} {shape[2]:.1f}"'
    return f'data-n="{row_number}"{beside}'


def _points(scene: Scene) -> Markup:
    """Those that are not on the front; many of them are smaller and fainter."""
    found = []
    rest = ~scene.shown["on_front"].to_numpy(dtype=bool)
    feasible = scene.shown["feasible"].to_numpy(dtype=bool)
    radius = 4.2 if rest.sum() < 300 else 2.6
    for kind, mask in (("outside", rest & ~feasible), ("dominated", rest & feasible)):
        rows = scene.shown[mask]
        shapes = _ellipses(scene, rows) if len(scene.shown) <= ELLIPSES else [None] * len(rows)
        circles = [
            f'<circle cx="{x:.1f}" cy="{y:.1f}" r="{radius}" {_data(number_, shape)}/>'
            for x, y, number_, shape in zip(*_places(scene, rows), rows["number"], shapes, strict=True)
        ]
        many = " many" if rest.sum() >= 300 else ""
        found.append(f'<g class="{kind}{many}">{"".join(circles)}</g>')
    return Markup("".join(found))


def _front_points(scene: Scene, pages: Collection[int]) -> Markup:
    rows = scene.shown[scene.shown["on_front"]]
    found = []
    shapes = _ellipses(scene, rows)
    for row, x, y, shape in zip(rows.to_dict("records"), *_places(scene, rows), shapes, strict=True):
        number_ = row["number"]
        said = ", ".join(f"{labels.metric_name(one.metric)} {told.sentence(row, one.metric)}" for one in scene.sweep.objectives)
        found.append(
            Markup('<a href="#{}-{}" aria-label="trial {}: {}; on the front with a probability of {}">').format(
                "trial" if number_ in pages else "row", number_, number_, said, told.probability(row["p_front"])
            )
            + Markup(f'<circle cx="{x:.1f}" cy="{y:.1f}" r="6.5" {_data(number_, shape)}/></a>')
        )
    return Markup('<g class="onfront">{}{}</g>').format(Markup("").join(found), Markup("").join(_numbers(scene, rows)))


def _numbers(scene: Scene, rows: pd.DataFrame) -> Iterator[Markup]:
    """Trial numbers beside the points of the front, where there is room; points at one place share theirs."""
    at_place: dict[tuple[float, float], list[int]] = {}
    for x, y, number_ in zip(*_places(scene, rows), rows["number"], strict=True):
        at_place.setdefault((round(float(x), 1), round(float(y), 1)), []).append(number_)
    left, right, top, bottom = scene.plane.box
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


def _region(scene: Scene) -> Markup:
    """Shades where every constraint on a plotted metric holds."""
    plane, sweep = scene.plane, scene.sweep
    edges = {"x": list(plane.x), "y": list(plane.y)}
    bound = False
    for along, one, edge in _plotted_bounds(sweep):
        side, tighter = (1, min) if one.op == "<=" else (0, max)
        edges[along][side] = tighter(edges[along][side], edge)
        bound = True
    if not bound or edges["x"][0] >= edges["x"][1] or edges["y"][0] >= edges["y"][1]:
        return Markup("")
    (x0, x1), (y1, y0) = plane.at(np.array(edges["x"]), np.array(edges["y"]))
    return Markup('<rect class="region" x="{:.1f}" y="{:.1f}" width="{:.1f}" height="{:.1f}"/>').format(
        x0, y0, x1 - x0, y1 - y0
    )


def _plotted_bounds(sweep: Sweep) -> Iterator[tuple[str, Constraint, float]]:
    """(axis, constraint, where its edge is) of the constraints on plotted metrics."""
    for plotted, objective in enumerate(sweep.objectives[:2]):
        for one in sweep.constraints:
            if one.metric == objective.metric:
                yield ("xy"[plotted] if len(sweep.objectives) > 1 else "y"), one, labels.scale(one.metric) * one.bound


def _bounds(scene: Scene) -> Markup:
    left, right, top, bottom = scene.plane.box
    found = []
    for along, one, edge in _plotted_bounds(scene.sweep):
        x, y = (float(place[0]) for place in scene.plane.at(np.array([edge]), np.array([edge])))
        path = f"M{left:g} {y:.1f}H{right:g}" if along == "y" else f"M{x:.1f} {top:g}V{bottom:g}"
        text = labels.constraint_sign(one)
        at_end = _crowd(scene, (right - 7 * len(text), right), (y - 20, y)) <= _crowd(
            scene, (left, left + 7 * len(text)), (y - 20, y)
        )
        place = Markup('x="{:.1f}" y="{:.1f}" class="{}"').format(
            right - 4 if at_end else left + 6, y - 6, "e" if at_end else "s"
        )
        if along == "x":
            place = Markup('transform="translate({:.1f} {:.1f}) rotate(-90)" class="e"').format(x - 6, top + 4)
        found.append(Markup('<path d="{}"/><text {}>{}</text>').format(path, place, text))
    return Markup('<g class="bounds">{}</g>').format(Markup("").join(found))


def _crowd(scene: Scene, across: tuple[float, float], up: tuple[float, float]) -> int:
    """How many points lie in that part of the drawing."""
    x, y = _places(scene, scene.shown)
    return int(((x > across[0] - 6) & (x < across[1] + 6) & (y > up[0] - 6) & (y < up[1] + 6)).sum())


def _line(scene: Scene) -> Markup:
    """The edge of what the front's points dominate, as they are shown; with one objective the best so far."""
    rows = scene.shown
    if len(scene.sweep.objectives) == 2 and rows["on_front"].any():
        points = pareto.orient(
            rows[[one.metric for one in scene.sweep.objectives]].to_numpy(dtype=float), scene.sweep.objectives
        )
        # with halves the search's other half has chosen the front: of what is shown some of it may be dominated
        rows = rows.assign(on_front=pareto.front(points, rows["on_front"].to_numpy(dtype=bool)))
    corners = front_line(scene.sweep, rows)
    if not len(corners):
        return Markup("")
    places = zip(*scene.plane.at(corners[:, 0], corners[:, 1]), strict=True)
    return Markup('<path class="edge" d="M{}"/>').format("L".join(f"{x:.1f} {y:.1f}" for x, y in places))


def _baseline(scene: Scene) -> Markup:
    places = baseline_places(scene.sweep)
    places = places[np.isfinite(places).all(axis=1)]
    left, right, *_ = scene.plane.box
    if len(scene.sweep.objectives) == 1:
        levels = scene.plane.at(np.zeros(len(places)), places[:, 0])[1]
        lines = "".join(
            f'<path d="M{left:g} {y:.1f}H{right:g}"/><text x="{left + 6:g}" y="{y - 6:.1f}">baseline</text>' for y in levels
        )
        return Markup(f'<g class="baseline">{lines}</g>')
    across = zip(*scene.plane.at(places[:, 0], places[:, 1]), strict=True)
    marks = "".join(
        f'<path class="mark" d="M{x:.1f} {y - 7:.1f}l7 7l-7 7l-7-7z"><title>baseline</title></path>' for x, y in across
    )
    return Markup(f'<g class="baseline">{marks}</g>')


def _paper(scene: Scene) -> Markup:
    """The paper's Llama 3.2 1B; where it lies far off, at the edge, with an arrow that says so in words."""
    if scene.paper is None:
        return Markup("")
    left, right, top, bottom = scene.plane.box
    x, y = (float(place[0]) for place in scene.plane.at(np.array([scene.paper[0]]), np.array([scene.paper[1]])))
    x, y = float(np.clip(x, left + 9, right - 9)), float(np.clip(y, top + 9, bottom - 9))
    beside = "paper" if scene.paper_inside else "paper, off the picture"
    at_end = x > (left + right) / 2
    told_of = [
        (
            labels.metric_name(one.metric),
            "above " if one.metric == "math.forgetting" else "",
            number(place),
            labels.unit(one.metric),
        )
        for one, place in zip(scene.sweep.objectives, scene.paper, strict=False)
    ]
    said = ", ".join(f"{name} {above}{place}{unit}" for name, above, place, unit in told_of)
    return Markup(
        '<g class="paper"><path class="mark" d="M{:.1f} {:.1f}l7 12h-14z"><title>{}</title></path>'
        '<text x="{:.1f}" y="{:.1f}" class="{}">{}</text></g>'
    ).format(x, y - 8, f"paper, Llama 3.2 1B: {said}", x + (-11 if at_end else 11), y + 4, "e" if at_end else "s", beside)


def _axis_names(scene: Scene) -> Markup:
    left, right, top, bottom = scene.plane.box
    names = [labels.axis(one.metric) for one in scene.sweep.objectives[:2]]
    ways = ["better →" if one.direction == "maximize" else "← better" for one in scene.sweep.objectives[:2]]
    if len(names) == 1:
        names, ways = ["trial", *names], ["", *ways]
    aside = 14 if not scene.narrow else 10
    return Markup(
        '<g class="names"><text x="{0}" y="{1}">{2}</text><text x="{3}" y="{1}" class="e way">{4}</text>'
        '<text transform="translate({5} {6}) rotate(-90)">{7}</text>'
        '<text transform="translate({5} {8}) rotate(-90)" class="e way">{9}</text></g>'
    ).format(left, scene.plane.height - 10, names[0], right, ways[0], aside, bottom, names[1], top, ways[1])


def parallel_svg(sweep: Sweep, pages: Collection[int]) -> Markup:
    """With more than two objectives: each finished trial as a line over all of them, better at the top. Empty otherwise."""
    metrics = [one.metric for one in sweep.objectives]
    done = sweep.trials[sweep.trials["state"] == "complete"]
    done = done[np.isfinite(done[metrics].to_numpy(dtype=float)).all(axis=1)]
    if len(metrics) < 3 or done.empty:
        return Markup("")
    rest, ahead = done[~done["on_front"]], done[done["on_front"]]
    rest = rest.iloc[np.unique(np.linspace(0, max(len(rest) - 1, 0), min(LINES, len(rest))).round().astype(int))]
    values = done[metrics].to_numpy(dtype=float)
    low, high = values.min(axis=0), values.max(axis=0)
    places = np.linspace(70, 850, len(metrics))

    def path(row: dict[str, float]) -> str:
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
