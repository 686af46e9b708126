"""Weights & Biases' offline runs, read back."""

import json

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
