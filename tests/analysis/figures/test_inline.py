"""Figures as inline SVG."""

import re
from xml.etree import ElementTree

import numpy as np

from analysis.figures.inline import inline
from analysis.figures.theme import LIGHT, canvas, themed

NASTY = "<b>&amp;"


@themed
def drawn():
    figure, (axes,) = canvas(LIGHT, (4, 3))
    axes.scatter([0, 1], [0, 1], color=LIGHT.front).set_urls(np.array(["#trial-3", "#row-4"]))
    axes.plot([-9, 9], [0.123456789, 0.5], color=LIGHT.region)
    axes.barh([0], [1], color=LIGHT.front, hatch="//")
    axes.set(xlim=(0, 1), title=NASTY)
    return figure


def test_colours_are_the_page_s_and_no_style_is_left():
    text = str(inline(drawn(), "one", NASTY))
    assert "var(--front)" in text and "var(--region)" in text and LIGHT.front.lower() not in text.lower()
    assert "style" not in text and "http" not in text and "font-family" not in text


def test_marks_carry_their_number_and_are_links_where_words_are_given():
    root = ElementTree.fromstring(str(inline(drawn(), "one", "", {"#trial-3": "trial three"})))
    assert [mark.get("data-n") for mark in root.iter("use") if mark.get("data-n")] == ["3", "4"]
    (link,) = root.iter("a")
    assert link.attrib == {"href": "#trial-3", "aria-label": "trial three"} and link[0].get("data-n") == "3"


def test_texts_are_texts_and_escaped():
    root = ElementTree.fromstring(str(inline(drawn(), "one", NASTY)))
    assert root.get("aria-label") == NASTY and root.get("role") == "img"
    assert NASTY in [text.text for text in root.iter("text")]
    assert "0.123456" not in str(inline(drawn(), "one", ""))


def test_ids_of_two_figures_differ_and_all_references_are_within():
    one, other = (
        set(re.findall(r' id="([^"]+)"', text)) for text in (inline(drawn(), "one", ""), inline(drawn(), "other", ""))
    )
    assert one and not one & other
    text = str(inline(drawn(), "one", ""))
    used = set(re.findall(r'(?:href="#|url\(#)(\w+)', text))
    assert used == one and any(name.startswith("h") for name in used)  # with the pattern of the hatch
