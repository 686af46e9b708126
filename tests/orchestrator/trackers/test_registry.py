"""Trackers, with the real packages where they are installed: runs read back from what each of them wrote."""

import json
import sys
import threading

import pytest

from orchestrator.sweep.events import Event, Observers
from orchestrator.trackers import registry
from trials.errors import InputError
from trials.ledger.record import TrialRecord

METRICS = {"commonsense.gain": 0.02, "math.forgetting": None}


@pytest.fixture
def told(spec) -> list[Event]:
    """A baseline, a finished trial with losses, a failed one."""
    record = TrialRecord(key=spec.key, state="complete", spec=spec, losses=[(1, 3.0), (2, 2.5)])
    settings = {"lora.rank": 4, "data.mix.micro/gsm8k": 0.5}
    seconds = {"train": 2.0, "evaluate.math": 1.0}
    failure = {"kind": "NonFiniteLoss", "message": "the loss was nan"}
    return [
        Event("sweep_started", "little"),
        Event("trial_finished", "little", key="base", metrics={"commonsense.value": 0.5}, seconds=seconds),
        Event("trial_started", "little", number=0, key=spec.key, settings=settings),
        Event(
            "trial_finished",
            "little",
            "2026-01-02T03:04:05.000+00:00",
            0,
            spec.key,
            0,
            settings,
            METRICS,
            seconds,
            record=record,
        ),
        Event("trial_failed", "little", number=1, key="bad", replicate=2, settings={"lora.rank": 8}, failure=failure),
    ]


def tell(name: str, folder, told: list[Event]) -> None:
    observers = Observers(registry.make([name], "little", folder))
    for event in told:
        observers(event)
    observers.close()


def test_tensorboard_has_a_run_for_each_trial_with_settings_metrics_and_losses_by_their_names(tmp_path, told):
    pytest.importorskip("tensorboardX", reason="tensorboardX is not installed")
    reader = pytest.importorskip(
        "tensorboard.backend.event_processing.event_accumulator", reason="tensorboard is not installed"
    )
    from tensorboard.plugins.hparams import plugin_data_pb2

    tell("tensorboard", tmp_path, told)
    runs = tmp_path / "tensorboard"
    assert {path.name for path in runs.iterdir()} == {"baseline-base", "trial-0", "trial-1-replicate-2"}
    read = reader.EventAccumulator(str(runs / "trial-0"))
    read.Reload()
    assert set(read.Tags()["scalars"]) == {"training.loss", "commonsense.gain", "seconds.train", "seconds.evaluate.math"}
    assert [(one.step, one.value) for one in read.Scalars("training.loss")] == [(1, 3.0), (2, 2.5)]
    assert read.Scalars("commonsense.gain")[0].value == pytest.approx(0.02)
    started = plugin_data_pb2.HParamsPluginData.FromString(
        read.SummaryMetadata("_hparams_/session_start_info").plugin_data.content
    )
    hparams = started.session_start_info.hparams
    assert {name: value.number_value for name, value in hparams.items()} == {"lora.rank": 4, "data.mix.micro/gsm8k": 0.5}


def test_mlflow_has_a_run_for_each_trial_with_every_setting_and_metric_by_its_name(tmp_path, told, monkeypatch):
    mlflow = pytest.importorskip("mlflow", reason="mlflow-skinny is not installed")
    pytest.importorskip("alembic", reason="mlflow's sqlite store needs alembic")
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    monkeypatch.chdir(tmp_path)
    tell("mlflow", tmp_path / "sweep", told)
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


def test_mlflow_takes_the_name_of_any_source():
    assert registry._mlflow_name("data.mix.my data|v2,new") == "data.mix.my data_v2_new"
    assert registry._mlflow_name("data.mix.micro/gsm8k") == "data.mix.micro/gsm8k"


def test_wandb_keeps_a_run_for_each_trial_when_it_is_offline(tmp_path, told, monkeypatch):
    wandb = pytest.importorskip("wandb", reason="wandb is not installed")
    monkeypatch.setenv("WANDB_MODE", "offline")
    tell("wandb", tmp_path, told)
    wandb.teardown()  # as the end of a process does: waits until its service has written everything
    runs = [_wandb_run(folder) for folder in (tmp_path / "wandb").glob("offline-run-*")]
    assert {run["name"]: run["group"] for run in runs} == dict.fromkeys(
        ("baseline-base", "trial-0", "trial-1-replicate-2"), "little"
    )
    trial = next(run for run in runs if run["name"] == "trial-0")
    assert trial["config"]["data.mix.micro/gsm8k"] == 0.5
    assert trial["config"]["state"] == "complete"
    assert trial["summary"]["commonsense.gain"] == 0.02
    assert trial["losses"] == [3.0, 2.5]


def _wandb_run(folder) -> dict:
    """Name, group, configuration, summary and losses of an offline run."""
    from wandb.proto import wandb_internal_pb2

    found = {"config": {}, "summary": {}, "losses": []}
    for data in _logged(next(folder.glob("*.wandb")).read_bytes()):
        record = wandb_internal_pb2.Record.FromString(data)
        kind = record.WhichOneof("record_type")
        if kind == "run":
            found |= {"name": record.run.display_name, "group": record.run.run_group}
            found["config"] |= {item.key: json.loads(item.value_json) for item in record.run.config.update}
        elif kind == "summary":
            found["summary"] |= {_key(item): json.loads(item.value_json) for item in record.summary.update}
        elif kind == "history":
            found["losses"] += [json.loads(item.value_json) for item in record.history.item if _key(item) == "training.loss"]
    return found


def _key(item) -> str:
    return item.key or ".".join(item.nested_key)


def _logged(content: bytes, block: int = 32768) -> list[bytes]:
    """The records of a log in LevelDB's format, behind its own header of seven bytes."""
    records, position, part = [], 7, b""
    while position + 7 <= len(content):
        if block - position % block < 7:
            position += block - position % block
        length, kind = int.from_bytes(content[position + 4 : position + 6], "little"), content[position + 6]
        part += content[position + 7 : position + 7 + length]
        position += 7 + length
        if kind in (1, 4):  # the whole, or the last part
            records.append(part)
            part = b""
    return records


def test_wandb_without_a_key_is_one_line_before_anything_starts(tmp_path, monkeypatch):
    pytest.importorskip("wandb", reason="wandb is not installed")
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("NETRC", str(tmp_path / "netrc"))
    for name in ("WANDB_MODE", "WANDB_API_KEY"):
        monkeypatch.delenv(name, raising=False)
    with pytest.raises(InputError, match="wandb has no API key"):
        registry.check(["wandb"], tmp_path)


@pytest.mark.parametrize(("name", "module"), [("tensorboard", "tensorboardX"), ("mlflow", "mlflow")])
def test_a_tracker_that_cannot_write_to_a_store_is_refused_before_anything_starts(
    s3, monkeypatch, command, parts, write, name, module
):
    monkeypatch.setitem(sys.modules, module, object())  # as if it were installed
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    ran = command("run", write(parts | {"trackers": [name]}), "--storage", f"{s3}/runs")
    assert ran.returncode == 2
    assert ran.stdout == ""
    assert ran.stderr.startswith(f"trackers: {name} writes to a folder of this machine, not to {s3}/runs/little")
    assert len(ran.stderr.splitlines()) == 1


def test_an_unknown_tracker_names_those_that_there_are(tmp_path):
    with pytest.raises(InputError, match="no tracker 'comet'; there are tensorboard, mlflow, wandb"):
        registry.check(["comet"], tmp_path)


@pytest.mark.parametrize(("name", "module"), [("tensorboard", "tensorboardX"), ("mlflow", "mlflow"), ("wandb", "wandb")])
def test_a_tracker_that_is_not_installed_is_one_line_with_its_extra(name, module, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, module, None)  # as Python itself marks a module that cannot be imported
    with pytest.raises(InputError) as found:
        registry.check([name], tmp_path)
    assert str(found.value) == f"trackers: {name} is not installed: pip install 'slimsweep[{name}]'"


class _Deaf:
    name = "deaf"

    def __init__(self) -> None:
        self.called, self.release = 0, threading.Event()

    def trial(self, event: Event) -> None:
        self.called += 1
        self.release.wait(30)
        raise ConnectionError("no answer")


def test_a_tracker_whose_server_hangs_or_fails_holds_nothing_up_and_is_told_no_more(told, capsys):
    deaf = _Deaf()
    observer = registry.Background(deaf)
    for event in told * 3:  # returns while the first call is still waiting
        observer(event)
    deaf.release.set()
    observer.close()
    assert deaf.called == 1
    assert capsys.readouterr().err == "warning: tracker deaf: no answer; it is told nothing more of this sweep\n"


def test_the_end_of_a_sweep_does_not_wait_for_ever(told, capsys, monkeypatch):
    monkeypatch.setattr(registry, "PATIENCE", 0.05)
    deaf = _Deaf()
    observer = registry.Background(deaf)
    for event in told:
        observer(event)
    observer.close()
    assert "tracker deaf: does not answer" in capsys.readouterr().err
    deaf.release.set()
