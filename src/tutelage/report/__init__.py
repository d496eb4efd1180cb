"""Runs as tables, charts and pages; never recomputes what was measured."""

from tutelage.report.tables import (
    HEADINGS,
    differences,
    duration,
    markdown,
    megabytes,
    points,
    rows,
    spreads,
    thousands,
)

__all__ = [
    "HEADINGS",
    "differences",
    "duration",
    "markdown",
    "megabytes",
    "points",
    "rows",
    "spreads",
    "thousands",
]
