"""Heatmaps: pure functions from numbers to matplotlib figures.

Cell colors are translucent, so that they suit light and dark pages and text stays readable.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.colors import ListedColormap, Normalize, to_rgb
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from tutelage.report.charts import BETTER, INK, NAMED, RULE, WORSE, blank, short, styled

NUMBERED = 15  # show numbers in cells up to this many classes
_ACROSS = 40  # characters that fit below a chart


def _cells(
    axes: Axes,
    strength: np.ndarray,
    numbers: Sequence[Sequence[str]] | None,
    rows: Sequence[str],
    columns: Sequence[str],
) -> None:
    """Draw cells with opacity by strength: above 0 in one color, below in another, nan gray."""
    shown = np.zeros((*strength.shape, 4))
    known = np.nan_to_num(strength)
    shown[..., :3] = np.where(known[..., None] > 0, to_rgb(BETTER), to_rgb(WORSE))
    many = max(strength.shape) > NUMBERED
    shown[..., 3] = np.where(known, _density(known, many), 0)
    shown[np.isnan(strength)] = (*to_rgb("#808080"), 0.18)
    axes.imshow(shown, aspect="auto", interpolation="nearest")
    axes.grid(False)
    axes.tick_params(length=0)
    for place, names in ((axes.set_xticks, columns), (axes.set_yticks, rows)):
        step = -(-len(names) // NAMED)
        at = range(0, len(names), step)
        place(at, [short(names[i]) for i in at])
    if len(columns) * max(map(len, columns)) > _ACROSS:
        axes.tick_params(axis="x", rotation=90)
    if many:
        axes.tick_params(labelsize=6.5 if max(strength.shape) > 20 else 8)
    for edge in range(1, strength.shape[0]) if numbers is not None else ():
        axes.axhline(edge - 0.5, color=RULE, linewidth=0.5)
    for edge in range(1, strength.shape[1]) if numbers is not None else ():
        axes.axvline(edge - 0.5, color=RULE, linewidth=0.5)
    for i, line in enumerate(numbers or ()):
        for j, text in enumerate(line):
            axes.text(j, i, text, ha="center", va="center", fontsize=9.5)


def _density(strength: np.ndarray, many: bool) -> np.ndarray:
    """Opacity of a color: visible in small cells, and light enough to read text on."""
    least = 0.2 if many else 0.08
    return least + (0.7 - least) * np.abs(strength)


def _key(figure: Figure, axes: Axes, low: float, high: float, label: str) -> None:
    """A color bar, for cells without numbers."""
    known = np.linspace(-1 if low < 0 else 0, 1, 41)
    shades = _density(known, many=True)
    colors = [BETTER if s > 0 and low < 0 else WORSE for s in known]
    ramp = [(*to_rgb(c), shade) for c, shade in zip(colors, shades, strict=True)]
    scale = ScalarMappable(Normalize(low, high), ListedColormap(ramp))
    bar = figure.colorbar(scale, ax=axes, shrink=0.7, aspect=30, pad=0.02)
    bar.set_label(label)
    bar.outline.set_visible(False)


@styled
def confusion(counts: np.ndarray, classes: Sequence[str], peak: int) -> Figure:
    """A confusion matrix in which only errors are colored.

    Args:
        counts: images, (classes, classes), one row per true class.
        classes: their names.
        peak: count with full color, the same for all models for comparison.

    Returns:
        A chart, with numbers in the cells for up to 15 classes.
    """
    strength = -counts / max(peak, 1)
    np.fill_diagonal(strength, np.nan)
    numbers = [[f"{n}" if n else "" for n in row] for row in counts]
    figure = blank(4.6)
    axes = figure.add_subplot()
    few = len(classes) <= NUMBERED
    _cells(axes, strength, numbers if few else None, classes, classes)
    if not few:
        _key(figure, axes, 0, max(peak, 1), "misclassified images")
    axes.set(xlabel="predicted class", ylabel="true class")
    return figure


@styled
def difference(counts: np.ndarray, classes: Sequence[str]) -> Figure:
    """Difference of two confusion matrices, better in one color and worse in the other.

    Args:
        counts: images, (classes, classes), one model minus the other.
        classes: their names.

    Returns:
        A chart, with numbers in the cells for up to 15 classes.
    """
    better = np.where(np.eye(len(classes), dtype=bool), counts, -counts)
    peak = max(int(np.abs(counts).max()), 1)
    numbers = [[f"{n:+d}".replace("-", "−") if n else "" for n in row] for row in counts.tolist()]
    figure = blank(4.6)
    axes = figure.add_subplot()
    few = len(classes) <= NUMBERED
    _cells(axes, better / peak, numbers if few else None, classes, classes)
    if not few:
        _key(figure, axes, -peak, peak, "images: worse (below 0), better (above)")
    axes.set(xlabel="predicted class", ylabel="true class")
    return figure


@styled
def grid(
    values: np.ndarray, alphas: Sequence[float], temperatures: Sequence[float], quantity: str
) -> Figure:
    """A quantity by alpha and temperature, with the highest cell framed.

    Args:
        values: array of shape (alphas, temperatures), nan for settings that were not run.
        alphas: alphas of the rows.
        temperatures: temperatures of the columns; nan for a method without one.
        quantity: name and unit of the values.

    Returns:
        A chart with a number in each cell.
    """
    figure = blank(1.3 + 0.34 * len(alphas))
    axes = figure.add_subplot()
    low, high = np.nanmin(values), np.nanmax(values)
    strength = (values - low) / ((high - low) or 1.0)
    numbers = [["" if np.isnan(v) else f"{v:.2f}" for v in row] for row in values]
    labels = (
        [f"{alpha:g}" for alpha in alphas],
        ["default" if np.isnan(degree) else f"{degree:g}" for degree in temperatures],
    )
    # The lowest cell is tinted too: a blank cell was not run.
    _cells(axes, np.where(np.isnan(strength), 0.0, 0.05 + 0.95 * strength), numbers, *labels)
    row, column = np.unravel_index(np.nanargmax(values), values.shape)
    frame = Rectangle((float(column) - 0.5, float(row) - 0.5), 1, 1, fill=False, clip_on=False)
    frame.set(edgecolor=INK, linewidth=2.2, zorder=5)
    axes.add_patch(frame)
    axes.set(xlabel="temperature", ylabel="alpha")
    axes.set_title(quantity, fontweight="normal", fontsize=11)
    return figure
