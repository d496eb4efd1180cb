"""The elements of a report before it is HTML: sections of text, tables, charts and images."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from matplotlib.figure import Figure


@dataclass(frozen=True)
class Table:
    """A table; the first cell of each row is its name.

    Attributes:
        headings: headings of the columns.
        rows: formatted cells.
        title: caption of the table; may be empty.
    """

    headings: Sequence[str]
    rows: Sequence[Sequence[str]]
    title: str = ""


@dataclass(frozen=True, eq=False)
class Chart:
    """A figure with its description and its numbers.

    Attributes:
        name: name of its files and its anchor in the page.
        figure: the drawing.
        title: title of the chart.
        caption: how to read it.
        table: the numbers shown.
    """

    name: str
    figure: Figure
    title: str
    caption: str
    table: Table | None = None


@dataclass(frozen=True)
class Picture:
    """A test image with the predictions of models.

    Attributes:
        source: the image as a `data:` URL.
        label: its class.
        lines: the prediction of each model.
        shares: class names and probabilities, drawn as bars.
    """

    source: str
    label: str
    lines: Sequence[str] = ()
    shares: Sequence[tuple[str, float]] = ()


@dataclass
class Section:
    """A section of the page.

    Attributes:
        name: its anchor, as in `page.html#name`.
        title: its heading.
        text: paragraphs.
        points: items of a list.
        tables: shown directly.
        charts: side by side if the page is wide enough.
        pictures: side by side.
        facts: terms and values.
        folded: titles and preformatted texts, collapsed.
    """

    name: str
    title: str
    text: list[str] = field(default_factory=list)
    points: list[str] = field(default_factory=list)
    tables: list[Table] = field(default_factory=list)
    charts: list[Chart] = field(default_factory=list)
    pictures: list[Picture] = field(default_factory=list)
    facts: list[tuple[str, str]] = field(default_factory=list)
    folded: list[tuple[str, str]] = field(default_factory=list)


@dataclass
class Part:
    """The part of the page on the runs of one recipe, or on one sweep.

    Attributes:
        name: its anchor.
        title: its heading.
        verdict: the result in a sentence or two.
        cards: name, accuracy and size of each model.
        sections: the sections in order.
    """

    name: str
    title: str
    verdict: str
    cards: list[tuple[str, str, str]] = field(default_factory=list)
    sections: list[Section] = field(default_factory=list)


def percent(share: float) -> str:
    """Format a share of 1 as a percentage."""
    return f"{100 * share:.2f} %"


def percent_rows(names: Sequence[str], values: Mapping[str, np.ndarray]) -> list[tuple[str, ...]]:
    """Table rows of percentages: one row per name, one column per entry of `values`."""
    return [
        (name, *("" if np.isnan(row[i]) else percent(row[i]) for row in values.values()))
        for i, name in enumerate(names)
    ]
