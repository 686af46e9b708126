"""Figures of the settings' effects."""

import pytest
from matplotlib.figure import Figure

from analysis.figures.importance import _decades, _places, depended, mattered, together
from tests.factories.planted_sweeps import planted
from tests.factories.sweeps import Builder


@pytest.mark.parametrize("draw", [mattered, depended, together])
def test_too_few_trials_have_no_figure(tmp_path, draw):
    sweep = Builder(tmp_path).baseline().add((26, 37)).load()
    assert draw(planted(sweep, 5)) is None
    assert draw(planted(sweep, 60)).axes


def test_axis_is_categorical_or_logarithmic_by_its_values():
    named, wide = Figure().subplots(1, 2)
    assert [_places(named, ["a", "none"])(value) for value in ("none", None, "b")] == [1.0, 1.0, None]
    assert _places(wide, [1e-4, 1e-1])(None) is None and wide.get_xscale() == "log"
    assert len(_decades(1e-4, 1e-1)) <= 4
