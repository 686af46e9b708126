"""Where a text goes on a picture so that it covers least: other texts, points, lines, and what is outside the axes."""

from collections.abc import Sequence
from itertools import pairwise

import numpy as np
from matplotlib.axes import Axes
from matplotlib.text import Annotation
from matplotlib.transforms import Bbox

GAPS = (4, 9, 15)  # typographic points between a point and its label, tried in this order


class Room:
    """What is taken already within `axes`: places (k, 2) and boxes, both on the screen."""

    def __init__(self, axes: Axes, places: Sequence[np.ndarray]):
        """`places` are in data coordinates, (k, 2) each."""
        self.axes = axes
        self.places = axes.transData.transform(np.concatenate(places))
        self.boxes: list[Bbox] = []
        self.scale = axes.figure.dpi / 72

    def take(self, places: np.ndarray) -> None:
        """More places (k, 2), in data coordinates."""
        self.places = np.concatenate([self.places, self.axes.transData.transform(places)])

    def put(self, text: Annotation, moves: Sequence[tuple[float, float]]) -> None:
        """Moves `text` to the cheapest of `moves` (typographic points from what it annotates) and takes that place."""
        scale = self.scale
        box = text.get_window_extent()
        start = np.array(text.get_position())
        shifts = [(np.array(move) - start) * scale for move in moves]
        costs = [
            self.cost(box.translated(*shift)) + 0.05 * float(np.hypot(*move)) for shift, move in zip(shifts, moves, strict=True)
        ]
        text.set_position(moves[int(np.argmin(costs))])
        self.boxes.append(text.get_window_extent())

    def cost(self, box: Bbox) -> float:
        """What a text in `box` would cover: other text weighs most, then leaving the axes, then points and lines."""
        around = box.padded(4.0)
        covered = ((self.places > around.min) & (self.places < around.max)).all(axis=1).sum()
        frame = self.axes.bbox
        outside = not (frame.x0 <= box.x0 and box.x1 <= frame.x1 and frame.y0 <= box.y0 and box.y1 <= frame.y1)
        return 100.0 * sum(around.overlaps(other) for other in self.boxes) + 50.0 * outside + float(covered)


def around(text: Annotation, scale: float) -> list[tuple[float, float]]:
    """Moves of a centred text to the places around the point it annotates, the nearest and most usual first.

    `scale` is the dots of a typographic point.
    """
    box = text.get_window_extent()
    width, height = box.width / scale, box.height / scale
    sides = [(1, 1), (-1, 1), (1, -1), (-1, -1), (0, 1), (0, -1), (1, 0), (-1, 0)]
    return [(across * (width / 2 + gap), up * (height / 2 + gap)) for gap in GAPS for across, up in sides]


def whiskers(x: np.ndarray, y: np.ndarray, x_error: np.ndarray | None, y_error: np.ndarray) -> np.ndarray:
    """Places (k, 2) on the points and along their whiskers; arguments are (n,)."""
    steps = np.linspace(-1, 1, 11)[:, None]
    found = [np.stack(np.broadcast_arrays(x, y + steps * y_error), axis=-1)]
    if x_error is not None:
        found.append(np.stack(np.broadcast_arrays(x + steps * x_error, y), axis=-1))
    return np.concatenate(found).reshape(-1, 2)


def along(corners: np.ndarray, parts: int = 40) -> np.ndarray:
    """Places (k, 2) along a line through `corners` (n, 2)."""
    steps = np.linspace(0, 1, parts)[:, None]
    return np.concatenate([corners[:1], *(start + steps * (end - start) for start, end in pairwise(corners))])


def stairs(x: np.ndarray, y: np.ndarray, where: str) -> np.ndarray:
    """The corners (2n - 1, 2) of matplotlib's step line through points (n,), `where` being "pre" or "post"."""
    corners = np.repeat(np.column_stack([x, y]), 2, axis=0)[:-1]
    if where == "pre":
        corners[1::2, 1] = y[1:]
    else:
        corners[1::2, 0] = x[1:]
    return corners
