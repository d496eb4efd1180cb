"""Transforms of one image against torchvision's, with the same parameters."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
import torch
from PIL import Image

from tutelage.data import transforms
from tutelage.data.geometry import Geometry
from tutelage.recipe import Views

RANDOM = np.random.default_rng(0)
PHOTOGRAPH = Image.fromarray(
    np.kron(RANDOM.integers(0, 256, (6, 8, 3), np.uint8), np.ones((9, 9, 1), np.uint8))
)


@pytest.fixture(scope="module")
def v2():
    library = None
    if torch.version.cuda is None:
        # The index has torchvision for CUDA alone, which lacks its operators beside this build.
        library = torch.library.Library("torchvision", "DEF")
        for name in ("nms", "qnms"):
            library.define(f"{name}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
    from torchvision.transforms import v2

    yield v2
    del library


def pixels(picture):
    return np.asarray(picture).astype(int)


# Each operation by torchvision's name of it, for the policy's fraction of the largest magnitude.
NAMES = {
    "identity": "Identity",
    "shear x": "ShearX",
    "shear y": "ShearY",
    "translate x": "TranslateX",
    "translate y": "TranslateY",
    "rotate": "Rotate",
    "brightness": "Brightness",
    "color": "Color",
    "contrast": "Contrast",
    "sharpness": "Sharpness",
    "posterize": "Posterize",
    "solarize": "Solarize",
    "autocontrast": "AutoContrast",
    "equalize": "Equalize",
}


@pytest.mark.parametrize("policy", ["randaugment", "trivialaugment"])
def test_every_operation_of_a_policy_is_torchvisions(v2, policy):
    reference = v2.RandAugment() if policy == "randaugment" else v2.TrivialAugmentWide()
    operations = {
        "randaugment": transforms._RAND_AUGMENT,
        "trivialaugment": transforms._TRIVIAL_AUGMENT,
    }[policy]
    assert list(NAMES.values()) == list(reference._AUGMENTATION_SPACE)
    assert list(operations) == list(NAMES)
    bins, (height, width) = 31, PHOTOGRAPH.size[::-1]
    changed = 0
    for place, (ours, theirs) in enumerate(NAMES.items()):
        magnitudes, signed = reference._AUGMENTATION_SPACE[theirs]
        values = magnitudes(bins, height, width)
        assert operations[ours][2] == signed
        for magnitude, sign in itertools.product((0, 9, 20, 30), (0.0, 0.9)):
            value = 0.0 if values is None else float(values[magnitude])
            value = -value if signed and sign < 0.5 else value
            expected = reference._apply_image_or_video_transform(
                PHOTOGRAPH, theirs, value, v2.InterpolationMode.NEAREST, {Image.Image: 0}
            )
            found = transforms._policy(
                PHOTOGRAPH, operations, (place + 0.5) / 14, magnitude / 30, sign
            )
            difference = np.abs(pixels(found) - pixels(expected))
            assert difference.mean() < 0.2, (ours, magnitude, sign)
            changed += bool((pixels(found) != pixels(PHOTOGRAPH)).any())
    assert changed > 60  # of 112: without an effect are identity, autocontrast and magnitude 0


def test_color_jitter_is_torchvisions(v2):
    functional = v2.functional
    factors = (0.7, 1.3, 0.2)
    draws = [(factor - 0.1) / 1.8 for factor in factors] + [0.9, 0.0]
    found = transforms.color_jitter(PHOTOGRAPH, 0.9, 0.25, draws)
    changes = [
        lambda x: functional.adjust_brightness(x, factors[0]),
        lambda x: functional.adjust_contrast(x, factors[1]),
        lambda x: functional.adjust_saturation(x, factors[2]),
        lambda x: functional.adjust_hue(x, 0.25 * 0.8),
    ]
    found_orders = set()
    candidates = {}
    for order in itertools.permutations(range(4)):
        picture = PHOTOGRAPH
        for place in order:
            picture = changes[place](picture)
        candidates[order] = pixels(picture)
    for number in range(24):
        draws[4] = (number + 0.5) / 24
        found = pixels(transforms.color_jitter(PHOTOGRAPH, 0.9, 0.25, draws))
        found_orders |= {
            order for order, wanted in candidates.items() if np.abs(found - wanted).max() <= 1
        }
    assert len(found_orders) == 24


def test_a_crop_is_torchvisions_resized_crop(v2):
    box = (5, 7, 45, 40)
    found = PHOTOGRAPH.resize((16, 16), Image.Resampling.BILINEAR, box)
    expected = v2.functional.resized_crop(
        PHOTOGRAPH, box[1], box[0], box[3] - box[1], box[2] - box[0], [16, 16]
    )
    difference = np.abs(pixels(found) - pixels(expected))
    # Pillow smooths with pixels beyond the box, torchvision cuts it out first.
    assert difference[2:-2, 2:-2].max() <= 1


def test_crops_have_the_areas_ratios_and_places_that_are_asked_for():
    size, scale, ratio = (200, 100), (0.2, 0.5), (0.5, 2.0)
    boxes = np.array(
        [transforms.crop_box(size, scale, ratio, row) for row in RANDOM.random((4000, 22))]
    )
    across, down = boxes[:, 2] - boxes[:, 0], boxes[:, 3] - boxes[:, 1]
    assert boxes.min() >= 0
    assert (boxes[:, 2].max(), boxes[:, 3].max()) == size
    areas, aspects = across * down / 20_000, across / down
    assert 0.19 < areas.min() < 0.21
    assert 0.49 < areas.max() < 0.51
    assert 0.48 < aspects.min() < 0.53
    assert 1.9 < aspects.max() < 2.1
    assert abs(np.log(aspects[areas < 0.3]).mean()) < 0.05  # log-uniform: as often wide as high
    free = (200 - across) > 50
    assert abs((boxes[free, 0] / (200 - across[free])).mean() - 0.5) < 0.02


@pytest.mark.parametrize(
    ("size", "expected"),
    [((1000, 10), (493, 0, 506, 10)), ((10, 1000), (0, 493, 10, 506)), ((1, 1), (0, 0, 1, 1))],
)
def test_an_image_without_such_a_crop_gives_its_center(size, expected):
    box = transforms.crop_box(size, (1.0, 1.0), (0.75, 4 / 3), [0.5] * 22)
    assert np.abs(np.array(box) - expected).max() <= 1


@pytest.mark.parametrize("mode", ["L", "RGB"])
@pytest.mark.parametrize(
    "views",
    [
        Views(crop="random-resized"),
        Views(policy="randaugment", policy_magnitude=30, policy_operations=3),
        Views(policy="trivialaugment"),
        Views(color_jitter=0.4, hue=0.5),
        Views(color_jitter=1.5),
        Views(hue=0.1),
    ],
)
def test_every_transform_takes_its_draws_and_keeps_size_and_mode(mode, views):
    picture, count = PHOTOGRAPH.convert(mode), transforms.draws_per_image(views)
    assert count
    for draws in RANDOM.random((40, count)):
        changed = transforms.transform(picture, Geometry((11, 13)), views, draws.tolist())
        assert (changed.size, changed.mode) == ((13, 11), mode)
    with pytest.raises(StopIteration):
        transforms.transform(picture, Geometry((11, 13)), views, [0.5] * (count - 1))


def test_without_transforms_the_geometry_is_left():
    assert transforms.draws_per_image(Views()) == 0
    made = transforms.transform(PHOTOGRAPH, Geometry((10, 10), "crop"), Views(), [])
    wanted = PHOTOGRAPH.crop((9, 0, 63, 54)).resize((10, 10), Image.Resampling.BILINEAR)
    inner = np.s_[1:-1, 1:-1]
    assert np.abs(pixels(made)[inner] - pixels(wanted)[inner]).max() <= 1
    assert math.prod(made.size) == 100
