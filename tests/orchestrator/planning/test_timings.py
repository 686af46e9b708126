"""Seconds of earlier trials predict those of the same base on the same hardware."""

import pytest

from orchestrator.planning.timings import Measured
from tests.factories.planned import leave, with_samples
from trials.ledger.record import Ledger


def test_fixed_seconds_do_not_grow_with_rows(config, tmp_path):
    """Mixing takes 4 s and 1 ms a row here: 100 rows alone would make 1,600 rows cost 65.6 s."""
    for samples in (100, 200, 400):
        leave(tmp_path, with_samples(config, samples), mix=4.0 + samples / 1000, train=samples / 10, evaluate=1.0)
    measured = Measured(map(Ledger(tmp_path).read, Ledger(tmp_path)), None)
    assert measured.seconds(with_samples(config, 1600))["mix"] == pytest.approx(5.6)
    assert measured.seconds(with_samples(config, 1600))["train"] == pytest.approx(160.0)


def test_drift_takes_its_measured_time_once(config, tmp_path):
    leave(tmp_path, with_samples(config, 100), drift=3.0, train=10.0, evaluate=1.0)
    measured = Measured(map(Ledger(tmp_path).read, Ledger(tmp_path)), None)
    assert measured.seconds(with_samples(config, 400))["drift"] == 3.0
    assert "drift" not in measured.seconds(with_samples(config, 400).baseline())


def test_one_size_gives_proportional_seconds(config, tmp_path):
    leave(tmp_path, with_samples(config, 100), train=10.0, evaluate=6.0)
    measured = Measured(map(Ledger(tmp_path).read, Ledger(tmp_path)), None)
    assert measured.seconds(with_samples(config, 400))["train"] == pytest.approx(40.0)


def test_records_of_other_hardware_do_not_count(config, tmp_path):
    leave(tmp_path, with_samples(config, 100), "NVIDIA L4", train=10.0, evaluate=6.0)
    measured = Measured(map(Ledger(tmp_path).read, Ledger(tmp_path)), None)
    assert measured.seconds(with_samples(config, 100)) == {}
    assert measured.left_out([config.base]) == ["NVIDIA L4"]
