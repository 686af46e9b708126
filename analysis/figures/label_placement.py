"""Places a text on a picture where it covers least: other texts, points, lines, and what is outside the axes."""

from collections.abc import Sequence

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
        self.scale = axes.figure.dpi / 72  # dots of a typographic point

    def put(self, text: Annotation, moves: Sequence[tuple[float, float]]) -> None:
        """Moves `text` to the cheapest of `moves` (typographic points from what it annotates) and takes that place."""
        box = text.get_window_extent()
        start = np.array(text.get_position())
        shifts = [(np.array(move) - start) * self.scale for move in moves]
        far = [0.05 * float(np.hypot(*move)) for move in moves]
        costs = [self.cost(box.translated(*shift)) + one for shift, one in zip(shifts, far, strict=True)]
        text.set_position(moves[int(np.argmin(costs))])
        self.boxes.append(text.get_window_extent())

    def cost(self, box: Bbox) -> float:
        """The cost of a text in `box`: covered text weighs most, then leaving the axes, then points and lines."""
        around = box.padded(4.0)
        covered = ((self.places > around.min) & (self.places < around.max)).all(axis=1).sum()
        frame = self.axes.bbox
        outside = not (frame.x0 <= box.x0 and box.x1 <= frame.x1 and frame.y0 <= box.y0 and box.y1 <= frame.y1)
        return 100.0 * sum(around.overlaps(other) for other in self.boxes) + 50.0 * outside + float(covered)

    def around(self, text: Annotation) -> list[tuple[float, float]]:
        """Moves of a centred text to the places around the point it annotates, the nearest and most usual first."""
        box = text.get_window_extent()
        width, height = box.width / self.scale, box.height / self.scale
        sides = [(1, 1), (-1, 1), (1, -1), (-1, -1), (0, 1), (0, -1), (1, 0), (-1, 0)]
        return [(across * (width / 2 + gap), up * (height / 2 + gap)) for gap in GAPS for across, up in sides]
