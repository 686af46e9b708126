"""The plane of an inline SVG."""

import numpy as np
import pytest

from analysis.figures.svg import Plane, number, ticks


def test_corners_of_the_ranges_are_the_corners_of_the_axes():
    plane = Plane(100, 80, (10, 5, 5, 20), (0.0, 2.0), (-1.0, 1.0))
    x, y = plane.at(np.array([0.0, 2.0]), np.array([-1.0, 1.0]))
    assert x.tolist() == pytest.approx([10, 95]) and y.tolist() == pytest.approx([60, 5])


def test_ticks_are_round_and_within_the_range():
    assert ticks(0.0, 1.0, 5) == pytest.approx([0, 0.2, 0.4, 0.6, 0.8, 1.0])
    assert number(-0.5) == "\N{MINUS SIGN}0.5"
