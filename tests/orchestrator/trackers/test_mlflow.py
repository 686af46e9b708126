"""MLflow's runs, read back."""

from dataclasses import replace

import pytest

from orchestrator.trackers.mlflow import MLflow, allowed_name


def test_each_trial_is_a_run_with_every_setting_and_metric(tmp_path, record, monkeypatch):
    mlflow = pytest.importorskip("mlflow", reason="mlflow-skinny is not installed")
    pytest.importorskip("alembic", reason="mlflow's sqlite store needs alembic")
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    monkeypatch.chdir(tmp_path)
    record("mlflow", tmp_path / "sweep")
    client = mlflow.MlflowClient(tracking_uri=f"sqlite:///{tmp_path / 'sweep' / 'mlflow.db'}")
    experiment = client.get_experiment_by_name("little")
    runs = {run.info.run_name: run for run in client.search_runs([experiment.experiment_id])}
    assert set(runs) == {"baseline-base", "trial-0", "trial-1-replicate-2"}
    trial = runs["trial-0"]
    assert trial.data.metrics == {
        "commonsense.gain": 0.02,
        "training.loss": 2.5,
        "seconds.train": 2.0,
        "seconds.evaluate.math": 1.0,
    }
    assert trial.data.params["data.mix.micro/gsm8k"] == "0.5"
    assert trial.data.params["base.model"] == "micro"
    assert [(one.step, one.value) for one in client.get_metric_history(trial.info.run_id, "training.loss")] == [
        (1, 3.0),
        (2, 2.5),
    ]
    assert (trial.info.end_time - trial.info.start_time, trial.info.status) == (3000, "FINISHED")
    failed = runs["trial-1-replicate-2"]
    assert failed.info.status == "FAILED"
    assert failed.data.tags["failure"] == "NonFiniteLoss: the loss was nan"
    assert [path.name for path in tmp_path.iterdir()] == ["sweep"]  # nothing beside the sweep's own folder


def test_any_sources_name_is_allowed():
    assert allowed_name("data.mix.my data|v2,new") == "data.mix.my data_v2_new"
    assert allowed_name("data.mix.micro/gsm8k") == "data.mix.micro/gsm8k"


def test_resumed_sweep_goes_on_with_its_runs(tmp_path, events, going_on, monkeypatch):
    mlflow = pytest.importorskip("mlflow", reason="mlflow-skinny is not installed")
    pytest.importorskip("alembic", reason="mlflow's sqlite store needs alembic")
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    first = MLflow("little", tmp_path)
    first.progress(going_on(1))
    first.trial(replace(events[4], number=0, key=events[3].key, replicate=1))  # another run of the same setting
    first.close()
    second = MLflow("little", tmp_path)
    second.progress(going_on(1))
    second.trial(events[3])
    second.trial(replace(events[3], settings={"lora.rank": 5}))  # a later command finds its record, and other settings
    second.close()
    client = mlflow.MlflowClient(tracking_uri=f"sqlite:///{tmp_path / 'mlflow.db'}")
    runs = client.search_runs([client.get_experiment_by_name("little").experiment_id])
    assert sorted(run.info.run_name for run in runs) == ["trial-0", "trial-0-replicate-1"]
    (trial,) = (run for run in runs if run.info.run_name == "trial-0")
    assert (trial.info.status, trial.data.tags["state"], trial.data.params["lora.rank"]) == ("FINISHED", "complete", "4")
    assert sorted(one.step for one in client.get_metric_history(trial.info.run_id, "training.loss")) == [1, 2]
