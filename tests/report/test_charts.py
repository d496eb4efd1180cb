"""Charts as they are drawn: numbers where they are promised, and drawings that fit a page."""

from __future__ import annotations

import re
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import pytest
from matplotlib.figure import Figure

from tutelage.evaluation import metrics
from tutelage.report import charts, heatmaps, svg


def texts(figure: Figure) -> list[str]:
    """Every number that stands in the first frame of a chart."""
    return [text.get_text() for text in figure.axes[0].texts]


def counts(classes: int) -> np.ndarray:
    random = np.random.default_rng(0)
    return random.integers(0, 9, (classes, classes)) + 90 * np.eye(classes, dtype=int)


@pytest.mark.parametrize(
    ("classes", "numbered"), [(2, True), (15, True), (16, False), (100, False)]
)
def test_cells_have_numbers_as_long_as_there_is_room(classes: int, numbered: bool) -> None:
    names = [f"name {i}" for i in range(classes)]
    told = texts(heatmaps.confusion(counts(classes), names, 8))
    expected = [str(n) if n else "" for n in counts(classes).ravel()]
    assert told == (expected if numbered else [])
    figure = heatmaps.difference(counts(classes) - 4, names)
    assert len(figure.axes[0].get_yticks()) <= charts.NAMED
    if numbered:
        assert texts(figure)[0] == f"{counts(classes)[0, 0] - 4:+d}"


def test_better_and_worse_have_their_colours() -> None:
    change = np.array(
        [[2, -2], [1, -1]]
    )  # right more often; fewer mistakes; more; less often right
    figure = heatmaps.difference(change, ["a", "b"])
    shown = np.asarray(figure.axes[0].images[0].get_array())
    assert shown[0, 0, 2] > shown[0, 0, 0]  # blue
    assert shown[0, 1, 2] > shown[0, 1, 0]
    assert shown[1, 0, 0] > shown[1, 0, 2]  # orange
    assert shown[1, 1, 0] > shown[1, 1, 2]
    assert shown[0, 0, 3] > shown[1, 0, 3]  # the more, the denser


def test_the_highest_cell_is_framed_and_what_was_not_tried_is_empty() -> None:
    values = np.array([[80.0, np.nan, 82.0], [81.0, 85.125, 79.0]])
    figure = heatmaps.grid(values, [0.1, 0.9], [1, 4, 20], "accuracy (%)")
    assert texts(figure) == ["80.00", "", "82.00", "81.00", "85.12", "79.00"]
    (frame,) = figure.axes[0].patches
    assert (frame.get_x(), frame.get_y()) == (0.5, 0.5)  # type: ignore[attr-defined]
    shown = np.asarray(figure.axes[0].images[0].get_array())[..., 3]
    assert shown[0, 1] == 0
    assert shown[1, 1] == shown.max()
    assert shown[1, 2] > 0
    labels = [t.get_text() for t in figure.axes[0].get_xticklabels()]
    assert labels == ["1", "4", "20"]


def test_reliability_draws_each_bin_s_accuracy() -> None:
    random = np.random.default_rng(0)
    labels = random.integers(0, 3, 500)
    found = metrics.calibration(2 * np.eye(3)[labels] + random.normal(size=(500, 3)), labels)
    above, below = charts.reliability(found, "#0072b2").axes
    bars = [p.get_height() for p in above.patches][: metrics.BINS]  # type: ignore[attr-defined]
    np.testing.assert_allclose(bars, 100 * np.nan_to_num(found.accuracy))
    shares = [p.get_height() for p in below.patches]  # type: ignore[attr-defined]
    assert sum(shares) == pytest.approx(100)


def test_first_epochs_do_not_squash_the_rest() -> None:
    values = [10.0, 40.0, *np.linspace(80, 90, 18)]
    figure = charts.curves({"teacher": [(range(1, 21), values)]}, "accuracy (%)")
    low, high = figure.axes[0].get_ylim()
    assert 75 < low < 90 < high < 95


def test_a_drawing_inside_a_page_takes_its_colours_and_no_style(tmp_path: Path) -> None:
    series = {name: [(range(3), [1.0, 2.0, 3.0])] for name in ("teacher", "baseline", "student")}
    text = svg.save(charts.curves(series, "a < b"), tmp_path / "v1.5")
    assert sorted(p.name for p in tmp_path.iterdir()) == ["v1.5.png", "v1.5.svg"]
    assert (tmp_path / "v1.5.svg").read_text(encoding="utf-8") == text
    placed = svg.inline(text, "one", 'What "it" shows')
    root = ElementTree.fromstring(placed)
    assert root.attrib["role"] == "img"
    assert root.attrib["aria-label"] == 'What "it" shows'
    assert "style" not in {key for element in root.iter() for key in element.attrib}
    assert not {e.tag for e in root.iter()} & {"style", "metadata"}
    ids = [e.attrib["id"] for e in root.iter() if "id" in e.attrib]
    assert ids
    assert all(name.startswith("one-") for name in ids)
    assert set(re.findall(r'(?:url\(#|href="#)([^)"]+)', placed)) == set(ids)
    for name in ("--teacher", "--baseline", "--student", "--rule"):
        assert f"var({name})" in placed
    assert "currentColor" in placed
    assert not set(charts.COLORS.values()) & set(re.findall("#[0-9a-f]{6}", placed))


def test_letters_that_the_font_lacks_are_no_reason_to_warn(tmp_path: Path) -> None:
    figure = charts.dots({"teacher": [1.0, 2.0]}, ["犬", "$x_{"], "recall (%)")
    text = svg.save(figure, tmp_path / "names")
    assert "犬" in text
    assert "$x_{" in text
