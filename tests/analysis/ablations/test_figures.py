"""The figures of an ablation show the points that their specification selects."""

import numpy as np
import pytest

from analysis.ablations.figures import caption, data, draw
from analysis.ablations.points import LINES
from analysis.figures.theme import DARK, png
from tests.factories.ablation_sweeps import BY_SOURCE, DOSE, asked, figured, swept
from tests.factories.sweeps import NASTY


def drawn(figure, panel=0):
    """label: {x: y} of each line with its bars."""
    return {
        bars.get_label(): dict(zip(*(np.round(axis, 6) for axis in bars.lines[0].get_data()), strict=True))
        for bars in figure.axes[panel].containers
    }


def test_line_has_values_and_intervals_in_order_of_x(tmp_path):
    answer = asked(swept(tmp_path, DOSE))
    figure = draw(answer, BY_SOURCE)
    assert list(drawn(figure)) == ["gsm8k", "self"]
    assert list(drawn(figure)["gsm8k"].values()) == pytest.approx([40, 8, 4])
    assert list(drawn(figure, 1)["self"].values()) == pytest.approx([0, 0, 0])
    row = answer.sweep.trials.iloc[1]
    ends = [tuple(points[:, 1]) for points in figure.axes[0].containers[0].lines[2][0].get_segments()]
    assert ends[1] == pytest.approx((100 * row["math.drop_low"], 100 * row["math.drop_high"]))


@pytest.mark.parametrize("log", [False, True])
def test_every_interval_lies_within_its_panel(tmp_path, log):
    spec = figured("f", "F", "data.replay.share", ("math.drop", "commonsense.gain"), by=("data.replay.source",), log=log)
    figure = draw(asked(swept(tmp_path, DOSE)), spec)
    figure.draw_without_rendering()
    for axes in figure.axes:
        for bars in axes.containers:
            ends = np.concatenate(bars.lines[2][0].get_segments())
            assert (axes.get_ylim()[0] <= ends[:, 1].min()) and (ends[:, 1].max() <= axes.get_ylim()[1])
            assert (axes.get_xlim()[0] <= ends[:, 0].min()) and (ends[:, 0].max() <= axes.get_xlim()[1])


def test_logarithmic_axis_has_zero_at_its_left_end(tmp_path):
    points = [({"derive.samples": rows}, (20, 30)) for rows in (0, 16, 32, 64)]
    figure = draw(asked(swept(tmp_path, points)), figured("f", "F", "derive.samples", ("math.drop",), log=True))
    axes = figure.axes[0]
    assert [text.get_text() for text in axes.get_xticklabels()] == ["0", "16", "32", "64"]
    places = axes.transData.transform([(x, 0) for x in axes.containers[0].lines[0].get_xdata()])[:, 0]
    assert axes.bbox.x0 < places[0] and places[-1] < axes.bbox.x1
    assert places[0] < places[1]
    assert places[2] - places[1] == pytest.approx(places[3] - places[2])


def test_values_without_order_are_categories(tmp_path):
    points = [({"derive.off": value}, (20, 40 - n)) for n, value in enumerate(["q", None, "k", NASTY])]
    spec = figured("f", "F", "derive.off", ("math.drop",))
    figure = draw(asked(swept(tmp_path, points)), spec)
    names = [text.get_text() for text in figure.axes[0].get_xticklabels()]
    assert names[:3] == ["none", "q", "k"]
    assert png(figure)
    points = [({"lora.use_dora": value}, (20, 30)) for value in (False, True)]
    figure = draw(asked(swept(tmp_path / "b", points)), figured("f", "F", "lora.use_dora", ("math.drop",)))
    assert [text.get_text() for text in figure.axes[0].get_xticklabels()] == ["no", "yes"]


def test_classes_are_lines_of_one_panel(tmp_path):
    sweep = swept(tmp_path, [({"lora.rank": rank}, (20, 30)) for rank in (8, 16)])
    kinds = {f"math.gold_bpb_{part}_delta": level for part, level in (("word", 0.1), ("digit", 0.2))}
    for name, level in kinds.items():
        sweep.trials[[name, f"{name}_low", f"{name}_high"]] = [level, level - 0.05, level + 0.05]
    figure = draw(asked(sweep), figured("f", "F", "lora.rank", tuple(kinds), kind="classes"))
    assert len(figure.axes) == 1
    assert {name: list(points.values()) for name, points in drawn(figure).items()} == {
        "words": [0.1, 0.1],
        "digits": [0.2, 0.2],
    }
    assert "bits per byte" in figure.axes[0].get_title(loc="left")


def test_metrics_are_categories_of_one_panel(tmp_path):
    spec = figured(
        "f", "F", "data.replay.source", ("math.drop", "commonsense.gain"), kind="metrics", only={"data.replay.share": 0.1}
    )
    figure = draw(asked(swept(tmp_path, DOSE)), spec)
    (axes,) = figure.axes
    assert [text.get_text() for text in axes.get_xticklabels()] == ["math drop", "commonsense\ngain"]
    (bars,) = axes.containers
    places, values = bars.lines[0].get_data()
    assert list(places) == [0, 0, 1, 1] and list(values) == pytest.approx([8, 30, 2, 0])


def test_layers_are_means_over_sources(tmp_path):
    alike = [{"a": [1.0, 0.9, 0.5], "b": [1.0, 0.7, 0.3]}, {"a": [1.0, 1.0, 1.0]}]
    points = [({"lora.layers": name}, (20, 30)) for name in ("all", "top")]
    answer = asked(swept(tmp_path, points, similarity=alike))
    spec = figured("f", "F", "lora.layers", ("math.drop",), kind="layers")
    found = {one["line"]: one["similarity"] for one in data(answer, spec)}
    assert found["all"] == pytest.approx([1.0, 0.8, 0.4]) and found["top"] == pytest.approx([1.0, 1.0, 1.0])
    assert len(draw(answer, spec).axes) == 1
    assert draw(asked(swept(tmp_path / "b", points)), spec) is None


def test_further_lines_are_grey(tmp_path):
    points = [({"lora.rank": n, "train.kl": n / 10}, (20, 30)) for n in range(1, LINES + 3)]
    spec = figured("f", "F", "data.samples", ("math.drop",), by=("lora.rank", "train.kl"))
    answer = asked(swept(tmp_path, points))
    assert len(draw(answer, spec).axes[0].containers) == LINES + 2
    assert f"{LINES} of {LINES + 2}" in caption(answer, spec)


def test_level_is_the_base_s_score_or_zero(tmp_path):
    answer = asked(swept(tmp_path, DOSE))
    spec = figured("f", "F", "data.replay.share", ("math.value", "math.drop"), by=("data.replay.source",))
    levels = [
        {line.get_ydata()[0] for line in axes.lines if list(line.get_xdata()) == [0, 1]} for axes in draw(answer, spec).axes
    ]
    assert levels == [{80.0}, {0.0}]
    assert "dashed" in caption(answer, spec) and "at 0" in caption(answer, spec)


LONG = [({"data.replay.share": f"org/a-model-of-{n}-billion-words"}, (20, 30)) for n in range(4)]


@pytest.mark.parametrize("points", [DOSE, LONG])
@pytest.mark.parametrize("panels", [1, 2, 3, 4])
@pytest.mark.parametrize("by", [(), ("data.replay.source",)])
def test_texts_stay_inside_the_figure_and_their_panel(tmp_path, points, panels, by):
    metrics = ("math.drop", "math.value", "commonsense.forgetting", "commonsense.gain")[:panels]
    figure = draw(asked(swept(tmp_path, points)), figured("f", "F", "data.replay.share", metrics, by=by), DARK)
    figure.canvas.draw()
    # a title takes no part in the layout where it is wider than its axes
    titles = [axes._left_title.get_window_extent() for axes in figure.axes]
    boxes = [axes.get_tightbbox() for axes in figure.axes]
    for box in [*boxes, *(title for title in titles if title.width)]:
        assert figure.bbox.x0 - 1 <= box.x0 and box.x1 <= figure.bbox.x1 + 1 and box.y1 <= figure.bbox.y1 + 1
    assert not any(one.overlaps(other) for n, one in enumerate(boxes) for other in boxes[:n])


@pytest.mark.parametrize("log", [False, True])
def test_tick_labels_do_not_overlap(tmp_path, log):
    for n, values in enumerate([(0, 25, 50, 64, 100, 2000), ("q", "k", "v", "bottom third", "middle third", "top third")]):
        points = [({"derive.off": value}, (20, 30)) for value in values]
        metrics = ("math.drop", "commonsense.gain", "math.value")
        figure = draw(asked(swept(tmp_path / str(n), points)), figured("f", "F", "derive.off", metrics, log=log))
        figure.canvas.draw()
        for axes in figure.axes:
            named = [tick for tick in axes.get_xticklabels() if tick.get_text() and tick.get_rotation() == 0]
            boxes = [tick.get_window_extent() for tick in named]
            assert not any(one.overlaps(other) for place, one in enumerate(boxes) for other in boxes[:place])


def test_empty_selection_has_no_figure(tmp_path):
    sweep = swept(tmp_path, [({"lora.rank": 1}, None)])
    for answer in (asked(sweep), asked(None)):
        for kind in ("lines", "classes", "layers"):
            spec = figured("f", "F", "lora.rank", ("math.drop",), kind=kind)
            assert draw(answer, spec) is None
            assert isinstance(caption(answer, spec), str)
            assert data(answer, spec) == []
    measured = asked(swept(tmp_path / "b", DOSE))
    assert draw(measured, figured("f", "F", "data.replay.share", ("knowledge.drop",))) is None
