"""Charts of what was measured: pure functions from numbers to matplotlib's figures.

Every chart is narrow enough for a phone. What is told by colour is told by shape, by dashes or by a
number too; cells are a colour that lets the ground through, so that they suit light and dark pages.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import matplotlib
import numpy as np
from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.colors import ListedColormap, Normalize, to_rgb
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from matplotlib.ticker import FuncFormatter, LogLocator, MaxNLocator, NullFormatter
from numpy.typing import ArrayLike

from tutelage.metrics import BINS, Calibration

INK, RULE, GROUND = "#1b1e23", "#c9ced6", "#ffffff"
# Of Okabe and Ito, and a grey.
COLOURS = {"teacher": "#0072b2", "baseline": "#6e6e6e", "student": "#d55e00"}
_OTHERS = ("#009e73", "#cc79a7", "#56b4e9")
_MARKERS = {"teacher": "s", "baseline": "^", "student": "o"}
_DASHES = {"teacher": "-", "baseline": "--", "student": "-"}
BETTER, WORSE = COLOURS["teacher"], COLOURS["student"]
NUMBERED = 15  # classes up to which a cell has room for its number
_ACROSS = 40  # letters that have room below a chart
NAMED = 30  # classes up to which each is named
STYLE: Any = {
    "figure.dpi": 144,
    "figure.facecolor": GROUND,
    "font.size": 11,
    "text.parse_math": False,  # a name with dollars is a name
    "axes.titlesize": 11,
    "axes.titleweight": "bold",
    "axes.titlelocation": "left",
    "axes.facecolor": "none",
    "axes.edgecolor": RULE,
    "axes.labelcolor": INK,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": RULE,
    "grid.linewidth": 0.6,
    "text.color": INK,
    "xtick.color": RULE,
    "ytick.color": RULE,
    "xtick.labelcolor": INK,
    "ytick.labelcolor": INK,
    "legend.frameon": False,
    "svg.fonttype": "none",  # text stays text
    "svg.hashsalt": "tutelage",  # the same bytes again
}
_styled = matplotlib.rc_context(STYLE)


def _figure(height: float) -> Figure:
    return Figure(figsize=(5.0, height), layout="constrained")


def _colour(model: str, models: Sequence[str]) -> str:
    others = [name for name in models if name not in COLOURS]
    return COLOURS.get(model) or _OTHERS[others.index(model) % len(_OTHERS)]


def _legend(axes: Axes, count: int) -> None:
    """Names above the chart, where they can hide nothing."""
    axes.legend(
        ncols=count,
        handletextpad=0.5,
        columnspacing=1.2,
        loc="lower left",
        bbox_to_anchor=(-0.02, 1.0),
        borderaxespad=0.2,
    )


def short(name: str, room: int = 14) -> str:
    """A name cut to a number of characters, without line breaks."""
    plain = " ".join(name.split())
    return plain if len(plain) <= room else plain[: room - 1] + "…"


@_styled
def curves(lines: Mapping[str, Sequence[tuple[ArrayLike, ArrayLike]]], quantity: str) -> Figure:
    """How a quantity goes with the epochs.

    Args:
        lines: for each model the epochs and values of each seed.
        quantity: what the values are, with its unit.

    Returns:
        A chart in which the first fifth of the epochs may lie outside the frame.
    """
    figure = _figure(3.4)
    axes = figure.add_subplot()
    later: list[float] = []
    for model, seeds in lines.items():
        for i, (epochs, values) in enumerate(seeds):
            x, y = np.asarray(epochs, float), np.asarray(values, float)
            axes.plot(
                x,
                y,
                _DASHES.get(model, ":"),
                color=_colour(model, list(lines)),
                marker=_MARKERS.get(model, "D") if len(seeds) == 1 else None,
                markersize=3.5,
                markevery=max(1, len(x) // 15),
                linewidth=1.6 if len(seeds) == 1 else 1.0,
                label=model if i == 0 else None,
            )
            later += list(y[len(y) // 5 :])
    low, high = min(later), max(later)
    room = 0.06 * (high - low) or 0.5
    axes.set(xlabel="epoch", ylabel=quantity, ylim=(low - room, high + room))
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    _legend(axes, len(lines))
    return figure


def _cells(
    axes: Axes,
    strength: np.ndarray,
    numbers: Sequence[Sequence[str]] | None,
    rows: Sequence[str],
    columns: Sequence[str],
) -> None:
    """Cells as dark as their strength: above 0 in one colour, below in the other, nan neutral."""
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
    """How dense a colour is: enough to be seen, in small cells too, and to read ink on it."""
    least = 0.2 if many else 0.08
    return least + (0.7 - least) * np.abs(strength)


def _key(figure: Figure, axes: Axes, low: float, high: float, label: str) -> None:
    """What the colours stand for, where no number does."""
    known = np.linspace(-1 if low < 0 else 0, 1, 41)
    shades = _density(known, many=True)
    colours = [BETTER if s > 0 and low < 0 else WORSE for s in known]
    ramp = [(*to_rgb(c), shade) for c, shade in zip(colours, shades, strict=True)]
    scale = ScalarMappable(Normalize(low, high), ListedColormap(ramp))
    bar = figure.colorbar(scale, ax=axes, shrink=0.7, aspect=30, pad=0.02)
    bar.set_label(label)
    bar.outline.set_visible(False)


@_styled
def confusion(counts: np.ndarray, classes: Sequence[str], peak: int) -> Figure:
    """What a model takes for what: mistakes coloured, right answers not.

    Args:
        counts: images, (classes, classes): a row for each true class.
        classes: their names.
        peak: mistakes of one kind that have the full colour, so that models can be compared.

    Returns:
        A chart with a number in each cell if there are 15 classes or fewer.
    """
    strength = -counts / max(peak, 1)
    np.fill_diagonal(strength, np.nan)
    numbers = [[f"{n}" if n else "" for n in row] for row in counts]
    figure = _figure(4.6)
    axes = figure.add_subplot()
    few = len(classes) <= NUMBERED
    _cells(axes, strength, numbers if few else None, classes, classes)
    if not few:
        _key(figure, axes, 0, max(peak, 1), "images mistaken")
    axes.set(xlabel="answer", ylabel="true class")
    return figure


@_styled
def difference(counts: np.ndarray, classes: Sequence[str]) -> Figure:
    """How two models' answers differ, better in one colour and worse in the other.

    Args:
        counts: images, (classes, classes), the one model's less the other's.
        classes: their names.

    Returns:
        A chart with a number in each cell if there are 15 classes or fewer.
    """
    better = np.where(np.eye(len(classes), dtype=bool), counts, -counts)
    peak = max(int(np.abs(counts).max()), 1)
    numbers = [[f"{n:+d}".replace("-", "−") if n else "" for n in row] for row in counts.tolist()]
    figure = _figure(4.6)
    axes = figure.add_subplot()
    few = len(classes) <= NUMBERED
    _cells(axes, better / peak, numbers if few else None, classes, classes)
    if not few:
        _key(figure, axes, -peak, peak, "images: worse (below 0), better (above)")
    axes.set(xlabel="answer", ylabel="true class")
    return figure


@_styled
def grid(
    values: np.ndarray, alphas: Sequence[float], temperatures: Sequence[float], quantity: str
) -> Figure:
    """A quantity over alpha and temperature, the highest cell framed.

    Args:
        values: of shape (alphas, temperatures), nan where nothing was tried.
        alphas: of the rows.
        temperatures: of the columns; nan where a method has none.
        quantity: what the values are, with its unit.

    Returns:
        A chart with a number in each cell.
    """
    figure = _figure(1.3 + 0.34 * len(alphas))
    axes = figure.add_subplot()
    low, high = np.nanmin(values), np.nanmax(values)
    strength = (values - low) / ((high - low) or 1.0)
    numbers = [["" if np.isnan(v) else f"{v:.2f}" for v in row] for row in values]
    told = (
        [f"{alpha:g}" for alpha in alphas],
        ["its own" if np.isnan(degree) else f"{degree:g}" for degree in temperatures],
    )
    # The lowest cell has a little colour too: without any, nothing was tried.
    _cells(axes, np.where(np.isnan(strength), 0.0, 0.05 + 0.95 * strength), numbers, *told)
    row, column = np.unravel_index(np.nanargmax(values), values.shape)
    frame = Rectangle((float(column) - 0.5, float(row) - 0.5), 1, 1, fill=False, clip_on=False)
    frame.set(edgecolor=INK, linewidth=2.2, zorder=5)
    axes.add_patch(frame)
    axes.set(xlabel="temperature", ylabel="alpha")
    axes.set_title(quantity, fontweight="normal", fontsize=11)
    return figure


@_styled
def tries(values: ArrayLike, alphas: ArrayLike, temperatures: ArrayLike, quantity: str) -> Figure:
    """A quantity at alphas and temperatures that form no grid; the highest is a star.

    Args:
        values: of each try, (n,).
        alphas: likewise.
        temperatures: likewise, above 0.
        quantity: what the values are, with its unit.

    Returns:
        A chart with a point for each try.
    """
    y, a, t = (np.asarray(x, float) for x in (values, alphas, temperatures))
    figure = _figure(3.8)
    axes = figure.add_subplot()
    scale = Normalize(y.min(), y.max() if y.max() > y.min() else y.min() + 1)
    shades = colormaps["cividis"]
    best = int(y.argmax())
    axes.scatter(t, a, c=y, cmap=shades, norm=scale, s=42, edgecolors="#808080", linewidths=0.6)
    axes.scatter(t[best], a[best], marker="*", s=260, color=WORSE, edgecolors=INK, zorder=5)
    axes.annotate(
        f"{y[best]:.2f}",
        (t[best], a[best]),
        xytext=(9, 9),
        textcoords="offset points",
        weight="bold",
    )
    axes.set(xlabel="temperature (logarithmic)", ylabel="alpha", xscale="log", ylim=(-0.05, 1.1))
    axes.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    axes.xaxis.set_major_formatter(FuncFormatter(lambda x, _: f"{x:g}"))
    axes.xaxis.set_minor_formatter(NullFormatter())
    figure.colorbar(ScalarMappable(scale, shades), ax=axes, label=quantity, aspect=30, pad=0.02)
    return figure


@_styled
def dots(values: Mapping[str, ArrayLike], names: Sequence[str], quantity: str) -> Figure:
    """A row for each name, with a mark for each model.

    Args:
        values: each model's, (names,); nan where there is none.
        names: of the rows, from the top.
        quantity: what the values are, with its unit.

    Returns:
        A chart as high as there are names.
    """
    figure = _figure(1.1 + 0.27 * max(len(names), 3))
    axes = figure.add_subplot()
    places = np.arange(len(names))
    table = np.array([np.asarray(x, float) for x in values.values()])
    some = ~np.isnan(table).all(axis=0)
    spans = np.nanmin(table[:, some], axis=0), np.nanmax(table[:, some], axis=0)
    axes.hlines(places[some], *spans, color=RULE, linewidth=2.5, zorder=1)
    # Beside each other, so that none hides another of the same value.
    beside = 0.17 * (np.arange(len(table)) - (len(table) - 1) / 2)
    for model, row, shift in zip(values, table, beside, strict=True):
        axes.plot(
            row,
            places + shift,
            _MARKERS.get(model, "D"),
            color=_colour(model, list(values)),
            markersize=6.5,
            markeredgecolor=GROUND,
            markeredgewidth=0.7,
            label=model,
        )
    axes.set_yticks(places, [short(name, 18) for name in names])
    axes.set(xlabel=quantity, ylim=(len(names) - 0.5, -0.5))
    axes.grid(axis="y", visible=False)
    axes.tick_params(axis="y", length=0)
    _legend(axes, len(values))
    return figure


@_styled
def reliability(found: Calibration, colour: str) -> Figure:
    """How often answers are right that are so sure, and how many are.

    Args:
        found: from `metrics.calibration`.
        colour: of the model.

    Returns:
        A chart of bars beside the diagonal on which sureness is deserved.
    """
    figure = _figure(4.4)
    above, below = figure.subplots(2, 1, sharex=True, height_ratios=(3, 1))
    edges = 100 * np.arange(BINS) / BINS
    width = 100 / BINS
    bars = {"width": 0.88 * width, "align": "edge", "color": colour}
    above.plot([0, 100], [0, 100], "--", color=INK, linewidth=1, label="as sure as right")
    right = 100 * np.nan_to_num(found.accuracy)
    above.bar(edges, right, alpha=0.75, label="right", **bars)
    for edge, sure, hit in zip(edges, 100 * found.confidence, right, strict=True):
        if not np.isnan(sure):
            ends = (min(sure, hit), abs(sure - hit))
            above.broken_barh([(edge + 0.3 * width, 0.28 * width)], ends, color=INK, alpha=0.55)
    above.plot([], [], color=INK, alpha=0.55, linewidth=5, label="gap")
    above.set(ylabel="right (%)", xlim=(0, 100), ylim=(0, 104))
    _legend(above, 3)
    share = 100 * found.support / max(int(found.support.sum()), 1)
    below.bar(edges, share, alpha=0.75, **bars)
    below.set(xlabel="confidence (%)", ylabel="images (%)")
    return figure


@_styled
def trade(models: Mapping[str, tuple[float, float, float | None]], size: str) -> Figure:
    """Accuracy against size.

    Args:
        models: for each model its size, its accuracy in percent, and the standard deviation of that
            over seeds, if known.
        size: what the size counts.

    Returns:
        A chart with a point for each model, its size on a logarithmic axis.
    """
    figure = _figure(3.2)
    axes = figure.add_subplot()
    for model, (count, accuracy, std) in models.items():
        axes.errorbar(
            count,
            accuracy,
            yerr=std or None,
            fmt=_MARKERS.get(model, "D"),
            color=_colour(model, list(models)),
            markersize=9,
            capsize=4,
            label=model,
        )
    sizes = [count for count, _, _ in models.values()]
    axes.set(xscale="log", xlim=(min(sizes) / 2, max(sizes) * 2))
    axes.set(xlabel=f"{size} (logarithmic)", ylabel="test accuracy (%)")
    axes.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    axes.xaxis.set_major_formatter(FuncFormatter(lambda x, _: _count(x)))
    axes.xaxis.set_minor_formatter(NullFormatter())
    axes.margins(y=0.15)
    _legend(axes, len(models))
    return figure


def _count(x: float) -> str:
    for bound, sign in ((1e9, " G"), (1e6, " M"), (1e3, " K")):
        if x >= bound:
            return f"{x / bound:g}{sign}"
    return f"{x:g}"
