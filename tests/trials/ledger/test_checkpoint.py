"""Checkpoints: whole and of the same origin, or set aside."""

import json
import subprocess
import sys
from pathlib import Path

import pandas as pd
import pytest
import torch

from tests.factories.checkpoints import as_saved, flipped
from trials.ledger.checkpoint import CheckpointStore


def torn(folder: Path) -> None:
    path = next(folder.glob("training-*.safetensors"))
    path.write_bytes(path.read_bytes()[:-100])


def lost(folder: Path) -> None:
    next(folder.glob("training-*.safetensors")).unlink()


def half(folder: Path) -> None:
    path = folder / "training.json"
    path.write_text(path.read_text()[:100])


def edited(folder: Path) -> None:
    path = folder / "training.json"
    sealed = json.loads(path.read_text())
    sealed["state"]["training"]["losses"][0][1] = 0.0
    path.write_text(json.dumps(sealed))


def not_json(folder: Path) -> None:
    (folder / "training.json").write_bytes(b"\x80\x02cposix\nsystem\n")


@pytest.mark.parametrize(
    ("damage", "reason"),
    [
        (torn, "its checksum is wrong"),
        (flipped, "its checksum is wrong"),
        (edited, "its checksum is wrong"),
        (lost, "the file that it names is missing"),
        (half, "it is not whole"),
        (not_json, "it is not whole"),
    ],
)
def test_damaged_state_is_set_aside(tmp_path, damage, reason):
    checkpoints = CheckpointStore(tmp_path / "partial").bound(key="k")
    state = {"training": {"losses": [[1, 2.0]]}}
    checkpoints.save(state, {"weight": torch.arange(100.0)})
    assert checkpoints.load(as_saved).state == state
    damage(checkpoints.folder)
    assert checkpoints.load(as_saved) is None
    assert checkpoints.set_aside == [f"training.json: {reason}"]
    assert (checkpoints.folder / "damaged.training.json").exists()
    assert checkpoints.load(as_saved) is None, "and is not found again"


def test_state_of_another_origin_is_never_loaded(tmp_path):
    origin = {"key": "k", "versions": {"torch": "2.13"}, "device": "cpu"}
    checkpoints = CheckpointStore(tmp_path).bound(**origin)
    for other in ({"versions": {"torch": "2.14"}}, {"device": "cuda"}, {"key": "l"}):
        checkpoints.bound(**other).save({}, {"weight": torch.ones(2)})
        checkpoints.bound(**other).save_documents("math", {}, pd.DataFrame({"score": [1.0]}))
        assert checkpoints.load(as_saved) is None
        assert checkpoints.load_documents("math") is None
    assert checkpoints.set_aside[:2] == [
        f"{name}: it was made with another versions" for name in ("training.json", "documents.math.json")
    ]
    assert checkpoints.set_aside[2].endswith("another device")
    assert checkpoints.set_aside[4].endswith("another key")


def test_only_the_newest_state_is_kept(tmp_path):
    checkpoints = CheckpointStore(tmp_path)
    for step in range(3):
        checkpoints.save({"step": step}, {"weight": torch.full((3,), float(step))})
    assert len(list(tmp_path.iterdir())) == 2
    saved = checkpoints.load(as_saved)
    assert (saved.state["step"], saved.tensors["weight"].tolist()) == (2, [2.0, 2.0, 2.0])


def test_adapter_is_there_only_when_it_is_whole(tmp_path):
    checkpoints = CheckpointStore(tmp_path / "ledger" / "key" / "partial")

    def write(folder: Path) -> None:
        folder.mkdir()
        (folder / "weights").write_text("half")
        raise RuntimeError("interrupted")

    with pytest.raises(RuntimeError, match="interrupted"):
        checkpoints.save_adapter(write)
    assert not (checkpoints.local / "adapter").exists()


def test_ledger_imports_no_torch():
    modules = "trials.spec, trials.errors, trials.ledger.record, trials.ledger.checkpoint"
    code = f"import sys, {modules}; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], cwd=Path(__file__).parents[3], check=False).returncode == 0
