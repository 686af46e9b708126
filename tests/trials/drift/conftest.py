"""The base and what its drift is measured with."""

import pytest

from trials.hub.hub import Hub
from trials.models import base
from trials.spec import Base


@pytest.fixture(scope="module")
def loaded():
    return base.load(Base(model="micro", dtype="float32"), Hub())
