"""One trial by the real stack that several test files look at."""

import pytest

from trials.spec import TrialSpec


@pytest.fixture(scope="module")
def module_spec() -> TrialSpec:
    from tests.factories.configs import CONFIG, deep

    return TrialSpec.model_validate({name: deep(CONFIG)[name] for name in TrialSpec.model_fields if name in CONFIG})


@pytest.fixture(scope="module")
def record(worker, module_spec):
    return worker.run(module_spec)
