"""The base as a point."""

import numpy as np
import pytest

from analysis.stats.untrained import untrained, untrained_values

NAMES = ["commonsense.gain", "math.forgetting", "math.value", "learning.kl", "learning.loss"]


@pytest.fixture
def base(builder):
    return builder.baseline((20, 40)).ledger.complete(builder.base.key)


def test_base_differs_from_itself_by_nothing_and_has_its_own_score(base):
    found = untrained([base], NAMES, "all", 200)
    assert found.values[0, :4].tolist() == [0.0, 0.0, 0.8, 0.0]
    assert np.isnan(found.values[0, 4])
    assert (found.errors[:, 0, [0, 1, 3]] == 0).all()
    assert found.draws[:, 0, 2].std() == pytest.approx(np.sqrt(0.8 * 0.2 / 50), rel=0.2)


def test_missing_base_and_undefined_metric_have_no_value(base, builder):
    assert np.isnan(untrained_values([None], NAMES, "all")).all()
    builder.record(builder.base, (20, 0))
    assert np.isnan(untrained_values([builder.ledger.complete(base.key)], ["math.forgetting"], "all")).all()
