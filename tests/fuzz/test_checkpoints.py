"""Damaged checkpoints in `partial/`: a trial that finds one sets it aside, says so, and begins again."""

import json
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import torch

from tests.factories.damage import BYTES, DEEP, HUGE, KINDS
from tests.fuzz import cases
from trials.ledger.checkpoint import CheckpointStore
from trials.ledger.record import TrialRecord
from trials.run.training_phase import Progress
from trials.training import trainer

ORIGIN = {"key": "k", "versions": {"torch": "2"}}
ODD: dict[str, Any] = {"null": None, "text": "x\0\x1b[31m", "list": [1, None], "map": {"a": 1}, "huge": HUGE, "deep": DEEP}


@pytest.fixture
def checkpoints(tmp_path: Path, spec) -> CheckpointStore:
    """A training after one step, and a role that has been evaluated."""
    made = CheckpointStore(tmp_path / "ledger" / "key" / "partial").bound(**ORIGIN)
    _progress(made, spec).save(trainer.State(1, 8, {"a": torch.ones(2)}, losses=[(1, 2.0)]))
    made.save_documents("math", {"seconds": 1.0, "out_of_memory": []}, pd.DataFrame({"score": [1.0]}))
    return made


def _progress(checkpoints: CheckpointStore, spec: Any) -> Progress:
    return Progress(TrialRecord(key="k", state="complete", spec=spec), checkpoints)


def _damages() -> Iterator[tuple[str, Callable[[Path], None]]]:
    for file in ("training.json", "training-*.safetensors", "documents.math.json", "documents.math-*.parquet"):
        for kind, change in BYTES.items():
            yield f"{file} {kind}", lambda folder, file=file, change=change: _changed(folder, file, change)
        for kind, make in KINDS.items():
            yield f"{file} {kind}", lambda folder, file=file, make=make: _replaced(folder, file, make)
    for file in ("training-*.safetensors", "documents.math-*.parquet"):
        yield f"{file} gone", lambda folder, file=file: next(folder.glob(file)).unlink()
    for file in ("training.json", "documents.math.json"):
        for field in ("file", "origin", "state", "sha256"):
            for kind, value in ODD.items():
                yield f"{file} {field} {kind}", lambda folder, way=(file, field, value): _set(folder / way[0], way[1], way[2])
    yield "training.json elsewhere", lambda folder: _set(folder / "training.json", "file", "../../../../etc/passwd")


def _changed(folder: Path, file: str, change: Callable[[bytes], bytes]) -> None:
    path = next(folder.glob(file))
    path.write_bytes(change(path.read_bytes()))


def _replaced(folder: Path, file: str, make: Callable[[Path], object]) -> None:
    path = next(folder.glob(file))
    path.unlink()
    make(path)


def _set(path: Path, field: str, value: Any) -> None:
    path.write_text(json.dumps(json.loads(path.read_text()) | {field: value}))


@pytest.mark.parametrize("damage", cases(_damages()))
def test_a_damaged_checkpoint_is_set_aside_and_replaced(damage, checkpoints, spec, patience):
    damage(checkpoints.folder)
    again = CheckpointStore(checkpoints.folder).bound(**ORIGIN)
    progress = _progress(again, spec)
    assert (progress.resume() is None) + (again.load_documents("math") is None) == 1
    assert len(again.set_aside) == 1
    progress.save(trainer.State(2, 8, {"a": torch.zeros(2)}))
    again.save_documents("math", {"seconds": 1.0, "out_of_memory": []}, pd.DataFrame({"score": [1.0]}))
    assert progress.resume().step == 2
    assert again.load_documents("math") is not None
    again.remove()
    assert not checkpoints.folder.exists()


@pytest.mark.parametrize("kind", ["state", "told"])
@pytest.mark.parametrize("value", ODD.values(), ids=ODD)
def test_a_whole_checkpoint_of_something_else_is_set_aside(kind, value, checkpoints, spec):
    """Its checksum is right: another version of the program wrote it, or somebody who knows how one is made."""
    whole = json.loads((checkpoints.folder / "training.json").read_text())["state"]
    state = whole | {"told": value} if kind == "told" else whole | {"training": value}
    checkpoints.save(state, {"weights/a": torch.ones(2)})
    assert _progress(checkpoints, spec).resume() is None
    assert (checkpoints.folder / "damaged.training.json").exists()


def test_a_link_to_the_checkpoint_s_folder_while_a_trial_runs_is_not_followed(checkpoints, spec, tmp_path):
    from trials.errors import InputError

    foreign = tmp_path / "foreign"
    (foreign / "adapter").mkdir(parents=True)
    (foreign / "adapter" / "weights").write_text("precious")
    shutil.rmtree(checkpoints.folder)
    checkpoints.folder.symlink_to(foreign)
    with pytest.raises(InputError, match="symbolic link"):
        checkpoints.save_adapter(lambda folder: folder.mkdir())
    with pytest.raises(InputError, match="symbolic link"):
        _progress(checkpoints, spec).save(trainer.State(2, 8, {}))
    checkpoints.remove()
    assert [path.name for path in foreign.rglob("*")] == ["adapter", "weights"]
