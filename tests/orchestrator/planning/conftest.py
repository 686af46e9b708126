"""The config that plans are made of."""

import pytest

from orchestrator.config.model import SweepConfig


@pytest.fixture
def config(parts) -> SweepConfig:
    return SweepConfig.model_validate(parts)
