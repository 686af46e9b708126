"""The look of figures."""

import matplotlib

from analysis.figures.theme import DARK, LIGHT, broken, canvas, png, svg, themed


@themed
def one(theme=LIGHT):
    figure, (axes,) = canvas(theme, (3, 2))
    axes.set_title("$\\frac$")
    return figure


def test_theme_colours_the_figure_and_leaves_rcparams():
    before = dict(matplotlib.rcParams)
    for theme in (LIGHT, DARK):
        figure = one(theme)
        assert matplotlib.colors.to_hex(figure.axes[0].get_facecolor()) == theme.paper
    assert dict(matplotlib.rcParams) == before


def test_dollar_sign_is_no_formula_and_equal_figures_are_equal_bytes():
    assert png(one()) == png(one()) and svg(one()) == svg(one())


def test_unit_in_brackets_stays_whole():
    assert broken("math gold solution, change (bits per byte)", 20) == "math gold solution,\nchange\n(bits per byte)"
    assert broken("short (points)", 20) == "short (points)"
