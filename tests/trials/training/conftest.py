"""Fixtures of this folder."""

import pytest

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
