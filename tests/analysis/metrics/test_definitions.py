import numpy as np
import pytest

from analysis.metrics.definitions import ALL_KINDS


def of(name, tuned, base):
    sides = [{column: np.array(value, dtype=float) for column, value in side.items()} for side in (tuned, base)]
    return float(ALL_KINDS[name].of(*sides))


def test_forgetting_is_the_lost_share_of_the_base():
    assert of("forgetting", {"score": 0.3}, {"score": 0.4}) == pytest.approx(0.25)
    assert np.isnan(of("forgetting", {"score": 0.3}, {"score": 0.0}))


def test_format_and_skill_add_up_to_forgetting_of_the_strict_score():
    tuned, base = {"strict": 0.2, "marker": 0.5}, {"strict": 0.6, "marker": 0.9}
    parts = [of(f"{part}_forgetting", tuned, base) for part in ("format", "skill")]
    assert sum(parts) == pytest.approx(1 - 0.2 / 0.6)


def test_unknown_skill_without_any_marker_makes_the_loss_format():
    assert of("skill_forgetting", {"strict": 0.0, "marker": 0.0}, {"strict": 0.6, "marker": 0.9}) == 0


def test_bits_per_byte_are_over_all_bytes():
    assert of("gold_bpb_delta", {"bits": 90.0, "bytes": 100.0}, {"bits": 60.0, "bytes": 100.0}) == pytest.approx(0.3)
