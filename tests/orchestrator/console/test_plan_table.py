"""A plan is shown whole: what it costs, what it rests on, what limits it."""

import json

from orchestrator.config.load import settled
from orchestrator.config.model import SweepConfig
from orchestrator.console.plan_table import lines, table
from orchestrator.planning.plan import Gpus, plan
from tests.factories.planned import leave, with_samples


def test_json_is_whole_and_table_shows_its_basis(parts, tmp_path):
    config = SweepConfig.model_validate(parts)
    found = plan(config, tmp_path, Gpus("T4", price_per_hour=0.5))
    again = json.loads(json.dumps(found.as_dict(), allow_nan=False))
    assert again["memory"]["parts"].keys() >= {"weights", "adapter", "activations", "logits", "evaluation"}
    assert again["phases"]["train"] == {"seconds": found.phases["train"].seconds, "basis": "counted"}
    rows = dict(zip(*(column.cells for column in table(found, config).columns), strict=True))
    assert "(counted)" in rows["a trial takes"]
    assert rows.keys() >= {"trials", "baselines", "GPU-hours", "money", "memory", "disk"}


def test_sweep_that_hours_end_has_no_number_of_trials(parts, tmp_path, monkeypatch):
    leave(tmp_path, with_samples(SweepConfig.model_validate(parts), 32), "NVIDIA L4", load=0.0, train=358.0, evaluate=1.0)
    parts["search"]["gpu_hours"] = 2.0
    config = SweepConfig.model_validate(parts)
    monkeypatch.setattr(SweepConfig, "budget", property(lambda self: None))
    found = plan(config, tmp_path, Gpus("L4", price_per_hour=1.5))
    assert (found.trials, found.trials_in_time, found.money) == (None, 20, 3.0)
    assert "2 GPU-hours" in next(iter(table(found, config).columns[1].cells))


def test_simulation_counts_replicates_and_baselines_on_the_given_gpus(parts, tmp_path):
    parts["search"] = {**parts["search"], "replicates": 2}
    parts["resources"] = {"gpus_per_trial": 0.5}
    config = SweepConfig.model_validate(parts)
    found = plan(config, tmp_path, Gpus("H100", count=2))
    assert found.simulated is not None
    assert found.simulated.trials == 2 * config.budget + 1
    assert found.simulated.workers == min(4, found.simulated.trials)
    shown = "\n".join(cell for column in table(found, config).columns for cell in column._cells)
    assert "the limit: " in shown
    assert any("simulated" in line for line in lines(found))


def test_lines_name_notes_and_warnings(parts, tmp_path):
    parts["train"] = {"batch_size": 512, "micro_batch_size": 512}
    shown = lines(plan(SweepConfig.model_validate(parts), tmp_path, Gpus("T4")))
    assert any(line.startswith("note: counted, not measured") for line in shown)
    assert any(line.startswith("warning: a trial needs about") for line in shown)


def test_long_trial_is_shown_in_minutes(parts, tmp_path):
    config = SweepConfig.model_validate(parts)
    leave(tmp_path, with_samples(config, 32), "NVIDIA L4", load=0.0, train=4358.0, evaluate=1.0)
    rows = dict(zip(*(column.cells for column in table(plan(config, tmp_path, Gpus("L4")), config).columns), strict=True))
    assert "train 1 h 12 min (measured)" in rows["a trial takes"]


def test_racing_is_on_or_off_with_the_reason(parts, tmp_path):
    def row(**search):
        parts["search"] |= search
        config = settled(SweepConfig.model_validate(parts))
        return dict(zip(*(column.cells for column in table(plan(config, tmp_path), config).columns), strict=True))["racing"]

    assert row() == "off"  # a grid
    assert row(sampler="random", trials=2).startswith("a trial is given up once")
    assert row(racing=False) == "off"
    del parts["search"]["racing"]
    assert row(replicates=2) == "off; a trial is judged by itself, so it needs search.replicates: 1"
