import io
import json
import subprocess
import sys

import numpy as np
import pandas as pd
import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.image import imread

from analysis.export.files import export, front_frame, front_rows
from analysis.figures import label_placement
from analysis.figures.front import front_figure
from analysis.figures.theme import DARK, LIGHT
from analysis.formatting.labels import setting_names
from analysis.report.build import headline, notices, report, write_report
from analysis.results.load import load
from tests.factories.sweeps import NASTY, OBJECTIVES, SITUATIONS, TWO, Builder, Page
from trials.errors import InputError
from trials.ledger.record import Failure


@pytest.fixture
def builder(tmp_path):
    return Builder(tmp_path)


@pytest.fixture
def usual(builder):
    """Base 20 and 40 of 50. Trials: 0 and 1 on the front, 2 dominated, 3 beyond the constraint, 4 failed, 5 pending."""
    failure = Failure(kind="OutOfMemoryError", message=NASTY, traceback=f"Traceback\n{NASTY}")
    return builder.baseline().add((26, 37)).add((24, 40)).add((23, 38)).add((40, 10)).add(failure=failure).add()


def test_front_json_carries_key_number_params_and_metrics(usual):
    sweep = usual.load()
    (path,) = export(sweep, ["json"])
    first, second = json.loads(path.read_text(encoding="utf-8"))
    assert path == usual.folder / "front.json"
    assert (first["number"], second["number"]) == (0, 1)
    assert first["key"] == usual.trials[0]["key"]
    assert first["params"] == {"lora.rank": 1, "train.learning_rate": 1e-4}
    assert set(first["metrics"]) == set(sweep.metrics)
    assert first["metrics"]["commonsense.gain"]["value"] == pytest.approx(0.12)
    assert first["metrics"]["commonsense.gain"]["stderr"] == pytest.approx(0.0464, abs=1e-4)


def test_an_undefined_metric_is_null_in_json(builder):
    sweep = builder.baseline((20, 0)).add((25, 0)).load(objectives=TWO[:1], constraints=[])
    (path,) = export(sweep, ["json"])
    (row,) = json.loads(path.read_text(encoding="utf-8"), parse_constant=lambda name: pytest.fail(name))
    assert {*row["metrics"]["math.forgetting"].values()} == {None}


def test_csv_and_parquet_read_back_as_the_front(usual, tmp_path):
    sweep = usual.load()
    csv, parquet = export(sweep, ["csv", "parquet"], tmp_path / "elsewhere")
    table = front_frame(sweep)
    pd.testing.assert_frame_equal(pd.read_csv(csv), table)
    pd.testing.assert_frame_equal(pd.read_parquet(parquet), table)
    assert table["number"].tolist() == [0, 1]


def test_settings_of_mixed_types_survive_every_format(builder):
    builder.baseline().add((26, 37)).add((24, 40)).add((22, 45))
    odd = [["q_proj", "k_proj"], "all-linear", None]
    for trial, value in zip(builder.trials, odd, strict=True):
        trial["params"]["lora.target_modules"] = value
    sweep = builder.load(constraints=[])
    paths = {path.suffix: path for path in export(sweep)}
    rows = json.loads(paths[".json"].read_text(encoding="utf-8"))
    assert [row["params"]["lora.target_modules"] for row in rows] == odd
    texts = pd.read_parquet(paths[".parquet"])["lora.target_modules"]
    assert [None if pd.isna(text) else json.loads(text) for text in texts] == odd
    assert "q,k" in paths[".html"].read_text(encoding="utf-8")


def test_lists_are_json_in_a_table(builder):
    builder.baseline().add((26, 37))
    builder.trials[0]["params"]["lora.target_modules"] = ["q_proj", "k_proj"]
    (path,) = export(builder.load(), ["csv"])
    assert json.loads(pd.read_csv(path)["lora.target_modules"][0]) == ["q_proj", "k_proj"]


def test_front_png_is_a_picture_and_html_a_table(usual):
    sweep = usual.load()
    page, picture = export(sweep, ["html", "png"])
    assert imread(io.BytesIO(picture.read_bytes())).shape[1] == 1800
    text = page.read_text(encoding="utf-8")
    assert text.count("<tr") == 3
    assert 0 < text.index(">#0<") < text.index(">#1<")


def test_an_export_that_fails_leaves_the_old_file_whole_and_nothing_beside_it(usual, monkeypatch):
    sweep = usual.load()
    (path,) = export(sweep, ["json"])
    before, names = path.read_bytes(), sorted(usual.folder.iterdir())
    monkeypatch.setattr("analysis.export.files.Path.replace", lambda *_: (_ for _ in ()).throw(OSError("full")))
    with pytest.raises(OSError, match="full"):
        export(sweep, ["json"])
    assert path.read_bytes() == before
    assert sorted(usual.folder.iterdir()) == names


def test_an_unknown_format_is_refused_before_anything_is_written(usual):
    sweep = usual.load()
    with pytest.raises(InputError, match="csv, json, parquet, html, png, svg, tex, md, study, but got docx"):
        export(sweep, ["json", "docx"])
    assert not (usual.folder / "front.json").exists()


@pytest.mark.parametrize("objectives", OBJECTIVES)
@pytest.mark.parametrize("situation", SITUATIONS)
def test_every_situation_has_a_picture_whose_texts_are_inside_it(builder, situation, objectives):
    sweep = SITUATIONS[situation](builder).load(objectives=OBJECTIVES[objectives], name=NASTY)
    figure = front_figure(sweep, DARK if objectives == "two" else LIGHT)
    FigureCanvasAgg(figure).draw()
    drawn = figure.get_tightbbox()  # of everything that is drawn, in inches
    assert drawn.x0 >= 0 and drawn.y0 >= 0
    assert drawn.x1 <= figure.get_figwidth() and drawn.y1 <= figure.get_figheight()


def test_labels_of_a_crowded_front_do_not_overlap_and_say_which_trials(builder):
    builder.baseline().add((49, 4))
    for number in range(6):
        builder.add((20 + number, 40 - number))
    figure = front_figure(builder.load(constraints=["commonsense.gain >= 0.04"]))
    figure.draw_without_rendering()
    texts = [text for text in figure.axes[0].texts if text.get_text().startswith(("#", "commonsense gain ≥"))]
    assert sorted(text.get_text() for text in texts) == ["#0", "#3", "#4", "#5", "#6", "commonsense gain ≥ 4 points"]
    boxes = [text.get_window_extent() for text in texts]
    assert not any(one.overlaps(other) for n, one in enumerate(boxes) for other in boxes[:n])


def test_texts_at_one_place_make_way_for_each_other():
    figure = Figure(dpi=100)
    FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    room = label_placement.Room(axes, [np.array([[0.5, 0.5]])])
    for text in ("first", "second", "third"):
        label = axes.annotate(text, (0.5, 0.5), (0, 0), textcoords="offset points", ha="center", va="center")
        room.put(label, room.around(label))
    point = axes.transData.transform((0.5, 0.5))
    assert not any(one.overlaps(other) for n, one in enumerate(room.boxes) for other in room.boxes[:n])
    assert not any(box.contains(*point) for box in room.boxes)


def test_a_long_role_leaves_room_for_the_way_to_the_better_end(tmp_path):
    class Long(Builder):
        roles = ("commonsense_in_twelve_languages_and_dialects", "mathematics_of_the_later_years_of_school")

    objectives = [{"metric": f"{role}.forgetting", "direction": "minimize"} for role in Long.roles]
    figure = front_figure(Long(tmp_path).baseline().add((26, 37)).load(objectives=objectives, constraints=[]))
    figure.draw_without_rendering()
    texts = [text for text in figure.axes[0].texts if "better" in text.get_text() or "base" in text.get_text()]
    boxes = [text.get_window_extent() for text in texts]
    assert len(boxes) == 4
    assert not any(one.overlaps(other) for n, one in enumerate(boxes) for other in boxes[:n])


def test_a_dollar_sign_in_a_name_is_a_dollar_sign(usual):
    usual.trials[0]["params"] = {"train.$\\frac$": "$\\frac{$"}
    front_figure(usual.load(name="$\\frac$")).draw_without_rendering()


def test_settings_have_short_names_that_tell_them_apart():
    names = setting_names(["lora.rank", "train.learning_rate", "train.seed", "data.seed", "eval.math.seed", "seed"])
    assert list(names.values()) == ["rank", "lr", "train.seed", "data.seed", "math.seed", "seed"]
    assert len(set(setting_names(["a.b", "c.a.b", "d.c.a.b"]).values())) == 3


def test_points_in_one_place_share_a_label(builder):
    figure = front_figure(SITUATIONS["equal trials"](builder).load())
    assert [text.get_text() for text in figure.axes[0].texts if text.get_text().startswith("#")] == ["#0 #1 #2"]


def test_a_table_with_many_settings_still_fits(builder):
    builder.baseline().add((26, 37))
    builder.trials[0]["params"] |= {f"train.setting_with_a_long_name_{n}": "a long value" for n in range(30)}
    figure = front_figure(builder.load())
    figure.draw_without_rendering()
    assert all(text.get_window_extent().x1 <= figure.bbox.x1 for text in figure.texts)
    assert "…" in [text.get_text() for text in figure.texts]


def test_a_report_escapes_whatever_it_shows(usual):
    usual.trials[0]["params"]["train.note"] = NASTY
    sweep = usual.load(name=NASTY)
    (usual.folder / "sweep.yaml").write_text(NASTY, encoding="utf-8")
    sweep = load(usual.folder)
    text = write_report(sweep).read_text(encoding="utf-8")
    page = Page(text)
    assert page.tags.count("script") == 1
    assert "<script>alert" not in text
    assert "".join(page.words).count('<script>alert("1")</script>') >= 5
    (html,) = export(sweep, ["html"])
    assert "script" not in Page(html.read_text(encoding="utf-8")).tags


def test_the_headline_says_how_many_keep_the_constraint_and_the_best_among_them(usual, tmp_path):
    assert headline(usual.load()) == (
        "3 of 4 finished trials keep math forgetting within 10 %; "
        "best commonsense gain among them +12.0 ± 4.6 points (trial #0)."
    )
    assert headline(usual.load(constraints=[])).startswith("4 finished trials; best commonsense gain +40.0 ±")


@pytest.mark.parametrize(
    ("situation", "start"),
    [
        ("nothing asked", "No trial has been asked for yet."),
        ("nothing finished", "None of 2 trials has finished yet."),
        ("all failed", "All 2 trials failed."),
        ("none feasible", "None of 2 finished trials keeps math forgetting within 10 %."),
        ("one trial", "1 of 1 finished trial keeps math forgetting within 10 %; best commonsense gain among them 0.0"),
    ],
)
def test_the_headline_of_a_sweep_without_a_result_says_so(builder, situation, start):
    assert headline(SITUATIONS[situation](builder).load()).startswith(start)


def test_a_report_names_failures_baselines_times_versions_config_and_how_to_repeat(usual):
    words = " ".join("".join(Page(report(usual.load())).words).split())
    assert "trial 4 OutOfMemoryError" in words
    assert f"{usual.base.key}" in words
    assert "torch 2.9.0" in words
    assert "name: quickstart" in words
    assert "evaluate 5 3.5 s 3.5 s 17.5 s" in words
    assert f"python -m trials {usual.ledger.folder(usual.trials[0]['key'])}/spec.yaml" in words


def test_a_report_warns_of_a_base_too_small_for_a_rate_and_of_mixed_hardware(builder):
    sweep = builder.baseline((20, 3)).add((25, 3)).add((26, 3), hardware={"device": "H200"}).load()
    first, second = notices(sweep)
    assert "read the drop, not the forgetting rate" in first
    assert "2 kinds of hardware" in second


def test_exports_say_the_spread_of_replicates_and_nothing_of_it_without_them(builder):
    rows = {row["number"]: row for row in front_rows(builder.baseline().replicate((26, 37), (22, 39)).add((21, 40)).load())}
    assert set(rows[0]["metrics"]["math.drop"]) == {"value", "stderr", "low", "high", "sd", "n"}
    assert rows[0]["metrics"]["math.drop"]["n"] == 2
    assert set(rows[1]["metrics"]["math.drop"]) == {"value", "stderr", "low", "high"}
    table = front_frame(builder.load())
    assert table["replicates"].tolist() == [2, 1]
    assert table["math.drop_sd"].isna().tolist() == [False, True]
    page = " ".join("".join(Page(report(builder.load())).words).split())
    assert "up to 2 replicates" in page
    assert "sd 5.7" in page
    builder.trials = builder.trials[1:]
    assert not [name for name in front_frame(builder.load()) if name.endswith("_sd") or name == "replicates"]
    assert "replicates" not in "".join(Page(report(builder.load())).words)


def test_analysis_imports_neither_torch_nor_ray_nor_a_neighbour():
    banned = ("torch", "ray", "optuna", "orchestrator")
    code = f"import sys, analysis.report; print([name for name in sys.modules if name.split('.')[0] in {banned}])"
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert found.stdout.strip() == "[]"


def test_states_count_every_trial(usual):
    sweep = usual.load()
    assert sweep.states == {"complete": 4, "failed": 1, "given up": 0, "pending": 1}
    assert sweep.complete["number"].tolist() == [0, 1, 2, 3]
    assert len(sweep.complete_baselines) == 1
    assert len(sweep.complete_records) == 5


def test_front_begins_with_the_best_first_objective(usual):
    assert usual.load().front["number"].tolist() == [0, 1]
