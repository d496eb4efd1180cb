"""How many classes' logits are stored: as few as the bounds allow, and only where it pays."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from scipy.special import rel_entr, softmax

from tests.distillation.test_top_logits import KINDS, rows
from tutelage.distillation import stored_classes, top_logits
from tutelage.distillation.origin import Origin
from tutelage.formatting import megabytes

REPOSITORY = Path(__file__).parents[2]
TEMPERATURES = [0.5, 1.0, 2.0, 4.0, 6.0, 20.0]


def origin(images: int = 10**6, classes: int = 1000, kept: int = 0) -> Origin:
    views = {"seed": 0, "flip": True, "shift": 2, "cutout": 0}
    shape = (images, classes)
    return Origin("t", "i", **views, precision="float32", shape=shape, kept=kept)


def never() -> np.ndarray:
    raise AssertionError("the teacher was asked in vain")


def measured(logits: np.ndarray, kept: int, temperature: float) -> np.ndarray:
    """T^2 KL(teacher || stored) of each image, KL below T = 1."""
    dense = top_logits.unpack(top_logits.pack(logits, kept), logits.shape[-1], temperature)
    p, q = (softmax(x.astype(np.float64) / temperature, axis=-1) for x in (logits, dense))
    return max(1.0, temperature**2) * rel_entr(p, q).sum(axis=-1)


# Reference


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("temperature", TEMPERATURES)
def test_the_divergence_is_scipys(kind: str, temperature: float) -> None:
    logits = rows(kind, classes=200)
    found = stored_classes.divergence(logits, 20, [temperature])
    each = measured(logits, 20, temperature)
    assert found.mean == pytest.approx(each.mean(), rel=1e-6, abs=1e-12)
    assert found.high == pytest.approx(np.percentile(each, 95), rel=1e-6, abs=1e-12)
    assert found.temperature == temperature


# Properties


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("temperature", TEMPERATURES)
def test_what_is_chosen_is_within_the_bounds_and_no_more_than_needed(
    kind: str, temperature: float
) -> None:
    logits = rows(kind, count=200)
    chosen, text = stored_classes.choose(origin(), 8, [temperature], lambda: logits)
    if not chosen.kept:
        assert "240 largest" in text  # those with half of the bytes
        each = measured(logits, 240, temperature)
        assert each.mean() > stored_classes.MEAN or np.percentile(each, 95) > stored_classes.HIGH
        return
    assert chosen.kept % 10 == 0
    assert 2 * chosen.bytes(8) <= origin().bytes(8)
    each = measured(logits, chosen.kept, temperature)
    assert each.mean() <= stored_classes.MEAN
    assert np.percentile(each, 95) <= stored_classes.HIGH
    fresh = measured(rows(kind, count=200, seed=1), chosen.kept, temperature)
    assert fresh.mean() <= 1.5 * stored_classes.MEAN
    if chosen.kept > 10:
        fewer = measured(logits, chosen.kept - 10, temperature)
        assert fewer.mean() > stored_classes.MEAN or np.percentile(fewer, 95) > stored_classes.HIGH


def test_both_outcomes_occur() -> None:
    """Sure teachers need few classes at T = 1, and all at higher ones, where the tail counts."""

    def kept(kind: str, *temperatures: float) -> int:
        logits = rows(kind, count=200)
        return stored_classes.choose(origin(), 8, temperatures, lambda: logits)[0].kept

    assert kept("equal", 0.5, 1.0, 20.0) == kept("flat", 1.0) == 10
    assert 10 <= kept("peaked", 1.0) <= 240
    assert kept("peaked", 4.0) == kept("wide", 1.0) == 0
    # One cache serves all temperatures that were named, and the worst decides.
    assert kept("peaked", 0.5) <= kept("peaked", 0.5, 1.0) == kept("peaked", 1.0)
    assert kept("peaked", 0.5, 1.0, 4.0) == 0


def test_more_classes_are_never_worse() -> None:
    for kind in KINDS:
        logits = rows(kind, count=60)
        for temperature in (0.5, 1.0, 4.0):
            means = [
                stored_classes.divergence(logits, kept, [temperature]).mean
                for kept in (1, 5, 20, 100, 500, 1000)
            ]
            assert (np.diff(means) <= 1e-5).all()


# Where it does not pay


@pytest.mark.parametrize(
    ("images", "classes", "views"),
    [
        (10**6, 10, 8),  # little in all
        (10**9, 10, 8),  # a row of the largest would take more
        (10**9, 55, 8),  # or more than half of it
        (130_000, 1000, 1),  # 260 MB, below 256 MiB
    ],
)
def test_all_are_stored_without_asking_the_teacher(images: int, classes: int, views: int) -> None:
    whole = origin(images, classes)
    assert stored_classes.choose(whole, views, [1.0], never) == (whole, "")


def test_the_bounds_of_size() -> None:
    peaked = rows("equal", classes=1000)
    for images, kept in ((134_217, 0), (134_218, 10)):  # 256 MiB, and more
        chosen, _ = stored_classes.choose(origin(images), 1, [1.0], lambda: peaked)
        assert chosen.kept == kept
    flat = rows("equal", classes=57)
    assert stored_classes.choose(origin(10**9, 57), 1, [1.0], lambda: flat)[0].kept == 10


# The user's choice


def test_the_choice_of_the_user_stands_and_what_it_costs_is_told() -> None:
    logits = rows("wide")
    chosen, text = stored_classes.choose(origin(1000), 1, [1.0], lambda: logits, asked=7)
    assert chosen == replace(origin(1000), kept=7)
    assert "above the bounds" in text
    equal = rows("equal")
    chosen, text = stored_classes.choose(origin(1000), 1, [4.0], lambda: equal, asked=7)
    assert chosen.kept == 7
    assert "above" not in text
    assert "T = 4" in text
    whole = origin(1000)
    assert stored_classes.choose(whole, 1, [1.0], never, asked=1000) == (whole, "")


def test_the_sample_is_smaller_for_very_many_classes() -> None:
    assert stored_classes.sample_size(10) == stored_classes.sample_size(1000) == 256
    assert stored_classes.sample_size(2**20) == 16
    assert stored_classes.sample_size(2**30) == 1


# The documentation


def test_the_table_of_sizes_is_that_of_the_files() -> None:
    """`test_logit_cache` compares `Origin.bytes` with files."""
    text = (REPOSITORY / "docs" / "concepts.md").read_text(encoding="utf-8")
    table = [
        f"| {kept or 'all 1,000'} | {origin(kept=kept).bytes(1) // 10**6:,} bytes | "
        f"{megabytes(origin(kept=kept).bytes(8))} |"
        for kept in (10, 50, 0)
    ]
    assert "\n".join(table) in text
    for number in (stored_classes.MEAN, stored_classes.HIGH):
        assert re.search(rf"\b{number:g}\b", text)
