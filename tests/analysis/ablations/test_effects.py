"""Effects of ablations."""

import numpy as np

from analysis.ablations.cells import Cells
from analysis.ablations.effects import estimate, spline, unbeaten
from analysis.results.load import load
from tests.factories.worlds import planned, replay_does_nothing, run


def test_curve_leaves_out_beaten_points():
    learned = np.array([[1.0, 1.2], [2.0, 2.0], [3.0, 2.8], [0.5, 0.5]])
    lost = np.array([[0.3, 0.3], [0.2, 0.2], [0.4, 0.4], [0.1, 0.1]])  # the first forgets more than the second, and learns less
    assert unbeaten(np.array([0, 1, 2]), learned, lost).tolist() == [1, 2]
    assert unbeaten(np.array([3, 1, 2]), learned, lost).tolist() == [3, 1, 2]


def test_more_seeds_do_not_lower_the_floor_of_documents(tmp_path):
    floors = []
    for seeds in (2, 5):
        one = planned("n1", seeds=seeds)
        run(one, replay_does_nothing, tmp_path / str(seeds))
        cells = Cells(load(tmp_path / str(seeds) / one.config.name))
        floors.append(estimate(cells, "own", one.ablation.questions[2].effects["own"]).floor)
    assert floors[0] == floors[1] > 0


def test_spline_has_a_piece_for_six_points():
    assert [spline(np.arange(count, dtype=float)).shape[1] for count in (5, 12, 18, 60)] == [2, 3, 4, 4]
