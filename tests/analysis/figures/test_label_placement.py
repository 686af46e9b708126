"""Labels of points."""

import numpy as np

from analysis.figures.label_placement import Room


def overlap(one, other):
    return one[0] < other[1] and other[0] < one[1] and one[2] < other[3] and other[2] < one[3]


def test_labels_of_one_point_cover_neither_each_other_nor_the_point():
    room = Room((0, 200, 0, 200), np.array([[100.0, 100.0]]))
    for width in (20, 24, 28):
        room.put((100, 100), (width, 12))
    assert not any(overlap(one, other) for n, one in enumerate(room.boxes) for other in room.boxes[:n])
    assert not any(left <= 100 <= right and low <= 100 <= high for left, right, low, high in room.boxes)


def test_label_stays_inside_the_frame():
    room = Room((0, 200, 0, 200), np.array([[195.0, 195.0]]))
    room.put((195, 195), (40, 12))
    left, right, low, high = room.boxes[0]
    assert left >= 0 and right <= 200 and low >= 0 and high <= 200


def test_cheapest_of_the_given_moves_is_taken():
    room = Room((0, 200, 0, 200), np.array([[60.0, 100.0]]))
    assert room.put((100, 100), (30, 12), [(-40, 0), (40, 0)]) == (140, 100)
