"""Views against a slow loop over np.pad and np.fliplr, one image at a time."""

from __future__ import annotations

import numpy as np
import pytest

from tutelage.data import augmentation
from tutelage.errors import RecipeError

SHIFT = 2
# Noise, so that no two ways of showing an image look alike; neither square nor grey.
IMAGES = np.random.default_rng(0).integers(0, 256, (300, 6, 7, 3), dtype=np.uint8)
ALL = np.arange(len(IMAGES))


def seen(index: np.ndarray = ALL, **changed: object) -> np.ndarray:
    settings = {"seed": 5, "epoch": 3, "flip": True, "shift": SHIFT}
    return augmentation.view(IMAGES, index, **(settings | changed))


def ways(image: np.ndarray, shift: int) -> dict[tuple[bool, int, int], np.ndarray]:
    """Every way to show an image: by whether it is mirrored, and the crop's row and column."""
    height, width = image.shape[:2]
    shown = {}
    for mirrored in (False, True):
        turned = np.fliplr(image) if mirrored else image
        padded = np.pad(turned, ((shift, shift), (shift, shift), (0, 0)), mode="reflect")
        for row in range(2 * shift + 1):
            for column in range(2 * shift + 1):
                crop = padded[row : row + height, column : column + width]
                shown[mirrored, row - shift, column - shift] = crop
    return shown


def all_ways(**changed: object) -> np.ndarray:
    """The one way in which each image is shown, of shape (images, 3)."""
    found = []
    for image, view in zip(IMAGES, seen(**changed), strict=True):
        (key,) = [key for key, crop in ways(image, SHIFT).items() if np.array_equal(crop, view)]
        found.append(key)
    return np.array(found, dtype=int)


def test_every_view_is_the_image_mirrored_or_not_and_cropped_from_its_reflection() -> None:
    found = all_ways()
    assert seen().dtype == np.uint8
    # Each of the fifty ways is as likely: six of 300 images on average.
    _, counts = np.unique(found, axis=0, return_counts=True)
    assert len(counts) == 50
    assert ((counts - 6.0) ** 2 / 6).sum() < 85.4  # chi-squared, 49 degrees of freedom, 0.1 %


def test_the_largest_shift_reflects_all_but_one_row() -> None:
    for image, view in zip(IMAGES, seen(shift=5), strict=True):
        assert any(np.array_equal(crop, view) for crop in ways(image, 5).values())


def test_an_image_is_mirrored_in_every_other_epoch() -> None:
    mirrored = np.array([all_ways(epoch=epoch)[:, 0] for epoch in range(4)])
    np.testing.assert_array_equal(mirrored[1:], 1 - mirrored[:-1])
    assert 100 < mirrored[0].sum() < 200  # half of the images begin mirrored


def test_shifts_are_drawn_anew_for_each_seed_epoch_and_direction() -> None:
    draws = [
        all_ways(seed=seed, epoch=epoch)[:, axis]
        for seed, epoch in [(5, 3), (5, 4), (6, 3)]
        for axis in (1, 2)
    ]
    correlation = np.corrcoef(draws) - np.eye(len(draws))
    assert np.abs(correlation).max() < 0.2  # 3.5 standard deviations


def test_shifts_and_first_mirrorings_are_uniform_over_many_images() -> None:
    # One pixel's place tells how a row of pixels was shown.
    count, width = 20_000, 9
    images = np.tile(np.arange(width, dtype=np.uint8), (count, 1))[:, None, :, None]
    images = np.repeat(images, width, axis=1)
    shown = augmentation.view(images, np.arange(count), seed=0, epoch=0, flip=True, shift=2)
    middle, step = shown[:, 4, 4, 0].astype(int), np.diff(shown[:, 4, 3:5, 0].astype(int))[:, 0]
    ways, counts = np.unique(np.stack([step, middle]), axis=1, return_counts=True)
    assert ways.shape[1] == 10  # two directions by five shifts
    assert np.abs(counts - count / 10).max() < 4.5 * np.sqrt(count * 0.1 * 0.9)


def squares(cutout: int) -> np.ndarray:
    """What may be hidden of a 6x7 image, by the pixel about which it is."""
    hidden = np.zeros((6, 7, 6, 7), bool)
    for row, column in np.ndindex(6, 7):
        top, left = row - cutout // 2, column - cutout // 2
        square = slice(max(top, 0), top + cutout), slice(max(left, 0), left + cutout)
        hidden[row, column][square] = True
    return hidden.reshape(42, 6, 7)


@pytest.mark.parametrize("cutout", [1, 2, 3, 5])
def test_cutout_hides_one_square_behind_the_mean_colour(cutout: int) -> None:
    candidates, chosen = squares(cutout), []
    for image, whole, cut in zip(IMAGES, seen(), seen(cutout=cutout), strict=True):
        mean = np.round(image.reshape(-1, 3).mean(0)).astype(np.uint8)
        fitting = [
            place
            for place, hidden in enumerate(candidates)
            if np.array_equal(np.where(hidden[..., None], mean, whole), cut)
        ]
        assert len(fitting) == 1
        chosen += fitting
    # Each of 42 pixels is as likely: seven of 300 images on average.
    counts = np.bincount(chosen, minlength=42)
    expected = 300 / 42
    assert ((counts - expected) ** 2 / expected).sum() < 74.7  # 41 degrees of freedom, 0.1 %


def test_cutout_is_drawn_anew_for_each_seed_and_epoch_and_direction() -> None:
    places = []
    for changed in ({}, {"epoch": 4}, {"seed": 6}):
        grey = np.full((300, 6, 7, 1), 255, np.uint8)
        grey[:, 0, 0] = 0  # so that the mean is none of an image's values
        settings = {"seed": 5, "epoch": 3, "flip": False, "shift": 0} | changed
        cut = augmentation.view(grey, ALL, cutout=1, **settings)[..., 0]
        mean = round(float(grey[0].mean()))
        places += list(np.argwhere(cut == mean)[:, 1:].T)
    correlation = np.corrcoef(places) - np.eye(6)
    assert np.abs(correlation).max() < 0.2  # 3.5 standard deviations


@pytest.mark.parametrize("cutout", [-1, 6])
def test_a_cutout_over_the_whole_image_is_refused(cutout: int) -> None:
    with pytest.raises(RecipeError, match=r"^cutout"):
        seen(cutout=cutout)


def test_a_view_does_not_depend_on_its_batch() -> None:
    whole = seen()
    mixed = np.random.default_rng(1).permutation(len(IMAGES))
    for batch in np.array_split(mixed, 7):
        np.testing.assert_array_equal(seen(batch), whole[batch])
        np.testing.assert_array_equal(seen(batch, cutout=3), seen(cutout=3)[batch])
    np.testing.assert_array_equal(seen(ALL[:1].astype(np.uint8)), whole[:1])
    assert seen(ALL[:0]).shape == (0, 6, 7, 3)


def test_a_view_stays_what_it_was_in_earlier_versions() -> None:
    # Stored answers of a teacher and half-finished runs rely on these.
    images = np.arange(2 * 3 * 4, dtype=np.uint8).reshape(2, 3, 4, 1)
    shown = augmentation.view(images, np.array([0, 1]), seed=7, epoch=1, flip=True, shift=1)
    assert shown[..., 0].tolist() == [
        [[6, 5, 4, 5], [2, 1, 0, 1], [6, 5, 4, 5]],
        [[17, 18, 19, 18], [21, 22, 23, 22], [17, 18, 19, 18]],
    ]
    grey = np.tile(np.array([0, 99], np.uint8), (2, 4, 2))[..., None]
    shown = augmentation.view(
        grey, np.array([0, 1]), seed=7, epoch=1, flip=False, shift=0, cutout=2
    )
    assert (shown[..., 0] == 50).astype(int).tolist() == [
        [[0, 0, 0, 0], [0, 0, 0, 0], [0, 1, 1, 0], [0, 1, 1, 0]],
        [[0, 1, 1, 0], [0, 1, 1, 0], [0, 0, 0, 0], [0, 0, 0, 0]],
    ]
    assert augmentation.order(8, seed=7, epoch=1).tolist() == [2, 6, 3, 0, 7, 5, 4, 1]


def test_neither_flip_nor_shift_leaves_images_as_they_are() -> None:
    np.testing.assert_array_equal(seen(flip=False, shift=0), IMAGES)


def test_the_images_themselves_are_never_changed() -> None:
    before = IMAGES.copy()
    seen(flip=False, shift=0)[:] = 0
    seen()[:] = 0
    np.testing.assert_array_equal(IMAGES, before)


def test_each_epoch_visits_every_image_once_in_an_order_of_its_own() -> None:
    orders = [
        augmentation.order(500, seed=seed, epoch=epoch) for seed in (0, 1) for epoch in range(3)
    ]
    for order in orders:
        assert order.dtype == np.int64
        np.testing.assert_array_equal(np.sort(order), np.arange(500))
    correlation = np.corrcoef([*orders, np.arange(500)]) - np.eye(7)
    assert np.abs(correlation).max() < 0.2  # 4.5 standard deviations
    np.testing.assert_array_equal(augmentation.order(500, seed=1, epoch=2), orders[5])


@pytest.mark.parametrize("shift", [-1, 6])
def test_a_shift_over_the_whole_image_is_refused(shift: int) -> None:
    with pytest.raises(RecipeError, match=r"^views\.shift"):
        seen(shift=shift)


@pytest.mark.parametrize(
    ("index", "offender"),
    [
        ([0, 300], "0 to 300"),
        ([-1, 0], "-1 to 0"),
        ([0.0, 1.0], "float64"),
        ([True, False], "bool"),
        ([[0, 1]], r"\(1, 2\)"),
    ],
)
def test_an_index_that_numbers_no_images_is_refused(index: list, offender: str) -> None:
    with pytest.raises(RecipeError, match=offender):
        seen(np.array(index))


@pytest.mark.parametrize("changed", [{"seed": -1}, {"epoch": -1}])
def test_a_negative_seed_or_epoch_is_refused(changed: dict[str, int]) -> None:
    with pytest.raises(RecipeError, match="found"):
        seen(**changed)
    with pytest.raises(RecipeError, match="found"):
        augmentation.order(4, **({"seed": 0, "epoch": 0} | changed))
