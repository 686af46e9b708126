"""Sweeps that tests of the analysis read."""

import pytest

from tests.factories.sweeps import NASTY, Builder
from trials.ledger.record import Failure


@pytest.fixture
def builder(tmp_path):
    return Builder(tmp_path)


@pytest.fixture
def usual(builder):
    """Base 20 and 40 of 50. Trials: 0 and 1 on the front, 2 dominated, 3 beyond the constraint, 4 failed, 5 pending."""
    failure = Failure(kind="OutOfMemoryError", message=NASTY, traceback=f"Traceback\n{NASTY}")
    return builder.baseline().add((26, 37)).add((24, 40)).add((23, 38)).add((40, 10)).add(failure=failure).add()
