"""A plan says before a sweep runs what it will take, and what exists already."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from orchestrator.config.model import SweepConfig
from orchestrator.planning.plan import Gpus, _free, plan
from tests import ready
from tests.factories.own_tasks import DISTANCE, SHOP
from tests.factories.planned import leave, with_samples
from trials.errors import InputError
from trials.ledger.record import Failure, Ledger, TrialRecord
from trials.ledger.storage import write_text

ROOT = Path(__file__).parents[3]


def test_records_of_the_ledger_are_not_left_to_run(config, tmp_path):
    for spec in (config.baseline_specs()[0], config.spec({"lora.rank": 2})):
        leave(tmp_path, spec, load=0.0, train=9.0, evaluate=1.0)
    found = plan(config, tmp_path)
    assert (found.trials, found.trials_done, found.baselines, found.baselines_done) == (2, 1, 1, 1)
    assert found.hours == pytest.approx((2 * 11 + 2) / 3600)
    assert found.hours_left == pytest.approx(11 / 3600)


def test_folder_that_ray_cannot_use_is_a_warning(config, tmp_path, monkeypatch):
    monkeypatch.setenv("RAY_TMPDIR", "/none/of/it")
    assert plan(config, tmp_path).warnings == [
        "a run on this machine would be refused: RAY_TMPDIR: /none/of/it: no such folder"
    ]


def test_replicates_are_runs_of_each_trial(parts, config, tmp_path):
    leave(tmp_path, with_samples(config, 32), load=0.0, train=9.0, evaluate=1.0)
    parts["search"]["replicates"] = 3
    assert plan(SweepConfig.model_validate(parts), tmp_path).hours == pytest.approx((6 * 11 + 2) / 3600)


def test_money_is_gpu_hours_times_price(parts, config, tmp_path):
    leave(tmp_path, with_samples(config, 32), "NVIDIA L4", load=0.0, train=3598.0, evaluate=1.0)
    whole = plan(config, tmp_path, Gpus("L4", price_per_hour=0.8))
    assert whole.gpu_hours == pytest.approx(whole.hours)
    assert whole.money == pytest.approx(0.8 * whole.hours)
    parts["resources"]["gpus_per_trial"] = 0.25
    shared = plan(SweepConfig.model_validate(parts), tmp_path, Gpus("L4", price_per_hour=0.8))
    assert shared.money_left == pytest.approx(whole.money / 4)
    parts["search"]["gpu_hours"] = 0.1
    assert plan(SweepConfig.model_validate(parts), tmp_path, Gpus("L4", price_per_hour=0.8)).money == pytest.approx(0.08)


def test_price_without_a_gpu_is_a_warning(parts, tmp_path):
    parts["resources"]["gpus_per_trial"] = 0
    found = plan(SweepConfig.model_validate(parts), tmp_path, Gpus(price_per_hour=1.0))
    assert found.money is None
    assert any("--gpu" in warning for warning in found.warnings)


def test_small_disk_is_a_warning(parts, tmp_path):
    parts["search"] |= {"sampler": "random", "trials": 10**9}
    parts["space"] = {"train.learning_rate": {"type": "float", "low": 1e-4, "high": 1e-2}}
    found = plan(SweepConfig.model_validate(parts), tmp_path)
    assert found.disk_bytes > found.disk_free
    assert any("are free" in warning for warning in found.warnings)


def test_object_store_has_no_known_free_space():
    upath = pytest.importorskip("upath", reason="universal-pathlib is not installed")
    assert _free(upath.UPath("memory://bucket/runs")) is None
    assert _free(upath.UPath("/")) > 0


def test_missing_base_is_planned_without_figures(parts, tmp_path):
    parts["base"]["model"] = "nobody/nothing"
    found = plan(SweepConfig.model_validate(parts), tmp_path)
    assert (found.seconds_per_trial, found.hours, found.memory) == (None, None, None)
    assert any("nobody/nothing" in note for note in found.notes)


def test_planning_loads_no_torch(tmp_path):
    code = (
        "import sys; from pathlib import Path; from orchestrator.config.load import load; "
        "from orchestrator.planning.plan import plan\n"
        f"plan(load(Path('configs/quickstart.yaml')), Path({str(tmp_path)!r})); sys.exit('torch' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=False).returncode == 0


def test_damaged_record_of_another_sweep_is_left_out(tmp_path):
    """Nor does one whose hardware is of an odd kind."""
    sweep = ready.build(ready.config(), tmp_path)
    folder = tmp_path / "ledger" / "another"
    folder.mkdir()
    (folder / "record.json").write_text("{")
    key = next(key for key in Ledger(tmp_path) if key != "another")
    record = json.loads((tmp_path / "ledger" / key / "record.json").read_text())
    record["hardware"] = {"gpu": ["a", 1], "threads": "many"}
    (tmp_path / "ledger" / key / "record.json").write_text(json.dumps(record))
    found = plan(ready.config(), sweep.parent)
    (note,) = (note for note in found.notes if "left out: " in note and "record.json" in note)
    assert "another/record.json" in note


def test_plan_without_a_count_simulates_nothing(parts, tmp_path):
    assert plan(SweepConfig.model_validate(parts), tmp_path, Gpus("H100")).simulated is None


def test_sweep_that_hours_end_is_not_simulated(parts, tmp_path):
    parts["search"] = {key: value for key, value in parts["search"].items() if key != "trials"}
    parts["search"] |= {"sampler": "random", "hours": 2.0}
    parts["space"] = {"train.learning_rate": {"type": "float", "low": 1e-4, "high": 1e-2}}
    with pytest.raises(InputError, match=r"search\.trials"):
        plan(SweepConfig.model_validate(parts), tmp_path, Gpus("H100", count=10))


def test_search_for_a_larger_error_is_refused_before_it_runs(parts, tmp_path):
    parts["eval"]["near"] = {**DISTANCE, "include": str(SHOP)}
    parts["search"]["objectives"] = [{"metric": "near.value", "direction": "maximize"}]
    parts["search"]["constraints"] = []
    with pytest.raises(
        InputError, match=r"distance of eval.near is better when lower; write near.value with direction: minimize"
    ):
        plan(SweepConfig.model_validate(parts), tmp_path)


def test_plan_says_that_its_costs_are_upper_bounds_of_a_multi_fidelity_search(parts, config, tmp_path):
    assert not any("multi_fidelity" in note for note in plan(config, tmp_path).notes)
    parts["search"] |= {"sampler": "gp", "trials": 8, "multi_fidelity": True}
    (note,) = [note for note in plan(SweepConfig.model_validate(parts), tmp_path).notes if "multi_fidelity" in note]
    assert "25% of its training rows" in note
    assert "upper bounds" in note


def test_trials_are_done_when_all_their_replicates_are_or_they_have_no_result(parts, tmp_path):
    parts["search"].update(sampler="random", trials=2, replicates=3, gpu_hours=1.0)
    parts["space"] = {"lora.rank": {"type": "int", "low": 1, "high": 64}}
    config = SweepConfig.model_validate(parts)
    trials = []
    for number, rank in enumerate((2, 4)):
        specs = config.specs({"lora.rank": rank})
        for spec in specs[: 3 - number]:  # the second one lacks a replicate
            leave(tmp_path, spec, "NVIDIA L4", load=0.0, train=599.0, evaluate=1.0)
        keys = [spec.key for spec in specs]
        baseline = specs[0].baseline().key
        trials.append({"number": number, "key": keys[0], "keys": keys, "baseline": baseline, "params": {"lora.rank": rank}})
    parts["search"]["trials"] = 6
    spec = config.specs({"lora.rank": 8})[0]
    failure = Failure(kind="OutOfMemory", message="full", traceback="")
    Ledger(tmp_path).write(TrialRecord(key=spec.key, state="failed", spec=spec, failure=failure))
    trials.append({"number": 3, "key": spec.key, "baseline": baseline, "params": {"lora.rank": 8}})
    trials.append({"number": 2, "key": None, "params": {}, "failure": "rank and method contradict"})
    manifest = {"schema": 1, "name": config.name, "space": ["lora.rank"], "trials": trials, "spent": [1800.0, 1800.0]}
    manifest |= {"objectives": [{"metric": "math.drop", "direction": "minimize"}], "constraints": [], "baselines": []}
    write_text(tmp_path / config.name / "manifest.json", json.dumps(manifest))
    found = plan(SweepConfig.model_validate(parts), tmp_path, Gpus("L4"))
    assert (found.trials, found.trials_done) == (6, 3)
    assert (found.gpu_hours, found.gpu_hours_left) == (1.0, 0.5)
    write_text(tmp_path / config.name / "manifest.json", "{")
    damaged = plan(SweepConfig.model_validate(parts), tmp_path, Gpus("L4"))
    assert (damaged.trials_done, sum("not a whole manifest" in note for note in damaged.notes)) == (0, 1)
