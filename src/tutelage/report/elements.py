"""What a page is made of, before it is HTML: sections with sentences, tables, charts, pictures."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from matplotlib.figure import Figure


@dataclass(frozen=True)
class Table:
    """Cells under headings; the first cell of each row names it.

    Attributes:
        headings: of the columns.
        rows: cells as people read them.
        title: what the table holds; empty where it stands alone.
    """

    headings: Sequence[str]
    rows: Sequence[Sequence[str]]
    title: str = ""


@dataclass(frozen=True, eq=False)
class Chart:
    """A figure and the same in words and numbers.

    Attributes:
        name: of its files and its place in the page.
        figure: what is drawn.
        title: what it is about.
        caption: how it is read.
        table: the numbers that are drawn.
    """

    name: str
    figure: Figure
    title: str
    caption: str
    table: Table | None = None


@dataclass(frozen=True)
class Picture:
    """An image of the test part and what models say of it.

    Attributes:
        source: the image itself as a `data:` address.
        told: what is on it.
        lines: what each model says.
        shares: names and parts of 1, drawn as bars.
    """

    source: str
    told: str
    lines: Sequence[str] = ()
    shares: Sequence[tuple[str, float]] = ()


@dataclass
class Section:
    """A part of the page with a heading.

    Attributes:
        name: its place in the page, as in `page.html#name`.
        title: its heading.
        text: paragraphs.
        points: a list of sentences.
        tables: in the open.
        charts: side by side where there is room.
        pictures: likewise.
        facts: terms and what they are.
        folded: titles and texts shown on demand, as they are.
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
    """What is told of one recipe's runs, or of one sweep.

    Attributes:
        name: its place in the page.
        title: its heading.
        verdict: what it comes to, in a sentence or two.
        cards: each model with its accuracy and its size.
        sections: in their order.
    """

    name: str
    title: str
    verdict: str
    cards: list[tuple[str, str, str]] = field(default_factory=list)
    sections: list[Section] = field(default_factory=list)
