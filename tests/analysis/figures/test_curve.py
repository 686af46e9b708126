"""Time series as inline SVGs."""

from analysis.figures.curve import curve


def test_curve_is_thinned_and_keeps_its_ends():
    assert curve([(1, 2.0)], "loss") == ""
    drawn = curve([(step, 1 / step) for step in range(1, 5_001)], "<loss>")
    assert drawn.count("L") < 300
    assert "&lt;loss&gt;" in drawn and "last 0.0002" in drawn
