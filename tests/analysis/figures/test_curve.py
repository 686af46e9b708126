"""Time series as inline SVGs."""

from analysis.figures.curve import THINNED, curve


def test_curve_is_thinned_and_keeps_its_ends():
    assert curve([(1, 2.0)], "loss", "a") == ""
    drawn = curve([(step, 1 / step) for step in range(1, 5_001)], "<loss>", "a")
    assert drawn.count("L ") < 1.2 * THINNED
    assert "&lt;loss&gt;" in drawn and "last 0.0002" in drawn
