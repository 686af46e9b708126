"""A sweep's folder in; frame, exports, pictures and report out. Ledgers are written by the real classes."""

import math
import re
import subprocess
import sys

import numpy as np
import pytest

from analysis.export.files import export, front_frame, front_rows
from analysis.report.build import report, write_report
from analysis.report.findings import notices
from analysis.results.sweep import load
from tests.factories.sweeps import NASTY, SITUATIONS, TWO, Builder, Page, oom
from trials.errors import InputError
from trials.ledger.record import Failure, Ledger, TrialRecord
from trials.ledger.storage import read_bytes, root


@pytest.fixture
def builder(tmp_path):
    return Builder(tmp_path)


@pytest.fixture
def usual(builder):
    """Base 20 and 40 of 50. Trials: 0 and 1 on the front, 2 dominated, 3 beyond the constraint, 4 failed, 5 pending."""
    failure = Failure(kind="OutOfMemoryError", message=NASTY, traceback=f"Traceback\n{NASTY}")
    return builder.baseline().add((26, 37)).add((24, 40)).add((23, 38)).add((40, 10)).add(failure=failure).add()


def test_a_trial_has_its_state_params_metrics_and_judgement(usual):
    trials = usual.load().trials.set_index("number")
    assert trials["state"].tolist() == ["complete"] * 4 + ["failed", "pending"]
    assert trials["lora.rank"].tolist() == [1, 2, 3, 4, 5, 6]
    assert trials["feasible"].tolist() == [True, True, True, False, False, False]
    assert trials["on_front"].tolist() == [True, True, False, False, False, False]
    assert trials["front_rank"].tolist() == [0, 0, 1, -1, -1, -1]
    assert trials.loc[0, "commonsense.gain"] == pytest.approx(6 / 50)
    assert trials.loc[0, "math.forgetting"] == pytest.approx(3 / 40)
    assert trials["paired"].tolist() == [True] * 4 + [False] * 2
    assert trials.loc[0, "seconds"] == 5.5
    assert trials.loc[4, "failure"] == f"OutOfMemoryError: {NASTY}"
    assert trials.loc[[4, 5], "commonsense.gain"].isna().all()


def test_standard_errors_of_a_sweep_are_paired_where_the_documents_are_there(builder):
    trials = builder.baseline().add((26, 37)).add((26, 37), documents=False).load().trials
    differences = np.repeat([1.0, 0.0], [6, 44])
    assert trials["commonsense.gain_se"][0] == pytest.approx(differences.std(ddof=1) / math.sqrt(50))
    assert trials["commonsense.gain_se"][1] > trials["commonsense.gain_se"][0]
    assert trials["paired"].tolist() == [True, False]


def test_a_constraint_on_an_undefined_metric_is_not_met(builder):
    sweep = builder.baseline((20, 0)).add((25, 0)).load(objectives=TWO[:1])
    assert sweep.trials["state"].tolist() == ["complete"]
    assert not sweep.trials["feasible"].any()
    assert sweep.hypervolume is None


def test_only_a_finished_trial_is_feasible(usual):
    assert usual.load(constraints=[]).trials["feasible"].tolist() == [True] * 4 + [False] * 2


def test_each_record_is_read_once(usual, monkeypatch):
    usual.trials += [trial | {"number": trial["number"] + 6} for trial in usual.trials]
    read, counts = Ledger.read, {}

    def counted(ledger, key):
        counts[key] = counts.get(key, 0) + 1
        return read(ledger, key)

    monkeypatch.setattr(Ledger, "read", counted)
    sweep = usual.load()
    assert len(sweep.trials) == 12
    assert set(counts.values()) == {1}
    assert len(counts) == 7


def test_hypervolume_is_measured_from_the_baseline_and_the_constraint(usual):
    sweep = usual.load()
    assert sweep.reference == (0.0, 0.1)
    assert sweep.hypervolume == pytest.approx(4 / 50 * 0.1 + 2 / 50 * (0.1 - 3 / 40))


def test_a_record_that_cannot_be_read_is_a_failure_with_its_reason_and_the_sweep_still_reads(usual):
    key = usual.trials[0]["key"]
    (usual.ledger.folder(key) / "record.json").write_text('{"key": ', encoding="utf-8")
    sweep = usual.load()
    assert sweep.trials["state"][0] == "failed"
    assert "not a whole record" in sweep.failures.set_index("what").loc["trial 0", "message"]
    assert key in report(sweep)


def test_a_failed_baseline_is_said_and_leaves_the_front_empty(usual):
    usual.ledger.write(TrialRecord(key=usual.base.key, state="failed", spec=usual.base, failure=oom()))
    sweep = usual.load()
    assert not sweep.trials["on_front"].any()
    assert sweep.failures["what"].tolist() == ["baseline", "trial 4"]
    assert f"Baseline {usual.base.key} is failed" in notices(sweep)[0]


@pytest.mark.parametrize("text", [None, "", '{"schema": 1, "na', '{"schema": 2}', "[]", "\xff"])
def test_a_missing_or_broken_manifest_is_one_clear_line(tmp_path, text):
    if text is not None:
        (tmp_path / "manifest.json").write_text(text, encoding="latin-1")
    with pytest.raises(InputError) as refused:
        load(tmp_path)
    assert "\n" not in str(refused.value)
    assert str(tmp_path) in str(refused.value)
    assert "manifest" in str(refused.value)


def test_a_folder_that_is_not_there_and_a_storage_root_are_told_apart(usual, tmp_path):
    usual.load()
    with pytest.raises(InputError, match="the sweeps in it are quickstart"):
        load(tmp_path)
    with pytest.raises(InputError, match="no such folder"):
        load(tmp_path / "nowhere")


def test_a_sweep_in_a_store_is_read_and_exported_as_one_in_a_folder(s3, tmp_path):
    made = []
    for place in (root(f"{s3}/runs"), tmp_path):
        SITUATIONS["usual"](Builder(place)).load()
        sweep = load(f"{place}/quickstart/")
        made.append({path.name: read_bytes(path) for path in export(sweep)})
        page = read_bytes(write_report(sweep)).decode()
        assert f"python -m trials {place}/ledger/{sweep.front['key'].iloc[0]}/spec.yaml" in page
        assert sweep.trials["paired"].tolist() == [True] * 4 + [False] * 2
        with pytest.raises(InputError, match="the sweeps in it are quickstart"):
            load(place)
        with pytest.raises(InputError, match="no such folder"):
            load(place / "nowhere")
    assert set(made[0]) == {"front.csv", "front.json", "front.parquet", "front.html", "front.png"}
    assert made[0] == made[1]


def test_a_trial_with_replicates_has_their_means_their_spread_and_its_place_on_the_front(builder):
    sweep = builder.baseline().replicate((26, 37), (22, 39)).add((21, 40)).load()
    first, second = sweep.trials.to_dict("records")
    assert first["replicates"] == 2 and second["replicates"] == 1
    assert first["commonsense.gain"] == pytest.approx(4 / 50)
    assert first["commonsense.gain_sd"] == pytest.approx(4 / 50 / math.sqrt(2))
    assert first["commonsense.gain_se"] > first["commonsense.gain_sd"] / math.sqrt(2)
    assert math.isnan(second["commonsense.gain_sd"])
    assert first["paired"] and first["on_front"]
    assert first["seconds"] == 2 * 5.5
    assert len(sweep.records) == 4


@pytest.mark.parametrize(("last", "state"), [((25, 38), "complete"), (None, "pending"), ("oom", "failed")])
def test_a_trial_is_complete_when_all_its_replicates_are_and_failed_when_one_is(builder, last, state):
    sweep = (
        builder.baseline().replicate((26, 37), None if state == "failed" else (24, 38), oom() if last == "oom" else last).load()
    )
    (trial,) = sweep.trials.to_dict("records")
    assert trial["state"] == state
    assert math.isnan(trial["commonsense.gain"]) == (state != "complete")
    assert trial["on_front"] == (state == "complete")
    assert sweep.failures["what"].tolist() == (["trial 0, replicate 3"] if state == "failed" else [])


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


def test_every_failure_is_listed_with_its_traceback_and_the_counts_agree(builder):
    trace = 'Traceback (most recent call last):\n  File "trial.py", line 1\nValueError: {}'
    failures = [Failure(kind="ValueError", message=f"{n}", traceback=trace.format(n)) for n in range(4)]
    builder.baseline().add((26, 37)).add(failure=failures[0]).replicate(failures[1], failures[2]).add(failure=failures[3])
    sweep = builder.invalid().add().load()
    what = ["trial 1", "trial 2, replicate 1", "trial 2, replicate 2", "trial 3", "trial 4"]
    assert sweep.failures["what"].tolist() == what
    failed = sweep.trials.loc[sweep.trials["state"] == "failed", "number"].tolist()
    assert failed == sorted({int(name.split(",")[0].split()[1]) for name in what})
    text = report(sweep)
    found = re.findall(r'<details class="failure".*?</details>', text, re.DOTALL)
    assert len(found) == len(what)
    for section, name in zip(found, what, strict=True):
        assert f"<strong>{name}</strong>" in section
    assert ["Traceback (most recent call last)" in section for section in found] == [True] * 4 + [False]
    assert "1 complete, 4 failed, 1 pending" in text


def test_a_point_that_is_no_valid_trial_is_a_failure_that_says_why(builder):
    sweep = builder.baseline().add((26, 37)).invalid().load()
    (failure,) = sweep.failures.to_dict("records")
    assert failure == {
        "what": "trial 1",
        "key": "",
        "kind": "InvalidPoint",
        "message": "rank and method contradict",
        "traceback": "",
    }
    assert sweep.trials["state"].tolist() == ["complete", "failed"]
    assert sweep.trials["key"][1] == ""
    assert "rank and method contradict" in report(sweep)


def test_a_manifest_whose_trial_has_neither_key_nor_failure_is_one_clear_line(builder):
    builder.baseline().invalid()
    del builder.trials[0]["failure"]
    with pytest.raises(InputError, match="a trial has a key, or a failure") as refused:
        builder.load()
    assert "\n" not in str(refused.value)


def test_analysis_imports_neither_torch_nor_ray_nor_a_neighbour():
    banned = ("torch", "ray", "optuna", "orchestrator")
    code = f"import sys, analysis.report; print([name for name in sys.modules if name.split('.')[0] in {banned}])"
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert found.stdout.strip() == "[]"
