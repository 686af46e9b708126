"""What the tests of the sweep share."""

import pytest

from orchestrator.config.model import SweepConfig


@pytest.fixture
def config(parts) -> SweepConfig:
    """A grid of three points."""
    parts["space"]["lora.rank"]["choices"] = [2, 4, 8]
    return SweepConfig.model_validate(parts)
