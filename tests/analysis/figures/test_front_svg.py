"""The interactive front."""

import re

import numpy as np
import pytest

from analysis.figures.front_svg import ellipse, front_svg, parallel_svg
from tests.factories.sweeps import FOUR, Page


def test_ellipse_holds_95_percent_of_correlated_errors():
    errors, correlation = (2.0, 0.5), -0.7
    covariance = np.outer(errors, errors) * [[1, correlation], [correlation, 1]]
    draws = np.random.default_rng(0).multivariate_normal([0, 0], covariance, 200_000)
    longer, shorter, angle = ellipse(*errors, correlation)
    turn = np.radians(angle)
    along, across = draws @ [np.cos(turn), np.sin(turn)], draws @ [-np.sin(turn), np.cos(turn)]
    assert np.mean((along / longer) ** 2 + (across / shorter) ** 2 <= 1) == pytest.approx(0.95, abs=0.003)


def test_points_are_drawn_at_their_metrics_with_links(builder):
    sweep = builder.baseline().add((26, 37)).add((24, 40)).load()
    picture = str(front_svg(sweep, [0], "wide"))
    (first, second) = [(float(x), float(y)) for x, y in re.findall(r'cx="([\d.]+)" cy="([\d.]+)" r="6.5"', picture)]
    assert first[0] > second[0]  # more gain, further right
    assert first[1] < second[1]  # more forgetting, further up
    assert 'href="#trial-0"' in picture and 'href="#row-1"' in picture
    assert picture.count("<ellipse") >= 2


def test_labels_name_the_trials_of_the_front(builder):
    picture = str(front_svg(builder.baseline().add((26, 37)).add((24, 40)).load(), [0], "narrow"))
    assert re.findall(r'class="m">#(\d)', picture) == ["0", "1"]


def test_no_finished_trial_means_no_picture(builder):
    assert front_svg(builder.load(), [], "wide") == "" and parallel_svg(builder.load(), []) == ""


def test_lines_over_objectives_have_their_better_end_at_the_top(builder):
    sweep = builder.baseline().add((26, 37)).add((24, 40)).load(objectives=FOUR)
    picture = str(parallel_svg(sweep, [0]))
    assert Page(picture).tags.count("path") == len(sweep.objectives) + 2
    heights = [re.findall(r" ([\d.]+)", path)[0] for path in re.findall(r'aria-label="trial \d"><path d="M([^"]*)"', picture)]
    assert sorted(map(float, heights)) == [60.0, 280.0]
