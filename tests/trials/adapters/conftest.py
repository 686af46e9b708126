"""Fixtures of this folder."""

import pytest

from tests.factories.configs import CONFIG, deep
from trials import mix
from trials.hub.hub import Hub
from trials.models import base
from trials.spec import TrialSpec


@pytest.fixture(scope="module")
def spec() -> TrialSpec:
    parts = deep(CONFIG)
    parts["train"]["learning_rate"] = 1e-2
    return TrialSpec.model_validate({name: parts[name] for name in TrialSpec.model_fields if name in parts})


@pytest.fixture(scope="module")
def loaded(spec) -> base.LoadedBase:
    return base.load(spec.base, Hub())


@pytest.fixture(scope="module")
def rows(spec, loaded) -> list[mix.Example]:
    return mix.build(spec.data.model_copy(update={"samples": 24}), Hub(), loaded.tokenizer)
