"""Every figure of every sweep is whole or not drawn, and has a caption and data."""

import dataclasses
from xml.etree import ElementTree

import numpy as np
import pandas as pd
import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg

from analysis.figures.sweep import FIGURES
from analysis.figures.theme import png, svg
from analysis.stats import pareto
from tests.factories.planted_sweeps import planted, two_bases
from tests.factories.sweeps import FOUR, NAMED, NASTY, OBJECTIVES, SITUATIONS, Builder

LEARNT = {"shop": {"tokens": 10.0, "loss": 1.0, "base_loss": 2.0, "kl": 0.3, "reverse_kl": 0.2}}


@pytest.fixture
def sweep(tmp_path):
    return Builder(tmp_path).baseline().add((26, 37)).load()


def judged(sweep):
    """With what `load` derives of the metrics."""
    frame = sweep.trials
    for name in (*sweep.judged, "learning.gain"):
        frame[f"{name}_se"] = 0.01
        frame[f"{name}_search"] = frame.get(name, np.nan)
    frame["feasible"] = frame["math.forgetting_search"] <= 0.1
    points = pareto.orient(frame[[f"{one.metric}_search" for one in sweep.objectives]].to_numpy(dtype=float), sweep.objectives)
    frame["front_rank"] = pareto.ranks(points, frame["feasible"].to_numpy(dtype=bool))
    frame["on_front"] = frame["front_rank"] == 0
    return sweep


def full(sweep, n=60):
    """A sweep that every figure has something of; bases, settings and names are whatever a text may be."""
    found = two_bases(sweep)
    rng = np.random.default_rng(0)
    frame = found.trials.iloc[rng.integers(0, len(found.trials), n)].reset_index(drop=True)
    frame["number"] = np.arange(n)
    for name in ("learning.gain", "commonsense.gain"):
        frame[name] += rng.normal(0, 0.02, n)
    frame["math.forgetting"] += rng.normal(0, 0.05, n)
    frame["math.format_forgetting"] = rng.uniform(-0.1, 0.3, n)
    frame["math.skill_forgetting"] = frame["math.forgetting"] - frame["math.format_forgetting"]
    frame[["math.format_forgetting_se", "math.skill_forgetting_se"]] = 0.01
    frame["baseline"] = [NASTY if one == "b" else one for one in frame["baseline"]]
    frame["train.schedule"] = [NASTY if one == "linear" else one for one in frame["train.schedule"]]
    metrics = (*found.metrics, "math.format_forgetting", "math.skill_forgetting")
    return judged(dataclasses.replace(found, trials=frame, metrics=metrics))


def assert_whole(figure):
    FigureCanvasAgg(figure).draw()
    drawn = figure.get_tightbbox()  # of everything that is drawn, in inches
    assert drawn.x0 >= 0 and drawn.y0 >= 0
    assert drawn.x1 <= figure.get_figwidth() and drawn.y1 <= figure.get_figheight()


# the law of the mix needs a sweep of mixes: test_mix.py
@pytest.mark.parametrize("name", [name for name in FIGURES if name not in ("objectives", "mix")])
def test_every_figure_is_whole_with_data_and_caption(sweep, name):
    found = full(sweep)
    figure = FIGURES[name].draw(found)
    assert_whole(figure)
    assert len(FIGURES[name].data(found))
    assert FIGURES[name].caption(found).endswith(".")
    assert all(axes.get_xlabel() for axes in figure.axes[-1:]) or name in ("front", "interaction", "dependence")


@pytest.mark.parametrize("objectives", [pytest.param(name, marks=[pytest.mark.slow] * (name != "two")) for name in OBJECTIVES])
@pytest.mark.parametrize("situation", NAMED)
def test_figures_of_every_situation_are_whole_or_not_drawn(tmp_path, situation, objectives):
    sweep = SITUATIONS[situation](Builder(tmp_path)).load(objectives=OBJECTIVES[objectives], name=NASTY)
    for figured in FIGURES.values():
        figure = figured.draw(sweep)
        assert figured.caption(sweep)
        if figure is not None:
            assert_whole(figure)
            assert isinstance(figured.data(sweep), pd.DataFrame)


@pytest.mark.slow
def test_svg_of_ten_thousand_trials_stays_small(sweep):
    found = full(sweep, 10_000)
    for name, figured in FIGURES.items():
        if (figure := figured.draw(found)) is not None:
            assert len(svg(figure)) < 3_000_000, name
            assert png(figure)[:4] == b"\x89PNG"


def test_equal_figures_are_equal_bytes_and_svg_is_xml(sweep):
    made = [FIGURES["importance"].draw(full(sweep)) for _ in range(2)]
    assert svg(made[0]) == svg(made[1])
    assert png(made[0]) == png(made[1])
    assert ElementTree.fromstring(svg(made[0])).tag.endswith("svg")


def test_learning_is_that_of_the_records(tmp_path):
    builder = Builder(tmp_path).baseline().add((26, 37), learning=LEARNT).add((24, 30), learning=LEARNT)
    found = builder.load()
    assert FIGURES["learning"].draw(found) is not None
    assert FIGURES["learning"].data(found)["learnt"].tolist() == [1.0, 1.0]
    assert FIGURES["parts"].draw(found) is None
    assert FIGURES["importance"].draw(planted(found, 5)) is None


def test_lines_over_objectives_have_their_better_end_at_the_top(tmp_path):
    found = Builder(tmp_path).baseline().add((26, 37)).add((24, 40)).load(objectives=FOUR)
    (axes,) = FIGURES["objectives"].draw(found).axes
    heights = [line.get_ydata().tolist() for line in axes.lines]
    assert heights == [[1, 0, 0, 1], [0, 1, 1, 0]]  # gain, forgetting, score, drop of the first trial and of the second
    assert {text.get_text() for text in axes.texts} == {"#0", "#1"}
