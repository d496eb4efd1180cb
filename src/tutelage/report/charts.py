"""Charts: pure functions from numbers to matplotlib figures.

Every chart fits a phone; no information is in color alone, as shapes and dashes differ, too.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import matplotlib
import numpy as np
from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.colors import Normalize
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator, MaxNLocator, NullFormatter
from numpy.typing import ArrayLike

from tutelage.evaluation.metrics import BINS, Calibration

INK, RULE, GROUND = "#1b1e23", "#c9ced6", "#ffffff"
# The palette of Okabe and Ito, and a gray.
COLORS = {"teacher": "#0072b2", "baseline": "#6e6e6e", "student": "#d55e00"}
_OTHERS = ("#009e73", "#cc79a7", "#56b4e9")
_MARKERS = {"teacher": "s", "baseline": "^", "student": "o"}
_DASHES = {"teacher": "-", "baseline": "--", "student": "-"}
BETTER, WORSE = COLORS["teacher"], COLORS["student"]
NAMED = 30  # label every class up to this many
STYLE: Any = {
    "figure.dpi": 144,
    "figure.facecolor": GROUND,
    "font.size": 11,
    "text.parse_math": False,  # names may contain dollar signs
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
    "svg.fonttype": "none",  # keep text as text
    "svg.hashsalt": "tutelage",  # reproducible output
}
styled: Any = matplotlib.rc_context(STYLE)


def blank(height: float) -> Figure:
    """An empty figure with the common width and a height in inches."""
    return Figure(figsize=(5.0, height), layout="constrained")


def _color(model: str, models: Sequence[str]) -> str:
    others = [name for name in models if name not in COLORS]
    return COLORS.get(model) or _OTHERS[others.index(model) % len(_OTHERS)]


def _legend(axes: Axes, count: int) -> None:
    """A legend above the axes, where it hides no data."""
    axes.legend(
        ncols=count,
        handletextpad=0.5,
        columnspacing=1.2,
        loc="lower left",
        bbox_to_anchor=(-0.02, 1.0),
        borderaxespad=0.2,
    )


def short(name: str, room: int = 14) -> str:
    """A name truncated to a number of characters, without line breaks."""
    plain = " ".join(name.split())
    return plain if len(plain) <= room else plain[: room - 1] + "…"


@styled
def curves(lines: Mapping[str, Sequence[tuple[ArrayLike, ArrayLike]]], quantity: str) -> Figure:
    """A quantity by epoch.

    Args:
        lines: epochs and values of each seed, per model.
        quantity: name and unit of the values.

    Returns:
        A chart; the first fifth of the epochs may be outside the axes.
    """
    figure = blank(3.4)
    axes = figure.add_subplot()
    later: list[float] = []
    for model, seeds in lines.items():
        for i, (epochs, values) in enumerate(seeds):
            x, y = np.asarray(epochs, float), np.asarray(values, float)
            axes.plot(
                x,
                y,
                _DASHES.get(model, ":"),
                color=_color(model, list(lines)),
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


@styled
def scatter(values: ArrayLike, alphas: ArrayLike, temperatures: ArrayLike, quantity: str) -> Figure:
    """A quantity at scattered alphas and temperatures; the highest is a star.

    Args:
        values: value of each setting, (n,).
        alphas: alpha of each setting, (n,).
        temperatures: temperature of each setting, (n,), above 0.
        quantity: name and unit of the values.

    Returns:
        A chart with one point per setting.
    """
    y, a, t = (np.asarray(x, float) for x in (values, alphas, temperatures))
    figure = blank(3.8)
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


@styled
def dots(values: Mapping[str, ArrayLike], names: Sequence[str], quantity: str) -> Figure:
    """One row per name, with one marker per model.

    Args:
        values: values of each model, (names,); nan if missing.
        names: names of the rows, top to bottom.
        quantity: name and unit of the values.

    Returns:
        A chart whose height depends on the number of names.
    """
    figure = blank(1.1 + 0.27 * max(len(names), 3))
    axes = figure.add_subplot()
    places = np.arange(len(names))
    table = np.array([np.asarray(x, float) for x in values.values()])
    some = ~np.isnan(table).all(axis=0)
    spans = np.nanmin(table[:, some], axis=0), np.nanmax(table[:, some], axis=0)
    axes.hlines(places[some], *spans, color=RULE, linewidth=2.5, zorder=1)
    # Side by side, so that equal values stay visible.
    offsets = 0.17 * (np.arange(len(table)) - (len(table) - 1) / 2)
    for model, row, shift in zip(values, table, offsets, strict=True):
        axes.plot(
            row,
            places + shift,
            _MARKERS.get(model, "D"),
            color=_color(model, list(values)),
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


@styled
def reliability(bins: Calibration, color: str) -> Figure:
    """Reliability diagram: accuracy by confidence, and images per bin.

    Args:
        bins: from `metrics.calibration`.
        color: color of the model.

    Returns:
        A chart of bars with the diagonal of perfect calibration.
    """
    figure = blank(4.4)
    above, below = figure.subplots(2, 1, sharex=True, height_ratios=(3, 1))
    edges = 100 * np.arange(BINS) / BINS
    width = 100 / BINS
    bars = {"width": 0.88 * width, "align": "edge", "color": color}
    above.plot([0, 100], [0, 100], "--", color=INK, linewidth=1, label="calibrated")
    accuracy = 100 * np.nan_to_num(bins.accuracy)
    above.bar(edges, accuracy, alpha=0.75, label="accuracy", **bars)
    for edge, sure, right in zip(edges, 100 * bins.confidence, accuracy, strict=True):
        if not np.isnan(sure):
            ends = (min(sure, right), abs(sure - right))
            above.broken_barh([(edge + 0.3 * width, 0.28 * width)], ends, color=INK, alpha=0.55)
    above.plot([], [], color=INK, alpha=0.55, linewidth=5, label="gap")
    above.set(ylabel="accuracy (%)", xlim=(0, 100), ylim=(0, 104))
    _legend(above, 3)
    share = 100 * bins.support / max(int(bins.support.sum()), 1)
    below.bar(edges, share, alpha=0.75, **bars)
    below.set(xlabel="confidence (%)", ylabel="images (%)")
    return figure


@styled
def trade(models: Mapping[str, tuple[float, float, float | None]], size: str) -> Figure:
    """Accuracy against size.

    Args:
        models: size, accuracy in percent and its standard deviation over seeds, if known, per
            model.
        size: unit of the size.

    Returns:
        A chart with one point per model on a logarithmic size axis.
    """
    figure = blank(3.2)
    axes = figure.add_subplot()
    for place, (model, (count, accuracy, std)) in enumerate(models.items()):
        axes.errorbar(
            count,
            accuracy,
            yerr=std or None,
            fmt=_MARKERS.get(model) or "Dv>P<X"[place % 6],  # as the colors repeat
            color=_color(model, list(models)),
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
    _legend(axes, len(models) if len(models) <= 3 else 2)
    return figure


def _count(x: float) -> str:
    for bound, sign in ((1e9, " G"), (1e6, " M"), (1e3, " K")):
        if x >= bound:
            return f"{x / bound:g}{sign}"
    return f"{x:g}"
