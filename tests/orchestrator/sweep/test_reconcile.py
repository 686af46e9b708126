"""Every start is a resume: nothing is lost, nothing runs twice, another sweep's folder stays as it is."""

import json

import pytest

from orchestrator.config.model import SweepConfig
from orchestrator.sweep.controller import SweepController
from tests.factories.sweep_state import complete, fail_next, leave, run_out, states
from trials.errors import InputError


def test_cut_off_sweep_keeps_its_trials_and_runs_none_twice(config, tmp_path):
    first = SweepController.open(config, tmp_path)
    complete(first, first.next_job())
    complete(first, first.next_job())
    cut_off, finished_unseen = first.next_job(), first.next_job()
    leave(first, finished_unseen)  # the record was written, but not reported to the study
    del first
    again = SweepController.open(config, tmp_path)
    jobs = run_out(again)
    assert [job.spec.key for job in jobs] == [cut_off.spec.key]
    assert states(again) == ["complete"] * 3
    assert SweepController.open(config, tmp_path).state.unfinished == 0


def test_records_of_another_sweep_are_reported_and_not_run(config, tmp_path):
    run_out(SweepController.open(config, tmp_path))
    other = SweepController.open(config.model_copy(update={"name": "other"}), tmp_path)
    assert other.next_job() is None
    assert states(other) == ["complete"] * 3


def test_folder_of_another_sweep_is_refused_unchanged(config, parts, tmp_path):
    run_out(SweepController.open(config, tmp_path))
    before = (tmp_path / "little" / "sweep.yaml").read_text()
    parts["train"]["epochs"] = 3
    with pytest.raises(InputError, match="with another train"):
        SweepController.open(SweepConfig.model_validate(parts), tmp_path)
    assert (tmp_path / "little" / "sweep.yaml").read_text() == before


def test_unfinished_sweep_takes_another_config(config, parts, tmp_path):
    sweep = SweepController.open(config, tmp_path)
    complete(sweep, sweep.next_job())  # the baseline
    fail_next(sweep)
    parts["train"]["epochs"] = 3
    notices: list[str] = []
    again = SweepController.open(SweepConfig.model_validate(parts), tmp_path, notice=notices.append)
    assert len(notices) == 1
    assert "no trial has finished" in notices[0]
    assert "another" in notices[0]
    assert states(again) == []
    assert (tmp_path / "little" / "study.db.before").exists()
    run_out(again)
    assert states(again) == ["complete"] * 3


def test_larger_budget_continues_the_sweep(parts, tmp_path):
    parts["space"]["lora.rank"]["choices"] = [2, 4, 6, 8, 10]
    parts["search"].update(sampler="random", trials=2)
    run_out(SweepController.open(SweepConfig.model_validate(parts), tmp_path))
    parts["search"]["trials"] = 4
    sweep = SweepController.open(SweepConfig.model_validate(parts), tmp_path)
    run_out(sweep)
    assert len(states(sweep)) == 4


def test_resumed_sampler_does_not_repeat_its_draws(parts, tmp_path):
    parts["search"].update(sampler="random", trials=1)
    parts["space"] = {"train.learning_rate": {"type": "float", "low": 1e-4, "high": 1e-2, "log": True}}
    run_out(SweepController.open(SweepConfig.model_validate(parts), tmp_path))
    parts["search"]["trials"] = 2
    sweep = SweepController.open(SweepConfig.model_validate(parts), tmp_path)
    run_out(sweep)
    first, second = sweep.study.trials()
    assert first.params != second.params


@pytest.mark.parametrize("damage", [b"", b"not a database, though long enough to look like one" * 40, None])
def test_corrupt_study_is_rebuilt_from_manifest_and_ledger(config, tmp_path, damage):
    sweep = SweepController.open(config, tmp_path)
    with sweep.going():
        for _ in range(3):
            complete(sweep, sweep.next_job())
    before = [(trial.params, trial.values) for trial in sweep.study.trials()[:2]]
    path = tmp_path / "little" / "study.db"
    whole = path.read_bytes()
    path.write_bytes(whole[: len(whole) // 2] if damage is None else damage)
    lines: list[str] = []
    again = SweepController.open(config, tmp_path, notice=lines.append)
    assert len(run_out(again)) == 1, "nothing that has a record runs again"
    assert [(trial.params, trial.values) for trial in again.study.trials()[:2]] == before
    assert states(again) == ["complete"] * 3
    if damage != b"":  # to sqlite an empty file is a new database
        assert sum("study.db.corrupt" in line for line in lines) == 1
        assert (tmp_path / "little" / "study.db.corrupt").exists()


def test_failures_of_a_stopped_sweep_run_again(config, tmp_path):
    sweep = SweepController.open(config, tmp_path)
    complete(sweep, sweep.next_job())
    with sweep.going():
        fail_next(sweep, 3)
    assert sweep.failed
    again = SweepController.open(config, tmp_path)
    assert len(run_out(again)) == 3
    assert states(again) == ["complete"] * 3


def test_trials_of_a_failed_baseline_run_again(parts, tmp_path):
    parts["space"]["base.dtype"] = {"type": "categorical", "choices": ["float32", "bfloat16"]}
    config = SweepConfig.model_validate(parts)
    with (sweep := SweepController.open(config, tmp_path)).going():
        fail_next(sweep)
        complete(sweep, sweep.next_job())
        while sweep.next_job() is not None:
            pass  # cut off before any of them has ended
    assert len(run_out(SweepController.open(config, tmp_path))) == 1 + 4


CONTINUOUS = {"train.learning_rate": {"type": "float", "low": 1e-4, "high": 1e-2, "log": True}}


def test_study_lost_twice_loses_no_trial(parts, tmp_path):
    parts["space"] = CONTINUOUS
    parts["search"].update(sampler="tpe", trials=4)
    config = SweepConfig.model_validate(parts)
    with (sweep := SweepController.open(config, tmp_path)).going():
        run_out(sweep)
    for _ in range(2):
        (tmp_path / "little" / "study.db").unlink()
        sweep = SweepController.open(config, tmp_path)  # cut off before it has reported anything
        assert len(json.loads((tmp_path / "little" / "manifest.json").read_text())["trials"]) == 4
    assert run_out(sweep) == []
    assert states(sweep) == ["complete"] * 4


def test_outdated_study_learns_from_the_manifest(parts, tmp_path):
    parts["space"] = CONTINUOUS
    parts["search"].update(sampler="random", trials=4)
    config, study = SweepConfig.model_validate(parts), tmp_path / "little" / "study.db"
    with (sweep := SweepController.open(config, tmp_path)).going():
        for _ in range(2):
            complete(sweep, sweep.next_job())
    old = study.read_bytes()
    with (sweep := SweepController.open(config, tmp_path)).going():
        run_out(sweep)
    study.write_bytes(old)  # another machine's cache, say
    sweep = SweepController.open(config, tmp_path)
    assert run_out(sweep) == []
    assert states(sweep) == ["complete"] * 4


def test_first_points_survive_a_lost_study(parts, tmp_path):
    parts["space"]["lora.rank"]["choices"] = [2, 4, 8, 16]
    parts["search"].update(sampler="random", trials=4, first=[{"lora.rank": rank} for rank in (16, 8, 2)])
    config = SweepConfig.model_validate(parts)
    with (sweep := SweepController.open(config, tmp_path)).going():
        for _ in range(2):
            complete(sweep, sweep.next_job())
    (tmp_path / "little" / "study.db").unlink()
    assert [job.settings["lora.rank"] for job in run_out(SweepController.open(config, tmp_path))] == [8, 2, 4]


def test_gpu_hours_survive_resumes_and_a_lost_study(parts, tmp_path):
    parts["space"] = CONTINUOUS
    parts["search"].update(sampler="random", gpu_hours=100)
    for run in range(1, 6):
        sweep = SweepController.open(SweepConfig.model_validate(parts), tmp_path)
        with sweep.going():
            complete(sweep, sweep.next_job(), seconds=3600)
            sweep.stop()
        assert sweep.spent[0] == pytest.approx(3600 * run)
        if run == 3:
            (tmp_path / "little" / "study.db").unlink()
