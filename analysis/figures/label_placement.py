"""Places the label of a point where it covers least: other labels, points, lines, and the outside of the axes."""

from collections.abc import Sequence
from itertools import product

import numpy as np

Box = tuple[float, float, float, float]
"""left, right, and the smaller and the larger y."""
GAPS = (4, 9, 15)  # typographic points between a point and its label, tried in this order
SIDES = ((1, 1), (-1, 1), (1, -1), (-1, -1), (0, 1), (0, -1), (1, 0), (-1, 0))  # the most usual first
# a covered label cannot be read, a label outside of the axes may be cut off, a covered point can still be seen
COVERED, OUTSIDE, FAR = 100.0, 50.0, 0.05


class Room:
    """The free room within a frame of the screen, whose unit is `scale` to a typographic point."""

    def __init__(self, frame: Box, taken: np.ndarray, scale: float = 1.0):
        """`taken` are places (k, 2) that a label should leave visible."""
        self.frame, self.taken, self.scale = frame, taken, scale
        self.boxes: list[Box] = []

    def put(
        self, at: tuple[float, float], size: tuple[float, float], moves: Sequence[tuple[float, float]] = ()
    ) -> tuple[float, float]:
        """The best centre of a label of (width, height) for the point `at`: around it, or at one of `moves` from it.

        The label takes that place.
        """
        moves = moves or [
            (across * (size[0] / 2 + gap * self.scale), up * (size[1] / 2 + gap * self.scale))
            for gap, (across, up) in product(GAPS, SIDES)
        ]
        costs = [self.cost(_box(at, move, size)) + FAR / self.scale * float(np.hypot(*move)) for move in moves]
        best = moves[int(np.argmin(costs))]
        self.boxes.append(_box(at, best, size))
        return at[0] + best[0], at[1] + best[1]

    def cost(self, box: Box) -> float:
        margin = 4.0
        left, right, low, high = box[0] - margin, box[1] + margin, box[2] - margin, box[3] + margin
        x, y = self.taken.T
        covered = ((x > left) & (x < right) & (y > low) & (y < high)).sum()
        overlaps = sum(left < b and a < right and low < d and c < high for a, b, c, d in self.boxes)
        inside = self.frame[0] <= box[0] and box[1] <= self.frame[1] and self.frame[2] <= box[2] and box[3] <= self.frame[3]
        return COVERED * overlaps + OUTSIDE * (not inside) + float(covered)


def _box(at: tuple[float, float], move: tuple[float, float], size: tuple[float, float]) -> Box:
    x, y = at[0] + move[0], at[1] + move[1]
    return x - size[0] / 2, x + size[0] / 2, y - size[1] / 2, y + size[1] / 2
