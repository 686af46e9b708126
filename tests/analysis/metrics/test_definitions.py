import numpy as np
import pytest

from analysis.metrics.definitions import ALL_KINDS, KINDS, kinds
from trials.ledger.outcomes import SHARES_SCALE, Scale


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


def on(scale, tuned, base):
    sides = [{column: np.array(value, dtype=float) for column, value in side.items()} for side in (tuned, base)]
    return {name: float(kinds(scale)[name].of(*sides)) for name in KINDS}


def test_lower_error_is_a_gain_and_a_grown_one_forgetting():
    better = on(Scale(higher_is_better=False), {"score": 0.3}, {"score": 0.4})
    assert better == pytest.approx({"value": 0.3, "base": 0.4, "gain": 0.1, "drop": -0.1, "forgetting": -0.25})
    assert on(Scale(higher_is_better=False), {"score": 1.0}, {"score": 0.4})["forgetting"] == pytest.approx(1.5)


def test_perplexity_is_of_all_words_together():
    found = on(Scale(form="exp", higher_is_better=False), {"score": 8.0, "weight": 4.0}, {"score": 4.0, "weight": 4.0})
    assert found["value"] == pytest.approx(np.exp(2)) and found["base"] == pytest.approx(np.exp(1))
    assert found["gain"] == pytest.approx(np.exp(1) - np.exp(2))
    assert found["forgetting"] == pytest.approx(np.exp(1) - 1)


def test_plain_scale_has_the_plain_kinds_and_no_other_is_made_of_flips():
    assert kinds(SHARES_SCALE) is ALL_KINDS
    assert on(SHARES_SCALE, {"score": 0.3}, {"score": 0.4}) == pytest.approx(
        on(Scale(share=False), {"score": 0.3}, {"score": 0.4})
    )
    assert kinds(Scale(share=False))["gain"].unit is None
    assert kinds(Scale(form="ratio"))["gain"].unit is None
    assert kinds(Scale(higher_is_better=False))["gain"].unit is not None
