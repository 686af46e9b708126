import subprocess
import sys
from dataclasses import replace

import numpy as np
import pytest

from analysis.export.files import front_frame, front_rows
from analysis.report.build import report
from analysis.results import schema as col
from tests.factories.sweeps import Page


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


def test_front_begins_with_the_best_on_the_searched_documents(usual):
    sweep = usual.load()
    turned = replace(sweep, trials=sweep.trials.assign(**{col.searched("commonsense.gain"): -sweep.trials["commonsense.gain"]}))
    assert turned.front["number"].tolist() == [1, 0]


def test_hypervolume_and_its_interval_are_of_one_front(usual):
    sweep = usual.load()
    volumes = sweep.volumes(np.array([0, 1]), sweep.objectives, sweep.reference)
    low, high = sweep.hypervolume_interval
    assert len(volumes) == len(sweep.draws)
    assert sweep.hypervolume == volumes.mean()
    assert low == pytest.approx(np.percentile(volumes, 2.5))
    assert low < sweep.hypervolume < high


def test_hypervolume_of_trials_without_draws_is_that_of_the_quoted_values(usual):
    sweep = usual.load()
    sweep = replace(sweep, draws=np.full_like(sweep.draws, np.nan))
    assert sweep.hypervolume == pytest.approx(4 / 50 * 0.1 + 2 / 50 * (0.1 - 3 / 40))
    assert sweep.hypervolume_interval is None
