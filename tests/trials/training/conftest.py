"""Fixtures of this folder."""

from pathlib import Path

import pytest

from tests.factories.unsloth import DOCUMENTED
from trials import mix
from trials.hub.hub import Hub
from trials.mix import Example
from trials.models import base
from trials.spec import Base, Data


@pytest.fixture(scope="module")
def loaded() -> base.LoadedBase:
    return base.load(Base(model="micro", dtype="float32"), Hub())


@pytest.fixture(scope="module")
def mixed(loaded) -> list[Example]:
    data = Data(samples=56, mix={"micro/alpaca": 0.5, "micro/gsm8k": 0.5})
    return mix.build(data, Hub(), loaded.tokenizer)


@pytest.fixture
def rows(mixed) -> list[Example]:
    return mixed[:32]


@pytest.fixture
def heldout(mixed) -> list[Example]:
    return mixed[32:]


@pytest.fixture
def documented(tmp_path, monkeypatch) -> Path:
    """The folder of a fake Unsloth package, on the path of other processes only."""
    (tmp_path / "unsloth").mkdir()
    (tmp_path / "unsloth" / "__init__.py").write_text(DOCUMENTED)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    return tmp_path
