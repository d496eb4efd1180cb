"""Stratified splits."""

import numpy as np
import pytest

from tests.data.example_data import (
    refusal,
)
from tutelage.data.content import Part
from tutelage.data.datasets import load
from tutelage.data.splitting import split
from tutelage.errors import RecipeError


def test_a_split_is_stratified_whole_and_repeatable():
    labels = np.repeat([0, 1, 2], [60, 30, 10])
    part = Part(np.arange(100, dtype=np.uint8).reshape(100, 1, 1, 1), labels)
    rest, chosen = split(part, 0.2, seed=3)
    assert np.bincount(chosen.labels).tolist() == [12, 6, 2]
    both = np.concatenate([rest.images, chosen.images]).ravel()
    assert sorted(both.tolist()) == list(range(100))
    for side in (rest, chosen):
        np.testing.assert_array_equal(side.labels, labels[side.images.ravel()])
    again = split(part, 0.2, seed=3)
    other = split(part, 0.2, seed=4)
    assert all((np.diff(side.images.ravel().astype(int)) > 0).all() for side in (rest, chosen))
    np.testing.assert_array_equal(again[1].images, chosen.images)
    assert not np.array_equal(other[1].images, chosen.images)


@pytest.mark.parametrize(
    ("labels", "fraction"),
    [([0, 0, 0, 1], 0.5), ([0] * 50 + [1] * 2, 0.05), ([0, 1], 0.5), ([0, 0, 1, 1], 0.1)],
)
def test_a_split_that_leaves_a_class_out_is_refused(labels, fraction):
    part = Part(np.zeros((len(labels), 1, 1, 1), np.uint8), np.array(labels))
    assert "class" in refusal(split, part, fraction, 0)


@pytest.mark.parametrize("fraction", [0, 1, -0.1, 1.5, float("nan"), float("inf"), True])
def test_an_impossible_fraction_is_refused(fraction):
    assert repr(fraction) in refusal(split, load("digits").train, fraction, 0, kind=RecipeError)


@pytest.mark.parametrize("seed", [-1, 2**32, True])
def test_an_impossible_seed_is_refused(seed):
    assert repr(seed) in refusal(split, load("digits").train, 0.5, seed, kind=RecipeError)
