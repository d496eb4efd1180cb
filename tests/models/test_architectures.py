"""Sizes and descriptions of the named models."""

from __future__ import annotations

import numpy as np
import pytest

from tutelage.errors import RecipeError
from tutelage.models import architectures, zoo


@pytest.mark.parametrize("shape", [(32, 32, 3), (28, 28, 1), (13, 30, 3)])
@pytest.mark.parametrize("name", architectures.ARCHITECTURES)
def test_sizes_are_those_of_the_built_model(name: str, shape: tuple[int, int, int]) -> None:
    (row,) = architectures.table([name], shape=shape, classes=7)
    images = np.random.default_rng(0).integers(0, 256, (2, *shape), dtype=np.uint8)
    model = zoo.build(name, images=images, classes=7, seed=0)
    assert (row["parameters"], row["macs"]) == (model.count_params(), zoo.macs(model))


def test_images_that_are_too_small_give_no_sizes_where_building_is_refused() -> None:
    sizes = {row["name"]: row["parameters"] for row in architectures.table(shape=(4, 7, 1))}
    fits = ("digits-teacher", "digits-student", "mlp-1200", "mlp-800", "mlp-300", "mlp-30")
    assert {name for name, parameters in sizes.items() if parameters} == set(fits)


def test_a_description_follows_its_architecture() -> None:
    kinds = architectures.Architecture, architectures.MLP
    assert str(kinds[0](((1, 2), (3, 4)), (0.0, 0.0))) == (
        "3x3 convolutions of 1-2, 3-4 filters, then average pooling"
    )
    assert str(kinds[0](((1, 2),), (0.0,), 9, 0.1)).endswith("then 9 hidden units, dropout")
    assert str(kinds[1]((5, 6), (0.0, 0.0, 0.0))) == "fully connected, 5-6 hidden units"
    assert "dropout, weights of a unit limited to a norm of 2" in str(kinds[1]((5,), (0.1, 0), 2.0))


@pytest.mark.parametrize(("shape", "classes"), [((0, 8, 3), 10), ((8, 8, 0), 10), ((8, 8, 3), 1)])
def test_impossible_images_are_refused(shape: tuple[int, int, int], classes: int) -> None:
    with pytest.raises(RecipeError):
        architectures.table(shape=shape, classes=classes)
