"""Charts as files, and as drawings inside a page that follow its colours."""

from __future__ import annotations

import io
import re
import warnings
from pathlib import Path
from xml.etree import ElementTree

import matplotlib
from matplotlib.figure import Figure

from tutelage import storage
from tutelage.report.charts import COLOURS, GROUND, INK, RULE, STYLE

_SVG = "{http://www.w3.org/2000/svg}"
_LINK = "{http://www.w3.org/1999/xlink}href"
# What the page has its own colours for, one for light and one for dark.
_FOLLOWS = {INK: "currentColor", RULE: "var(--rule)", GROUND: "none"} | {
    colour: f"var(--{model})" for model, colour in COLOURS.items()
}


def save(figure: Figure, path: Path) -> str:
    """Write a chart as PNG and SVG, the same bytes each time.

    Args:
        figure: the chart.
        path: of both files, but for their suffixes.

    Returns:
        The SVG.

    Raises:
        RunError: the disk can't be written.
    """
    text = io.StringIO()
    with matplotlib.rc_context(STYLE), warnings.catch_warnings():
        # A browser has letters that matplotlib's own font lacks.
        warnings.filterwarnings("ignore", "Glyph .* missing from", UserWarning)
        figure.savefig(text, format="svg", metadata={"Date": None, "Creator": None})
        with storage.replacing(path.with_name(f"{path.name}.svg")) as temporary:
            temporary.write_text(text.getvalue(), encoding="utf-8")
        figure.set_layout_engine("none")  # it is laid out, which takes longer than to draw
        with storage.replacing(path.with_name(f"{path.name}.png")) as temporary:
            figure.savefig(temporary, dpi=160)
    return text.getvalue()


def inline(text: str, name: str, label: str) -> str:
    """A chart's SVG as part of an HTML page.

    The page's colours take the place of the chart's, styles become attributes, as a strict policy
    admits no others, and identifiers get a name before them, as a page holds many charts.

    Args:
        text: from `save`.
        name: of the chart, unlike those of the page's others.
        label: what the chart shows, for those who can't see it.

    Returns:
        An `svg` element.
    """
    root = ElementTree.fromstring(text)
    used = set(re.findall(r'(?:url\(#|href="#)([^)"]+)', text))
    for parent in root.iter():
        for child in list(parent):
            if child.tag in (f"{_SVG}metadata", f"{_SVG}style"):
                parent.remove(child)
    for element in root.iter():
        _own(element, name, used)
    view = root.get("viewBox", "")
    root.attrib.clear()
    root.attrib |= {"viewBox": view, "role": "img", "aria-label": label}
    return ElementTree.tostring(root, encoding="unicode")


def _own(element: ElementTree.Element, name: str, used: set[str]) -> None:
    """Make an element one of the page's."""
    element.tag = element.tag.removeprefix(_SVG)
    if element.text and not element.text.strip():
        element.text = None
    element.tail = None
    given = element.attrib
    declared = [part.partition(":") for part in given.pop("style", "").split(";") if ":" in part]
    for key, _, value in declared:
        if key.strip() != "font-family":
            given[key.strip()] = value.strip()
    if (identity := given.pop("id", None)) in used:
        given["id"] = f"{name}-{identity}"
    if link := given.pop(_LINK, None):
        given["href"] = f"#{name}-{link[1:]}" if link.startswith("#") else link
    for key, value in given.items():
        given[key] = _FOLLOWS.get(value, value).replace("url(#", f"url(#{name}-")
