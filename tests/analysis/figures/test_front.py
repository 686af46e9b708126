"""The picture of the front."""

import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg

from analysis.figures.front import front_figure
from analysis.figures.theme import DARK, LIGHT
from tests.factories.sweeps import NASTY, OBJECTIVES, SITUATIONS, Builder


@pytest.fixture
def usual(builder):
    return builder.baseline().add((26, 37)).add((24, 40))


@pytest.mark.parametrize("objectives", OBJECTIVES)
@pytest.mark.parametrize("situation", SITUATIONS)
def test_every_situation_has_a_picture_with_its_texts_inside(builder, situation, objectives):
    sweep = SITUATIONS[situation](builder).load(objectives=OBJECTIVES[objectives], name=NASTY)
    figure = front_figure(sweep, DARK if objectives == "two" else LIGHT)
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
    texts = [text for text in figure.axes[0].texts if text.get_text().startswith(("#", "commonsense gain ≥"))]
    assert sorted(text.get_text() for text in texts) == ["#0", "#3", "#4", "#5", "#6", "commonsense gain ≥ 4 points"]
    boxes = [text.get_window_extent() for text in texts]
    assert not any(one.overlaps(other) for n, one in enumerate(boxes) for other in boxes[:n])


def test_long_axis_names_do_not_cover_the_arrows(tmp_path):
    class Long(Builder):
        roles = ("commonsense_in_twelve_languages_and_dialects", "mathematics_of_the_later_years_of_school")

    objectives = [{"metric": f"{role}.forgetting", "direction": "minimize"} for role in Long.roles]
    figure = front_figure(Long(tmp_path).baseline().add((26, 37)).load(objectives=objectives, constraints=[]))
    figure.draw_without_rendering()
    texts = [text for text in figure.axes[0].texts if "better" in text.get_text() or "base" in text.get_text()]
    boxes = [text.get_window_extent() for text in texts]
    assert len(boxes) == 4
    assert not any(one.overlaps(other) for n, one in enumerate(boxes) for other in boxes[:n])


def test_dollar_sign_in_a_name_is_no_formula(usual):
    usual.trials[0]["params"] = {"train.$\\frac$": "$\\frac{$"}
    front_figure(usual.load(name="$\\frac$")).draw_without_rendering()


def test_points_at_one_place_share_a_label(builder):
    figure = front_figure(SITUATIONS["equal trials"](builder).load())
    assert [text.get_text() for text in figure.axes[0].texts if text.get_text().startswith("#")] == ["#0 #1 #2"]


def test_table_with_many_settings_fits(builder):
    builder.baseline().add((26, 37))
    builder.trials[0]["params"] |= {f"train.setting_with_a_long_name_{n}": "a long value" for n in range(30)}
    figure = front_figure(builder.load())
    figure.draw_without_rendering()
    assert all(text.get_window_extent().x1 <= figure.bbox.x1 for text in figure.texts)
    assert "…" in [text.get_text() for text in figure.texts]
