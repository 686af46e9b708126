"""Weights & Biases' offline runs, read back."""

import json
import sys
from types import SimpleNamespace

import pytest

from orchestrator.trackers.wandb import WandB
from trials.errors import InputError


def test_each_trial_is_a_run_offline(tmp_path, record, monkeypatch):
    wandb = pytest.importorskip("wandb", reason="wandb is not installed")
    monkeypatch.setenv("WANDB_MODE", "offline")
    record("wandb", tmp_path)
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


def test_missing_api_key_is_refused(tmp_path, monkeypatch):
    pytest.importorskip("wandb", reason="wandb is not installed")
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("NETRC", str(tmp_path / "netrc"))
    for name in ("WANDB_MODE", "WANDB_API_KEY"):
        monkeypatch.delenv(name, raising=False)
    with pytest.raises(InputError, match="wandb has no API key"):
        WandB.check(tmp_path)


class FakeRun:
    """A run on a server: one of the same id goes on."""

    def __init__(self, **arguments):
        self.arguments, self.losses, self.axes, self.summary, self.ended = arguments, [], {}, {}, 0
        self.config = SimpleNamespace(update=lambda values, allow_val_change: None)

    def define_metric(self, name, step_metric):
        self.axes[name] = step_metric

    def log(self, values):
        self.losses += [values["training"]["step"]] if "loss" in values["training"] else []

    def finish(self, exit_code):
        self.ended += 1


@pytest.fixture
def server(monkeypatch) -> dict[str, FakeRun]:
    """Runs by id, behind a fake wandb: the real one resumes only online."""
    runs: dict[str, FakeRun] = {}
    fake = SimpleNamespace(init=lambda **given: runs.setdefault(given["id"], FakeRun(**given)), Settings=lambda **given: None)
    monkeypatch.setitem(sys.modules, "wandb", fake)
    return runs


def test_resumed_sweep_goes_on_with_its_runs_and_brings_the_missing_steps(tmp_path, server, events, going_on):
    stopped = WandB("little", tmp_path)
    stopped.progress(going_on(1))
    stopped.close()
    resumed = WandB("little", tmp_path)
    resumed.progress(going_on(1))
    resumed.trial(events[3])
    (run,) = server.values()
    assert (run.losses, run.ended) == ([1, 2], 2)
    assert run.arguments["resume"] == "allow" and run.axes == {"training.*": "training.step"}


def test_step_below_one_that_was_logged_is_logged_too(tmp_path, server, events, going_on):
    tracker = WandB("little", tmp_path)
    tracker.progress(going_on(2))
    tracker.trial(events[3])
    (run,) = server.values()
    assert run.losses == [2, 1]


def test_sweeps_of_one_name_in_two_places_have_runs_of_their_own(tmp_path, server, going_on):
    for place in ("a", "b"):
        WandB("little", tmp_path / place).progress(going_on(1))
    assert len(server) == 2


def test_offline_run_of_an_earlier_command_is_replaced(tmp_path, server, going_on):
    WandB("little", tmp_path).progress(going_on(1))
    (own,) = server
    old, other = tmp_path / "wandb" / f"offline-run-20260101_000000-{own}", tmp_path / "wandb" / "offline-run-x-other"
    for folder in (old, other):
        folder.mkdir(parents=True)
    WandB("little", tmp_path).progress(going_on(1))
    assert not old.exists() and other.exists()
