"""Pickled weights are never read, by whatever way a base leads to them."""

import json
import pickle
import shutil
from pathlib import Path

import pytest
import torch

from tests.factories.bases import MICRO
from trials import preflight
from trials.errors import InputError
from trials.hub.hub import Hub
from trials.models import base
from trials.spec import Base, TrialSpec
from trials.tasks.tasks import Tasks


class Evil:
    """A pickle that makes a file when it is loaded."""

    def __init__(self, mark: Path):
        self.mark = mark

    def __reduce__(self):
        return Path.touch, (self.mark,)


@pytest.fixture
def folder(tmp_path):
    """A base without weights."""
    return Path(shutil.copytree(MICRO, tmp_path / "model", ignore=shutil.ignore_patterns("*.safetensors")))


def refused(folder):
    with pytest.raises(InputError) as caught:
        base.load(Base(model=str(folder), dtype="float32"), Hub())
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_pickled_base_is_refused_before_any_trial(folder, spec):
    torch.save({}, folder / "pytorch_model.bin")
    parts = spec.model_dump(mode="json")
    parts["base"]["model"] = str(folder)
    with pytest.raises(InputError, match=r"pytorch_model.bin is a pickle.*; convert the weights to safetensors"):
        preflight.check(TrialSpec.model_validate(parts), Hub(), Tasks(Hub()))


def test_pickle_is_not_read(folder):
    (folder / "pytorch_model.bin").write_bytes(pickle.dumps(Evil(folder / "mark")))
    assert f"{folder / 'pytorch_model.bin'} is a pickle" in refused(folder)
    assert not (folder / "mark").exists()


@pytest.mark.parametrize("name", ["pytorch_model.bin", "training_args.bin"])
def test_pickles_beside_safetensors_are_ignored(folder, name):
    shutil.copy(MICRO / "model.safetensors", folder)
    (folder / name).write_bytes(pickle.dumps(Evil(folder / "mark")))
    assert base.load(Base(model=str(folder), dtype="float32"), Hub()).model
    assert not (folder / "mark").exists()


def test_index_of_safetensors_leads_to_no_pickle(folder):
    index = {"metadata": {}, "weight_map": {"lm_head.weight": "a.bin"}}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))
    (folder / "other.safetensors").write_bytes(b"")
    torch.save({}, folder / "a.bin")
    assert "a.bin is a pickle" in refused(folder)


def test_setting_of_the_configuration_leads_to_no_pickle(folder):
    shutil.copy(MICRO / "model.safetensors", folder)
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | {"transformers_weights": "adapter_model.bin"}))
    torch.save({}, folder / "adapter_model.bin")
    assert "adapter_model.bin is a pickle" in refused(folder)


def test_folder_without_weights_is_one_line(folder):
    assert "has no weights in safetensors (model.safetensors)" in refused(folder)


def test_repository_without_safetensors_is_one_line(folder, tmp_path, monkeypatch):
    """The hub's cache, as it is after a request for files that the repository does not have."""
    commit = "0" * 40
    place = tmp_path / "hub" / "models--some--model"
    shutil.copytree(folder, place / "snapshots" / commit)
    torch.save({}, place / "snapshots" / commit / "pytorch_model.bin")
    (place / "refs").mkdir()
    (place / "refs" / "main").write_text(commit)
    for name in ("model.safetensors", "model.safetensors.index.json", "adapter_config.json"):
        missing = place / ".no_exist" / commit / name
        missing.parent.mkdir(parents=True, exist_ok=True)
        missing.touch()
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "hub"))
    with pytest.raises(InputError, match="'some/model' has no weights in safetensors"):
        base.load(Base(model="some/model", dtype="float32"), Hub())
    assert torch.load.__name__ == "load"
