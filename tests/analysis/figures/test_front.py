"""The picture of the front, for files and for pages."""

import re

import numpy as np
import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.patches import Ellipse

from analysis.figures.front import ellipse, front_figure, front_svg
from tests.factories.sweeps import NASTY, OBJECTIVES, SITUATIONS, Builder


@pytest.fixture
def usual(builder):
    return builder.baseline().add((26, 37)).add((24, 40))


def labels(figure):
    return {text.get_text(): text for text in figure.axes[0].texts}


@pytest.mark.parametrize("objectives", OBJECTIVES)
@pytest.mark.parametrize("situation", SITUATIONS)
def test_every_situation_has_a_picture_with_its_texts_inside(builder, situation, objectives):
    sweep = SITUATIONS[situation](builder).load(objectives=OBJECTIVES[objectives], name=NASTY)
    figure = front_figure(sweep, "narrow", [0]) if objectives == "two" else front_figure(sweep)
    FigureCanvasAgg(figure).draw()
    drawn = figure.get_tightbbox()  # of everything that is drawn, in inches
    assert drawn.x0 >= 0 and drawn.y0 >= 0
    assert drawn.x1 <= figure.get_figwidth() and drawn.y1 <= figure.get_figheight()


def test_labels_of_a_crowded_front_name_the_trials_and_do_not_overlap(builder):
    builder.baseline().add((49, 4))
    for number in range(6):
        builder.add((20 + number, 40 - number))
    figure = front_figure(builder.load(constraints=["commonsense.gain >= 0.04"]))
    figure.draw_without_rendering()
    found = labels(figure)
    assert {"#0", "#3", "#4", "#5", "#6"} <= set(found)
    boxes = [text.get_window_extent() for text in found.values()]
    assert not any(one.overlaps(other) for n, one in enumerate(boxes) for other in boxes[:n])


def test_trial_far_from_the_front_is_an_arrow_at_the_edge_with_its_value(usual):
    figure = front_figure(usual.add((27, 2)).add((3, 38)).load())
    assert {"#0", "#1", "#2: +95.0", "#3: −34.0"} <= set(labels(figure))
    top, left = figure.axes[0].get_ylim()[1], figure.axes[0].get_xlim()[0]
    assert top < 30 and left > -34
    places = np.concatenate([drawn.get_offsets() for drawn in figure.axes[0].collections if len(drawn.get_offsets()) == 1])
    assert {(14, round(top, 6)), (round(left, 6), 5)} <= {tuple(place) for place in places.round(6).tolist()}


def test_trials_that_share_an_arrow_share_its_label(usual):
    for _ in range(3):
        usual.add((21, 2))
    assert "#2 and 2 more: +95.0" in labels(front_figure(usual.load()))
    for right in (3, 4):
        usual.add((21, right))
    assert "#2 and 2 more: +95.0; #5: +92.5; 1 more" in labels(front_figure(usual.load()))


def test_long_axis_names_fit(tmp_path):
    class Long(Builder):
        roles = ("commonsense_in_twelve_languages_and_dialects", "mathematics_of_the_later_years_of_school")

    objectives = [{"metric": f"{role}.forgetting", "direction": "minimize"} for role in Long.roles]
    figure = front_figure(Long(tmp_path).baseline().add((26, 37)).load(objectives=objectives, constraints=[]), "narrow", [])
    FigureCanvasAgg(figure).draw()
    drawn = figure.get_tightbbox()
    assert drawn.x0 >= 0 and drawn.x1 <= figure.get_figwidth() and drawn.y0 >= 0 and drawn.y1 <= figure.get_figheight()


def test_legend_of_everything_fits(usual):
    figure = front_figure(usual.add((23, 38)).add((23, 35)).add((27, 2)).load(), "wide", [])
    FigureCanvasAgg(figure).draw()
    texts = [text.get_text() for text in figure.legends[0].get_texts()]
    assert {"front", "dominated", "outside the constraints", "beyond the axes", "baseline"} < set(texts) and len(texts) == 7
    assert figure.get_tightbbox().x1 <= figure.get_figwidth()


def test_dollar_sign_in_a_name_is_no_formula(usual):
    usual.trials[0]["params"] = {"train.$\\frac$": "$\\frac{$"}
    front_figure(usual.load(name="$\\frac$")).draw_without_rendering()


def test_points_at_one_place_share_a_label(builder):
    assert "#0 #1 #2" in labels(front_figure(SITUATIONS["equal trials"](builder).load()))


def test_ellipse_holds_95_percent_of_correlated_errors():
    errors, correlation = (2.0, 0.5), -0.7
    covariance = np.outer(errors, errors) * [[1, correlation], [correlation, 1]]
    draws = np.random.default_rng(0).multivariate_normal([0, 0], covariance, 200_000)
    longer, shorter, angle = ellipse(*errors, correlation)
    turn = np.radians(angle)
    along, across = draws @ [np.cos(turn), np.sin(turn)], draws @ [-np.sin(turn), np.cos(turn)]
    assert np.mean((along / longer) ** 2 + (across / shorter) ** 2 <= 1) == pytest.approx(0.95, abs=0.003)


def test_front_s_trials_have_ellipses(usual):
    figure = front_figure(usual.add((23, 38)).load())
    drawn = [patch.center for patch in figure.axes[0].patches if isinstance(patch, Ellipse)]
    assert {tuple(np.round(place, 6)) for place in drawn} == {(12, 7.5), (8, 0)}


def test_page_s_points_are_at_their_metrics_and_the_front_s_are_links(usual):
    picture = str(front_svg(usual.add((23, 38)).load(), [0]))
    wide, narrow = picture.split("</svg>")[:2]
    for drawn in (wide, narrow):
        places = {
            number: (float(x), float(y))
            for x, y, number in re.findall(r'<use [^>]*x="(\S+)" y="(\S+)"[^>]*data-n="(\d)"', drawn)
        }
        assert set(places) == {"0", "1", "2"}
        assert places["0"][0] > places["1"][0]  # more gain, further right
        assert places["0"][1] < places["1"][1]  # more forgetting, further up
        assert re.findall(r'<a href="(#[\w-]+)" aria-label="trial \d: ', drawn) == ["#trial-0", "#row-1"]


def test_no_finished_trial_means_no_picture_on_a_page(builder):
    assert front_svg(builder.load(), []) == ""
