"""The report's sentences."""

import pytest

from analysis.report.findings import claims
from tests.factories.sweeps import Builder


@pytest.fixture
def builder(tmp_path):
    return Builder(tmp_path)


def test_infeasible_sweep_names_the_nearest_trial(builder):
    (sentence, *_) = claims(builder.baseline().add((40, 10)).add((41, 30)).load())
    assert sentence.startswith("Nearest comes trial #1, with math forgetting +25.0 %")


def test_interval_that_spans_0_is_reported_as_such(builder):
    assert any("spans 0" in claim for claim in claims(builder.baseline().add((21, 40)).add((20, 40)).load()))
