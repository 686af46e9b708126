import numpy as np
import pytest

from analysis.stats.bootstrap import draws_for
from tests.factories.sweeps import Builder


def test_unpaired_errors_do_not_cancel_between_sweeps(tmp_path):
    """Without documents that pair each trial's error is its own: it must not cancel between sweeps."""
    draws = []
    for name, right in (("a", 30), ("b", 31)):
        builder = Builder(tmp_path / name).baseline()
        builder.add((right, 30), documents=False).add((right - 5, 31), documents=False).add((right - 6, 33), documents=False)
        draws.append((builder if name == "a" else builder.add((20, 30), documents=False)).load().draws[:, 0, 0])
    assert (draws[1] - draws[0]).std() == pytest.approx(np.hypot(draws[0].std(), draws[1].std()), rel=0.2)


def test_thousands_of_settings_take_fewer_draws():
    assert draws_for(1000) == 1000 > draws_for(1001)


def test_error_of_the_base_is_shared_by_all_trials(tmp_path):
    trials = Builder(tmp_path).baseline().add((26, 37)).add((27, 37)).load(constraints=[]).trials
    assert trials["correlation"].notna().all()
