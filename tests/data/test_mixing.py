"""Mixup and CutMix: pairs, weights, pixels and labels."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

from tutelage.data import mixing
from tutelage.recipe import Views

BOTH = Views(mixup=0.4, cutmix=1.0)


def mixed(index, count, views=BOTH, **settings):
    given = {"seed": 3, "view": 1, "size": (16, 12)} | settings
    return mixing.mixing(np.asarray(index), count=count, views=views, **given)


@pytest.mark.parametrize("count", [1, 2, 3, 17, 64, 1000])
def test_all_images_form_pairs_and_an_odd_one_stays_alone(count):
    every = mixed(np.arange(count), count)
    np.testing.assert_array_equal(every.partner[every.partner], np.arange(count))
    alone = every.partner == np.arange(count)
    assert alone.sum() == count % 2
    assert (every.weight[alone] == 1).all()
    assert (every.boxes[alone] == 0).all()
    np.testing.assert_array_equal(every.weight, every.weight[every.partner])
    np.testing.assert_array_equal(every.boxes, every.boxes[every.partner])


def test_it_depends_on_seed_view_and_index_alone():
    every = mixed(np.arange(1000), 1000)
    index = np.array([999, 3, 500])
    few = mixed(index, 1000)
    np.testing.assert_array_equal(few.partner, every.partner[index])
    np.testing.assert_array_equal(few.weight, every.weight[index])
    for other in ({"seed": 4}, {"view": 2}):
        assert (mixed(np.arange(1000), 1000, **other).partner != every.partner).mean() > 0.99


@pytest.mark.parametrize("count", [7, 8, 101])
def test_an_epoch_visits_each_image_once_and_its_partner_beside_it(count):
    order = mixing.order(count, seed=3, epoch=5, view=1)
    assert sorted(order) == list(range(count))
    places = np.argsort(order)
    partner = mixed(np.arange(count), count).partner
    assert np.abs(places - places[partner]).max() <= 1
    assert (order != mixing.order(count, seed=3, epoch=6, view=1)).any()


@pytest.mark.parametrize("alpha", [0.2, 1.0, 4.0])
def test_weights_of_mixup_have_their_beta_distribution(alpha):
    weight = mixed(np.arange(8000), 8000, Views(mixup=alpha)).weight
    first = mixed(np.arange(8000), 8000, Views(mixup=alpha)).partner > np.arange(8000)
    assert stats.kstest(weight[first], stats.beta(alpha, alpha).cdf).pvalue > 1e-3


def test_weights_of_cutmix_are_the_area_that_is_left():
    views = Views(cutmix=1.0)
    made = mixed(np.arange(2000), 2000, views)
    top, bottom, left, right = made.boxes.T
    np.testing.assert_allclose(made.weight, 1 - (bottom - top) * (right - left) / (16 * 12))
    assert made.boxes.min() >= 0
    assert bottom.max() <= 16
    assert right.max() <= 12
    # As in the paper's code: an area of 1 - lambda about a uniform center, cut at the border.
    random = np.random.default_rng(0)
    sides = np.sqrt(1 - random.beta(1, 1, 100_000))
    kept = [
        np.clip(c + s / 2, 0, 1) - np.clip(c - s / 2, 0, 1)
        for c, s in ((random.random(100_000), sides), (random.random(100_000), sides))
    ]
    assert abs(made.weight.mean() - (1 - kept[0] * kept[1]).mean()) < 0.02


def test_with_both_each_pair_gets_one_of_the_two():
    made = mixed(np.arange(2000), 2000)
    cut = made.boxes.any(axis=1)
    assert 0.4 < cut.mean() < 0.5  # a few boxes are empty


def test_pixels_and_labels_are_mixed_alike():
    images = np.random.default_rng(0).integers(0, 256, (200, 16, 12, 3), dtype=np.uint8)
    made = mixed(np.arange(200), 200)
    other = images[made.partner]
    result = made.pixels(images, other)
    for number in range(200):
        top, bottom, left, right = made.boxes[number]
        if bottom > top and right > left:
            inside = np.zeros((16, 12, 1), bool)
            inside[top:bottom, left:right] = True
            wanted = np.where(inside, other[number], images[number])
        else:
            wanted = made.weight[number] * images[number].astype(float)
            wanted = np.round(wanted + (1 - made.weight[number]) * other[number])
        assert np.abs(result[number].astype(int) - wanted).max() <= 1
    labels = np.arange(200) % 5
    soft = made.labels(np.stack([labels, labels[made.partner]]), classes=5)
    np.testing.assert_allclose(soft.sum(axis=1), 1, rtol=1e-6)
    for number in (0, 17, 150):
        own, its = labels[number], labels[made.partner[number]]
        wanted = np.zeros(5)
        wanted[own] += made.weight[number]
        wanted[its] += 1 - made.weight[number]
        np.testing.assert_allclose(soft[number], wanted, rtol=1e-6)
