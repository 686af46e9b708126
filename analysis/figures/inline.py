"""A figure as inline SVG: one drawing for a page in light, dark and print, whose colours and letters are the page's own."""

import re
from collections.abc import Mapping
from xml.etree import ElementTree

from markupsafe import Markup
from matplotlib.figure import Figure

from analysis.figures.theme import LIGHT, svg

_HREF = "{http://www.w3.org/1999/xlink}href"
_COLOURS = {  # of the theme, as variables of style.css
    LIGHT.paper: "paper", LIGHT.ink: "ink", LIGHT.muted: "muted", LIGHT.grid: "line", LIGHT.front: "front",
    LIGHT.feasible: "rest", LIGHT.infeasible: "bad", LIGHT.region: "region",
}  # fmt: skip
_VARIABLES = {colour.lower(): f"var(--{name})" for colour, name in _COLOURS.items()}


def inline(figure: Figure, name: str, label: str, links: Mapping[str, str] | None = None) -> Markup:
    """`name` is its CSS class and must be unique on the page, `label` describes it to those who cannot see it.

    A mark with the URL "#row-3" gets data-n="3" for the page's script. It is a link only if `links` has words for the URL.
    """
    root = ElementTree.fromstring(svg(figure, name, fonts="none"))
    referred = re.compile(r"(?:^|url\()#([\w-]+)")
    kept = {found[1] for one in root.iter() for value in one.attrib.values() if (found := referred.search(value))}
    for parent in list(root.iter()):
        for child in list(parent):
            if child.tag.endswith(("metadata", "style")):
                parent.remove(child)
            elif _HREF in child.attrib and child.tag.endswith("}a"):
                _mark(parent, child, links or {})
    for one in root.iter():
        one.tag = one.tag.rpartition("}")[2]  # HTML knows SVG without its namespaces
        one.attrib = _plain(one.attrib)
        if one.get("id") not in kept:
            one.attrib.pop("id", None)
    size = root.get("viewBox", "")
    root.attrib = {"class": f"figure {name}", "viewBox": size, "role": "group" if links else "img", "aria-label": label}
    return Markup(ElementTree.tostring(root, encoding="unicode"))


def _mark(parent: ElementTree.Element, link: ElementTree.Element, links: Mapping[str, str]) -> None:
    url = link.get(_HREF, "")
    shape = link[-1] if len(link[-1]) == 0 else link[-1][0]  # within a group that clips it; a point is never cut
    shape.set("data-n", url.rpartition("-")[2])
    place = list(parent).index(link)
    if url in links:
        link.attrib = {"href": url, "aria-label": links[url]}
        link[:] = [shape]
    else:
        parent[place] = shape


def _plain(attributes: Mapping[str, str]) -> dict[str, str]:
    """Without styles, which the page's policy forbids, with the page's colours, and to a hundredth of a point."""
    found = {name.rpartition("}")[2]: value.replace("\n", "") for name, value in attributes.items()}
    styles = [one.partition(":") for one in found.pop("style", "").split(";") if one]
    found |= {name.strip(): value.strip() for name, _, value in styles if name.strip() != "font-family"}
    for name in ("x", "y", "d", "transform"):
        if name in found:
            found[name] = re.sub(r"(\.\d\d)\d+", r"\1", found[name])
    if found.get("transform", "").startswith("rotate(-0 "):
        del found["transform"]
    return {name: _VARIABLES.get(value, value) for name, value in found.items()}
