"""Charts as PNG and SVG files, and as inline SVG that follows the colors of the page."""

from __future__ import annotations

import io
import re
import warnings
from pathlib import Path
from xml.etree import ElementTree

import matplotlib
from matplotlib.figure import Figure

from tutelage import storage
from tutelage.report.charts import COLORS, GROUND, INK, RULE, STYLE

_SVG = "{http://www.w3.org/2000/svg}"
_LINK = "{http://www.w3.org/1999/xlink}href"
# Colors with a light and a dark variant in the page.
_PAGE_COLORS = {INK: "currentColor", RULE: "var(--rule)", GROUND: "none"} | {
    color: f"var(--{model})" for model, color in COLORS.items()
}


def save(figure: Figure, path: Path) -> str:
    """Write a chart as PNG and SVG; the output is reproducible.

    Args:
        figure: the chart.
        path: path of both files, without the suffix.

    Returns:
        The SVG.

    Raises:
        RunError: a file can't be written.
    """
    text = io.StringIO()
    with matplotlib.rc_context(STYLE), warnings.catch_warnings():
        # Browsers have glyphs that matplotlib's font lacks.
        warnings.filterwarnings("ignore", "Glyph .* missing from", UserWarning)
        figure.savefig(text, format="svg", metadata={"Date": None, "Creator": None})
        with storage.replacing(path.with_name(f"{path.name}.svg")) as temporary:
            temporary.write_text(text.getvalue(), encoding="utf-8")
        figure.set_layout_engine("none")  # reuse the layout, which is slow to compute
        with storage.replacing(path.with_name(f"{path.name}.png")) as temporary:
            figure.savefig(temporary, dpi=160)
    return text.getvalue()


def inline(text: str, name: str, label: str) -> str:
    """Convert a chart's SVG to an element of an HTML page.

    Colors become those of the page. Styles become attributes, as a strict content security policy
    requires. Ids get a prefix to be unique in the page.

    Args:
        text: from `save`.
        name: name of the chart, unique in the page.
        label: text alternative of the chart.

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
        _adapt(element, name, used)
    view = root.get("viewBox", "")
    root.attrib.clear()
    root.attrib |= {"viewBox": view, "role": "img", "aria-label": label}
    return ElementTree.tostring(root, encoding="unicode")


def _adapt(element: ElementTree.Element, name: str, used: set[str]) -> None:
    """Adapt an element to the page."""
    element.tag = element.tag.removeprefix(_SVG)
    if element.text and not element.text.strip():
        element.text = None
    element.tail = None
    attributes = element.attrib
    declared = [
        part.partition(":") for part in attributes.pop("style", "").split(";") if ":" in part
    ]
    for key, _, value in declared:
        if key.strip() != "font-family":
            attributes[key.strip()] = value.strip()
    if (identity := attributes.pop("id", None)) in used:
        attributes["id"] = f"{name}-{identity}"
    if link := attributes.pop(_LINK, None):
        attributes["href"] = f"#{name}-{link[1:]}" if link.startswith("#") else link
    for key, value in attributes.items():
        attributes[key] = _PAGE_COLORS.get(value, value).replace("url(#", f"url(#{name}-")
