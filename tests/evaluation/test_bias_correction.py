"""The correction of classes that were not seen, against every offset there is."""

from __future__ import annotations

import numpy as np
import pytest

from tutelage.errors import DataError
from tutelage.evaluation import bias_correction


@pytest.fixture
def sample() -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(0)
    logits = rng.normal(0, 3, (500, 10)).astype(np.float32)
    return logits, rng.integers(0, 10, 500)


def corrected_by_trying(logits: np.ndarray, labels: np.ndarray, classes: list[int]) -> int:
    """The fewest errors of any offset: one is tried in each gap between two margins."""
    others = [k for k in range(logits.shape[1]) if k not in classes]
    margins = np.unique(logits[:, others].max(1) - logits[:, classes].max(1))
    tries = np.concatenate([[margins[0] - 1], (margins[1:] + margins[:-1]) / 2, [margins[-1] + 1]])
    counts = []
    for offset in tries:
        moved = logits.copy()
        moved[:, classes] += offset
        counts.append(int((moved.argmax(1) != labels).sum()))
    return min(counts)


@pytest.mark.parametrize("classes", [[3], [7, 8], [0, 1, 2, 4, 5, 6, 9]])
def test_a_correction_leaves_the_fewest_errors_of_all_offsets(
    sample: tuple, classes: list[int]
) -> None:
    logits, labels = sample
    logits = logits.astype(np.float64)
    logits[np.arange(500), labels] += 4
    logits[:, classes] -= 5  # as of a student that has not seen them
    correction = bias_correction.find(logits, labels, classes)
    moved = bias_correction.add_offset(logits, classes, correction.offset)
    assert (moved.argmax(1) != labels).sum() == correction.errors
    assert correction.errors == corrected_by_trying(logits, labels, classes)
    assert correction.errors < (logits.argmax(1) != labels).sum()
    assert correction.offset == pytest.approx(5, abs=1.5)


def test_a_correction_is_the_middle_of_the_longest_best_stretch() -> None:
    # Class 1 is right for the first image from 3 on, wrong for the second from 8 on.
    logits, labels = [[3.0, 0.0], [8.0, 0.0], [1.0, 0.0]], [1, 0, 1]
    assert bias_correction.find(logits, labels, [1]) == (5.5, 0)
    # The other class is lowered by as much as this one is raised.
    assert bias_correction.find(logits, labels, [0]) == (-5.5, 0)
    # Where more is never worse, a little more than enough.
    assert bias_correction.find(logits, [1, 1, 1], [1]) == (9.0, 0)
    assert bias_correction.find(logits, [0, 0, 0], [1]) == (0.0, 0)


@pytest.mark.parametrize("classes", [[], [0, 1], [2], [0, 5], [-1]])
def test_a_correction_of_no_class_or_of_all_is_refused(classes: list[int]) -> None:
    with pytest.raises(DataError, match="classes 0"):
        bias_correction.find([[3.0, 0.0], [8.0, 0.0]], [1, 0], classes)


def test_raised_logits_are_new_ones(sample: tuple) -> None:
    logits, _ = sample
    before = logits.copy()
    moved = bias_correction.add_offset(logits, [2, 5], -1.5)
    np.testing.assert_array_equal(logits, before)
    changed = moved - logits
    assert np.unique(changed[:, [2, 5]].round(5)).tolist() == [-1.5]
    assert not np.delete(changed, [2, 5], axis=1).any()
