"""Trials by the real stack that several test files look at or disturb."""

import pytest

from trials.ledger.record import TrialRecord
from trials.spec import TrialSpec


@pytest.fixture(scope="module")
def little() -> TrialSpec:
    from tests.factories.configs import CONFIG, deep

    parts = deep(CONFIG)
    for role in parts["eval"].values():
        role |= {"documents": 4, "batch_size": 8}
    return TrialSpec.model_validate({name: parts[name] for name in TrialSpec.model_fields if name in CONFIG})


@pytest.fixture(scope="module")
def undisturbed(worker, little) -> TrialRecord:
    return worker.run(little)


@pytest.fixture(scope="module")
def module_spec() -> TrialSpec:
    from tests.factories.configs import CONFIG, deep

    return TrialSpec.model_validate({name: deep(CONFIG)[name] for name in TrialSpec.model_fields if name in CONFIG})


@pytest.fixture(scope="module")
def record(worker, module_spec):
    return worker.run(module_spec)
