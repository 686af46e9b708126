"""The figure of the law of the mix."""

import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg

from analysis.figures.mix import answered, data
from analysis.figures.sweep import FIGURES
from tests.factories.mixed_sweeps import mixed


def test_each_law_is_a_panel_with_its_curve_and_its_trainings(builder):
    sweep = mixed(builder, lambda share: 39 - 15 * np.exp(-8 * share))
    figure = answered(sweep)
    assert len(figure.axes) == 2
    assert figure.axes[1].get_legend().get_texts()[0].get_text() == "math forgetting ≤ 10 %"
    FigureCanvasAgg(figure).draw()
    whole = figure.get_tightbbox()  # of everything that is drawn, in inches
    assert whole.x0 >= 0 and whole.y0 >= 0
    assert whole.x1 <= figure.get_figwidth() and whole.y1 <= figure.get_figheight()
    drawn = data(sweep)
    assert drawn["number"].notna().sum() == 2 * len(sweep.trials)
    assert "mix" in FIGURES


def test_sweep_without_a_law_has_no_figure(usual):
    assert answered(usual.load()) is None
