"""Exports are as documented and whole, for any text."""

import base64
import dataclasses
import hashlib
import io
import json
import re
import sqlite3
from pathlib import Path

import numpy as np
import optuna
import pandas as pd
import pytest
from markdown_it import MarkdownIt
from matplotlib.image import imread
from optuna.trial import TrialState
from typer.testing import CliRunner

from analysis.explore.compare import compare
from analysis.explore.optuna_study import study
from analysis.export.files import ENCODED, FORMATS, export, export_figures, export_trials, front_frame, front_rows, trial_rows
from analysis.report.build import report
from analysis.report.compare_page import page
from analysis.results.load import load
from orchestrator.cli import app
from tests.factories.sweeps import NAMED, NASTY, OBJECTIVES, SITUATIONS, TWO, WORSE
from trials.errors import InputError
from trials.ledger.record import Failure

DOCUMENTED = Path(__file__).parents[3] / "docs" / "exports.md"


@pytest.fixture
def usual(builder):
    sweep = SITUATIONS["usual"](builder).load(name=WORSE)
    builder.trials[0]["params"]["train.schedule"] = WORSE
    builder.trials[1]["params"]["train.schedule"] = NASTY
    return builder.load(name=WORSE) if sweep is not None else None


def test_markdown_shows_every_text_as_text(usual):
    (path,) = export(usual, ["md"])
    tokens = MarkdownIt("gfm-like", {"linkify": False}).parse(path.read_text(encoding="utf-8"))
    rows = sum(token.type == "tr_open" for token in tokens)
    cells = sum(token.type in ("td_open", "th_open") for token in tokens)
    assert rows == 1 + len(usual.front)
    assert cells % rows == 0
    children = [child.type for token in tokens for child in token.children or []]
    assert set(children) <= {"text", "text_special"}
    texts = ["".join(child.content for child in token.children) for token in tokens if token.type == "inline"]
    assert " ".join(WORSE.split()) in texts and " ".join(NASTY.split()) in texts


def test_latex_keeps_rows_and_columns_for_any_text(usual):
    (path,) = export(usual, ["tex"])
    lines = path.read_text(encoding="utf-8").splitlines()
    start = next(place for place, line in enumerate(lines) if line.startswith(r"\begin{tabular}"))
    assert all(line.startswith("%") for line in lines[:start])
    columns = len(re.fullmatch(r"\\begin{tabular}{([lr]+)}", lines[start]).group(1))
    body = [line for line in lines[start:] if line.endswith(r" \\")]
    assert len(body) == 1 + len(usual.front)
    assert all(len(re.findall(r"(?<!\\)&", line)) == columns - 1 for line in body)
    assert lines.count(r"\end{tabular}") == 1 and lines[-1] == r"\end{tabular}"


def test_study_has_every_trial(usual):
    (path,) = export(usual, ["study"])
    assert path.name == "optuna.db"
    with sqlite3.connect(path) as database:
        assert database.execute("pragma integrity_check").fetchone() == ("ok",)
    found = optuna.load_study(study_name=usual.name, storage=f"sqlite:///{path}")
    assert [trial.number for trial in found.trials] == usual.trials["number"].tolist()
    states = [TrialState.COMPLETE] * 4 + [TrialState.FAIL, TrialState.WAITING]
    assert [trial.state for trial in found.trials] == states
    first = found.trials[0]
    assert first.params == {"lora.rank": 1, "train.learning_rate": 1e-4, "train.schedule": WORSE}
    assert first.values == pytest.approx([6 / 50, 3 / 40])
    assert first.user_attrs["key"] == usual.trials["key"][0]
    gain = first.user_attrs["metrics"]["commonsense.gain"]
    assert gain["stderr"] == pytest.approx(usual.trials["commonsense.gain_se"][0])
    assert set(first.constraints) == {"math.forgetting <= 0.1"}
    kept = [max(trial.constraints.values()) <= 0 for trial in found.trials[:4]]
    assert kept == usual.trials["feasible"][:4].tolist()
    assert {trial.number for trial in found.best_trials} == set(usual.front["number"])
    export(usual, ["study"])  # over the one before


def test_all_trials_are_written_with_every_column(usual):
    csv, json_path, parquet = export_trials(usual, ["csv", "html", "json", "parquet"])
    assert [path.name for path in (csv, json_path, parquet)] == ["trials.csv", "trials.json", "trials.parquet"]
    expected = list(usual.trials.columns)
    assert list(pd.read_csv(csv)) == expected == list(pd.read_parquet(parquet))
    rows = json.loads(json_path.read_text(encoding="utf-8"))
    assert len(rows) == len(usual.trials)
    ending = {"value": "", "stderr": "_se"}
    written = {f"{name}{ending.get(part, f'_{part}')}" for name in usual.metrics for part in rows[0]["metrics"][name]}
    assert written | set(rows[0]["params"]) | set(rows[0]) - {"params", "metrics"} == set(expected)
    assert rows[4]["metrics"]["commonsense.gain"]["value"] is None


@pytest.mark.parametrize("objectives", [pytest.param(name, marks=[pytest.mark.slow] * (name != "two")) for name in OBJECTIVES])
@pytest.mark.parametrize("situation", NAMED)
def test_every_situation_is_written_in_every_format(builder, situation, objectives):
    sweep = SITUATIONS[situation](builder).load(objectives=OBJECTIVES[objectives], name=WORSE)
    written = export(sweep, FORMATS) + export_trials(sweep)
    assert all(path.stat().st_size for path in written)
    assert len(study(sweep).trials) == len(sweep.trials)


def test_figures_are_written_with_their_data(usual):
    names = {path.relative_to(usual.folder).as_posix() for path in export_figures(usual)}
    assert {f"figures/{name}.{kind}" for name in ("front", "course", "tradeoff") for kind in ("png", "svg", "csv")} == names
    course = pd.read_csv(usual.folder / "figures" / "course.csv")
    assert course["hypervolume"].iloc[-1] == pytest.approx(4 / 50 * 0.1 + 2 / 50 * (0.1 - 3 / 40))


def test_json_is_as_documented(builder):
    """docs/exports.md names each field of a row of front.json and trials.json, with its type, and there are no others."""
    sweep = builder.baseline().replicate((26, 37), (22, 39)).add((21, 40)).add().load()
    sweep = dataclasses.replace(sweep, half="report")
    text = DOCUMENTED.read_text(encoding="utf-8")
    for heading, rows in (("front.json", front_rows(sweep)), ("trials.json", trial_rows(sweep))):
        section = text.split(f"## {heading}\n")[1].split("\n## ")[0]
        fields = dict(re.findall(r"^\| `([\w.]+)` \| ([\w, ]+) \|", section, re.MULTILINE))
        found = {}
        for row in rows:
            row = {name: value for name, value in row.items() if not name.startswith("p:")}
            plain = {name: value for name, value in row.items() if name != "metrics"}
            for name, value in (
                plain | {f"metrics.{n}": v for metric in row["metrics"].values() for n, v in metric.items()}
            ).items():
                found.setdefault(name, set()).add(KINDS[type(value)])
        assert set(found) <= set(fields), set(found) - set(fields)
        optional = {name for name, kinds in fields.items() if "optional" in kinds}
        assert set(fields) - optional == set(found) - optional
        for name, kinds in found.items():
            assert kinds <= {one.strip() for one in fields[name].split(",")}, name


KINDS = {str: "string", int: "integer", float: "number", bool: "boolean", dict: "object", type(None): "null"}


def test_command_writes_the_given_formats(usual):
    found = CliRunner().invoke(app, ["front", str(usual.folder), "--format", "csv,tex,study", "--trials", "--figures"])
    assert found.exit_code == 0, found.output
    for name in ("front.csv", "front.tex", "optuna.db", "trials.csv", "figures/front.svg"):
        assert (usual.folder / name).exists(), name
    assert not (usual.folder / "trials.json").exists()


def test_default_formats_are_five(usual):
    assert {path.name for path in export(load(usual.folder))} == {
        f"front.{one}" for one in ("csv", "json", "parquet", "html", "png")
    }


@pytest.mark.slow
def test_ten_thousand_trials_are_written(builder):
    sweep = builder.baseline().add((26, 37)).load()
    frame = sweep.trials.iloc[[0] * 10_000].reset_index(drop=True)
    frame["number"] = np.arange(10_000)
    sweep = dataclasses.replace(sweep, trials=frame.assign(on_front=frame["number"] == 0))
    assert len(pd.read_parquet(export_trials(sweep, ["csv", "json", "parquet"])[2])) == 10_000
    assert len(study(sweep).trials) == 10_000


def test_policy_names_style_and_script_by_checksum(usual):
    for text in (report(usual), FORMATS["html"](usual).decode(), page(compare(usual, usual))):
        policy = re.search(r'Content-Security-Policy" content="([^"]*)"', text)[1]
        inline = re.findall(r"<(?:style|script)>(.*?)</(?:style|script)>", text, flags=re.DOTALL)
        assert 1 <= len(inline) <= 2
        for one in inline:
            assert f"'sha256-{base64.b64encode(hashlib.sha256(one.encode()).digest()).decode()}'" in policy
        assert "unsafe" not in policy
        assert not re.search(r"<[^>]* (?:style|on\w+)=", re.sub(r"<(style|script)>.*?</\1>", "", text, flags=re.DOTALL))


def test_no_csv_cell_is_a_formula():
    evil = ["=1+1", "+cmd", "-x", "@SUM(A1)", "\t=1", "a\r=1", "\r=1", "'=1", "-5", "-1e-3", "plain", "'plain", None]
    table = pd.DataFrame({"=head": evil, "number": [-1.0] * len(evil)})
    found = pd.read_csv(io.BytesIO(ENCODED["csv"](table)), keep_default_na=False)
    assert list(found) == ["'=head", "number"]
    assert list(found["number"]) == [-1.0] * len(evil)
    shown = ["'=1+1", "'+cmd", "'-x", "'@SUM(A1)", "'\t=1", "a\n=1", "'\n=1", "''=1", "-5", "-1e-3", "plain", "'plain", ""]
    assert list(found["'=head"]) == shown


@pytest.fixture
def finished(builder):
    """Base 20 and 40 of 50. Trials: 0 and 1 on the front, 2 dominated, 3 beyond the constraint, 4 failed, 5 pending."""
    failure = Failure(kind="OutOfMemoryError", message=NASTY, traceback=f"Traceback\n{NASTY}")
    return builder.baseline().add((26, 37)).add((24, 40)).add((23, 38)).add((40, 10)).add(failure=failure).add()


def test_front_json_has_key_number_params_and_metrics(finished):
    sweep = finished.load()
    (path,) = export(sweep, ["json"])
    first, second = json.loads(path.read_text(encoding="utf-8"))
    assert path == finished.folder / "front.json"
    assert (first["number"], second["number"]) == (0, 1)
    assert first["key"] == finished.trials[0]["key"]
    assert first["params"] == {"lora.rank": 1, "train.learning_rate": 1e-4}
    assert set(first["metrics"]) == set(sweep.metrics)
    assert first["metrics"]["commonsense.gain"]["value"] == pytest.approx(0.12)
    assert first["metrics"]["commonsense.gain"]["stderr"] == pytest.approx(0.0464, abs=1e-4)


def test_undefined_metric_is_null_in_json(builder):
    sweep = builder.baseline((20, 0)).add((25, 0)).load(objectives=TWO[:1], constraints=[])
    (path,) = export(sweep, ["json"])
    (row,) = json.loads(path.read_text(encoding="utf-8"), parse_constant=lambda name: pytest.fail(name))
    assert {*row["metrics"]["math.forgetting"].values()} == {None}


def test_csv_and_parquet_read_back_as_the_front(finished, tmp_path):
    sweep = finished.load()
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


def test_front_png_is_a_picture_and_html_has_picture_and_table(finished):
    sweep = finished.load()
    page, picture = export(sweep, ["html", "png"])
    assert imread(io.BytesIO(picture.read_bytes())).shape[1] == 1800
    text = page.read_text(encoding="utf-8")
    assert text.count("<tr") == 3 and text.count("<svg") == 2  # for a screen and for a phone
    assert 0 < text.index(">#0<") < text.index(">#1<")


def test_failed_export_leaves_the_old_file_and_nothing_else(finished, monkeypatch):
    sweep = finished.load()
    (path,) = export(sweep, ["json"])
    before, names = path.read_bytes(), sorted(finished.folder.iterdir())
    monkeypatch.setattr("analysis.export.files.Path.replace", lambda *_: (_ for _ in ()).throw(OSError("full")))
    with pytest.raises(OSError, match="full"):
        export(sweep, ["json"])
    assert path.read_bytes() == before
    assert sorted(finished.folder.iterdir()) == names


def test_unknown_format_is_refused_before_anything_is_written(finished):
    sweep = finished.load()
    with pytest.raises(InputError, match="csv, json, parquet, html, png, svg, tex, md, study, but got docx"):
        export(sweep, ["json", "docx"])
    assert not (finished.folder / "front.json").exists()


def test_page_of_the_front_names_the_documents_and_the_units_of_its_numbers(builder, tmp_path):
    sweep = dataclasses.replace(builder.baseline().add((26, 37)).load(), half="report")
    (path,) = export(sweep, ["html"], tmp_path)
    page = path.read_text()
    assert "Metrics are from the report half of the documents (commonsense 50, math 50 documents)." in page
    assert "Shares and rates are in percent, changes of a share in percentage points" in page


def test_page_of_an_empty_front_says_why(builder, tmp_path):
    (path,) = export(builder.baseline().add((18, 39)).load(), ["html"], tmp_path)
    assert "keeps math forgetting within 10 %; the untrained base beats it." in path.read_text()
