"""Records that are damaged or missing."""

from pathlib import Path

from orchestrator.sweep.controller import SweepController
from tests.factories.sweep_state import complete, fail, run_out, states


def test_corrupt_record_is_set_aside_and_its_trial_runs_again(config, tmp_path):
    sweep = SweepController.open(config, tmp_path)
    run_out(sweep)
    keys = [config.baseline_specs()[0].key, config.spec({"lora.rank": 4}).key]
    for key in keys:
        path: Path = sweep.ledger.folder(key) / "record.json"
        path.write_text(path.read_text()[:100])
    lines: list[str] = []
    again = SweepController.open(config, tmp_path, notice=lines.append)
    assert [job.spec.key for job in run_out(again)] == keys
    assert again.over
    assert states(again) == ["complete"] * 3
    assert len([line for line in lines if "not a whole record" in line and "set aside" in line]) == 2
    assert all((sweep.ledger.folder(key) / "record.json.corrupt").exists() for key in keys)


def test_death_of_a_worker_is_a_failed_record_with_its_reason(config, tmp_path):
    sweep = SweepController.open(config, tmp_path)
    complete(sweep, sweep.next_job())
    job = sweep.next_job()
    sweep.finish(job.spec.key, "died", "killed")
    record = sweep.ledger.read(job.spec.key)
    assert record.state == "failed"
    assert record.failure.message == "killed"


def test_reason_of_a_death_hides_secrets(config, tmp_path, monkeypatch):
    monkeypatch.setenv("SOME_API_KEY", "abcd1234efgh")
    sweep = SweepController.open(config, tmp_path)
    record = sweep.state.records.write_death(config.baseline_specs()[0], "401 for abcd1234efgh, password=hunter2")
    assert record.failure.message == "401 for ***, password=***"


def test_death_of_a_worker_replaces_an_earlier_failure(config, tmp_path):
    sweep = SweepController.open(config, tmp_path)
    complete(sweep, sweep.next_job())
    fail(sweep, job := sweep.next_job())
    sweep.finish(job.spec.key, "died", "the node is gone")
    assert sweep.ledger.read(job.spec.key).failure.message == "the node is gone"
