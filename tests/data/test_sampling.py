"""The order that draws every class equally often."""

from __future__ import annotations

import numpy as np
import pytest

from tutelage.data.sampling import balanced_order
from tutelage.errors import RecipeError

LABELS = np.repeat([0, 1, 3], [50, 3, 17])[np.random.default_rng(0).permutation(70)]


def drawn(epoch: int, seed: int = 0) -> np.ndarray:
    return balanced_order(LABELS, seed=seed, epoch=epoch)


def test_every_class_is_drawn_equally_often_at_any_point_of_an_epoch() -> None:
    for epoch in range(5):
        order = drawn(epoch)
        assert (order.dtype, order.shape) == (np.int64, (70,))
        for end in range(71):
            counts = [int((LABELS[order[:end]] == label).sum()) for label in (0, 1, 3)]
            assert max(counts) - min(counts) <= 1
            assert sum(counts) == end


def test_a_class_goes_through_all_its_images_before_one_comes_again() -> None:
    labels = np.repeat([0, 1, 3], [49, 3, 17])  # in 23 whole rounds
    for epochs in (1, 2, 7):
        orders = [balanced_order(labels, seed=0, epoch=epoch) for epoch in range(epochs)]
        counts = np.bincount(np.concatenate(orders), minlength=69)
        for label in (0, 1, 3):
            each = counts[labels == label]
            assert each.sum() == 23 * epochs
            assert each.max() - each.min() <= 1


def test_it_is_a_function_of_seed_and_epoch() -> None:
    np.testing.assert_array_equal(drawn(3), drawn(3))
    assert (drawn(3) != drawn(4)).any()
    assert (drawn(3) != drawn(3, seed=1)).any()
    # Classes come in another order in each round.
    firsts = {int(LABELS[drawn(epoch)[0]]) for epoch in range(20)}
    assert firsts == {0, 1, 3}


def test_a_negative_epoch_is_refused() -> None:
    with pytest.raises(RecipeError, match="epoch"):
        drawn(-1)
