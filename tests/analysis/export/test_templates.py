"""Templates escape everything except Markup."""

from markupsafe import Markup

from analysis.export.templates import HTML, MARKDOWN


def test_text_is_escaped_and_markup_is_not():
    given = {"text": "<b> | *x*", "markup": Markup("<b>")}
    assert HTML.from_string("{{ text }}{{ markup }}").render(given) == "&lt;b&gt; | *x*<b>"
    assert MARKDOWN.from_string("{{ text }} {{ markup }}").render(given) == "\\<b\\> \\| \\*x\\* <b>"


def test_picture_is_a_data_url():
    assert HTML.from_string("{{ picture | inline }}").render(picture=b"png") == "data:image/png;base64,cG5n"
