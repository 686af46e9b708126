"""Estimates come from records, and are counted without them."""

import pytest

from orchestrator.config.model import SweepConfig
from orchestrator.planning.estimate import Estimate
from orchestrator.planning.plan import Gpus, plan
from tests.factories.own_tasks import DISTANCE, SHOP
from tests.factories.planned import leave, with_samples


def test_measured_seconds_scale_with_rows_and_documents(parts, config, tmp_path):
    leave(tmp_path, with_samples(config, 100), load=1.0, mix=0.5, train=10.0, evaluate=6.0)
    parts["data"]["samples"], parts["train"]["epochs"] = 400, 2
    parts["eval"]["math"]["documents"] = 24
    found = plan(SweepConfig.model_validate(parts), tmp_path)
    assert {phase.basis for phase in found.phases.values()} == {"measured"}
    seconds = {name: phase.seconds for name, phase in found.phases.items()}
    assert seconds == pytest.approx(
        {"load": 1.0, "mix": 4.0, "train": 80.0, "evaluate.commonsense": 6.0, "evaluate.math": 12.0}
    )
    assert found.seconds_per_trial == pytest.approx(103.0)
    # two trials, and a baseline that loads and evaluates alone
    assert found.hours == found.hours_left == pytest.approx((2 * 103 + 19) / 3600)


def test_space_over_samples_is_estimated_at_its_mean(parts, config, tmp_path):
    leave(tmp_path, with_samples(config, 100), load=0.0, train=10.0, evaluate=1.0)
    parts["space"] = {"data.samples": {"type": "categorical", "choices": [100, 300, 800]}}
    assert plan(SweepConfig.model_validate(parts), tmp_path).phases["train"].seconds == pytest.approx(40.0)


def test_outlier_does_not_move_the_estimate(config, tmp_path):
    for samples, train in ((100, 10.0), (101, 10.1), (102, 3600.0)):
        leave(tmp_path, with_samples(config, samples), load=0.0, train=train, evaluate=1.0)
    assert plan(config, tmp_path).phases["train"].seconds == pytest.approx(3.2)  # 32 rows


def test_other_hardware_is_left_out(config, tmp_path):
    leave(tmp_path, with_samples(config, 100), "NVIDIA A100-SXM4-80GB", load=0.0, train=10.0, evaluate=1.0)
    leave(tmp_path, with_samples(config, 200), None, load=0.0, train=999.0, evaluate=99.0)
    same = plan(config, tmp_path, Gpus("A100-80GB"))
    assert same.phases["train"].seconds == pytest.approx(3.2)
    assert any("on other hardware are left out: 1 (the CPU)" in note for note in same.notes)
    other = plan(config, tmp_path, Gpus("L4"))
    assert {phase.basis for phase in other.phases.values()} == {"counted"}
    assert any("NVIDIA A100-SXM4-80GB" in note for note in other.notes)


def test_unmeasured_phase_is_counted(parts, config, tmp_path):
    leave(tmp_path, with_samples(config, 100), load=0.0, train=10.0, evaluate=1.0)
    parts["eval"]["math"]["batch_size"] = 7
    found = plan(SweepConfig.model_validate(parts), tmp_path)
    assert {name: found.phases[name].basis for name in ("train", "evaluate.commonsense", "evaluate.math")} == {
        "train": "measured",
        "evaluate.commonsense": "measured",
        "evaluate.math": "counted",
    }
    assert any("counted, not measured" in note for note in found.notes)


def test_largest_trial_of_the_space_has_to_fit(parts, tmp_path):
    parts["space"] = {
        "lora.rank": {"type": "categorical", "choices": [4, 64]},
        "data.max_length": {"type": "int", "low": 64, "high": 1024},
        "train.learning_rate": {"type": "float", "low": 1e-5, "high": 1e-3},
    }
    parts["search"] |= {"sampler": "random", "trials": 3}
    found = plan(SweepConfig.model_validate(parts), tmp_path, Gpus("T4"))
    assert found.memory.settings == {"lora.rank": 64, "data.max_length": 1024}
    assert found.memory.fits
    assert found.warnings == []


def test_oversized_trial_is_a_warning(parts, tmp_path):
    parts["train"] = {"batch_size": 512, "micro_batch_size": 512}
    config = SweepConfig.model_validate(parts)
    assert plan(config, tmp_path, Gpus("H200")).memory.fits
    small = plan(config, tmp_path, Gpus("T4"))
    assert not small.memory.fits
    assert any(line.startswith("a trial needs about") for line in small.warnings)
    parts["resources"]["gpus_per_trial"] = 0.1
    assert not plan(SweepConfig.model_validate(parts), tmp_path, Gpus("H200")).memory.fits


def test_derived_point_costs_an_evaluation(parts, tmp_path):
    alone = plan(SweepConfig.model_validate(parts), tmp_path, Gpus("T4"))
    derived = plan(SweepConfig.model_validate(parts | {"derive": {"strength": [0.25, 0.5]}}), tmp_path, Gpus("T4"))
    evaluation = sum(phase.seconds for name, phase in alone.phases.items() if name.startswith("evaluate."))
    assert derived.trials == alone.trials
    assert derived.seconds_per_trial == pytest.approx(alone.seconds_per_trial + 2 * evaluation)


def test_own_task_is_counted_by_its_own_lengths(parts, tmp_path):
    parts["eval"]["near"] = {**DISTANCE, "include": str(SHOP)}
    found = plan(SweepConfig.model_validate(parts), tmp_path, Gpus("T4"))
    assert "task shop_distance: lengths of its documents; a response is as long as it may be" in found.notes
    assert not any(note.startswith("task shop_distance: unknown") for note in found.notes)


def test_drift_has_its_part_of_a_counted_trial(config, tmp_path):
    found = plan(config, tmp_path, Gpus("T4"))
    assert found.phases["drift"].basis == "counted"
    assert 0 < found.phases["drift"].seconds < found.seconds_per_trial


def test_seconds_by_phase_are_those_of_a_baseline_and_of_a_mean_trial(config):
    found = Estimate(config, [], None, {}).by_phase()
    roles = {f"evaluate.{role}" for role in config.eval}
    assert found[True].keys() == roles
    assert found[False].keys() == roles | {"train", "drift"}
    assert all(seconds > 0 for phases in found.values() for seconds in phases.values())


def test_busy_machine_is_noted(config, tmp_path, monkeypatch):
    monkeypatch.setattr("os.getloadavg", lambda: (5.5, 1.0, 1.0))
    assert any("counted for free cores; 5.5 processes want" in note for note in plan(config, tmp_path).notes)
    monkeypatch.setattr("os.getloadavg", lambda: (0.4, 1.0, 1.0))
    assert not any("free cores" in note for note in plan(config, tmp_path).notes)
