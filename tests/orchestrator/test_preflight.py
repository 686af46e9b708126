"""A sweep's inputs are checked before it starts."""

import pytest

from orchestrator.config.model import SweepConfig
from orchestrator.preflight import check_inputs
from trials.errors import InputError


def test_inputs_are_checked_at_the_corners_of_the_space(parts):
    parts["space"] = {"data.samples": {"type": "categorical", "choices": [16, 5_000]}}
    with pytest.raises(InputError, match="needs 2500 rows"):
        check_inputs(SweepConfig.model_validate(parts))
