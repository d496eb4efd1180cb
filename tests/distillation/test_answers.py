"""A sample of answers is recognized, and any change that a student would see is not."""

from __future__ import annotations

import numpy as np
import pytest

from tutelage.distillation.answers import agree, sample

LOGITS = np.random.default_rng(0).normal(0, 4, (64, 10)).astype(np.float32)


def test_a_sample_is_spread_over_all_images() -> None:
    assert sample(5).tolist() == [0, 1, 2, 3, 4]
    index = sample(60_000)
    assert (len(index), index[0], index[-1]) == (64, 0, 59_999)
    assert set(np.diff(index)) == {952, 953}


@pytest.mark.parametrize("offset", [0.0, 300.0])
def test_rounding_and_an_offset_agree(offset: float) -> None:
    noise = np.random.default_rng(1).normal(0, 1e-4, LOGITS.shape)
    assert agree(LOGITS + noise, LOGITS)
    assert agree(LOGITS + noise + offset, (LOGITS + offset).astype(np.float16))
    less = LOGITS - LOGITS.max(axis=1, keepdims=True)
    assert agree(LOGITS + offset, less.astype(np.float16))
    assert agree(LOGITS + 100 * noise, LOGITS, "bfloat16")


def test_masked_classes_agree_with_themselves_alone() -> None:
    masked = LOGITS.copy()
    masked[:, 3] = -np.inf
    assert agree(masked, masked)
    assert not agree(LOGITS, masked)
    assert not agree(masked, LOGITS)


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
@pytest.mark.parametrize(
    "change",
    [
        lambda x: x[:, [1, 0, *range(2, 10)]],
        lambda x: x[:, ::-1],
        lambda x: 1.1 * x,
        lambda x: x + np.eye(10, dtype=x.dtype)[0],
        lambda x: np.concatenate([x[:-1], x[:1]]),
        lambda x: x[:, :9],
    ],
    ids=["two classes", "order", "scale", "one class", "one image", "shape"],
)
def test_changes_do_not_agree(change, precision: str) -> None:
    assert not agree(change(LOGITS), LOGITS, precision)
    assert not agree(change(LOGITS), LOGITS.astype(np.float16), precision)
