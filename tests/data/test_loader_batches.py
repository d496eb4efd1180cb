"""Batches of every form that frameworks give, as arrays; others are refused."""

from __future__ import annotations

from collections import UserDict, namedtuple
from typing import Any

import numpy as np
import pytest
import torch

from tutelage.data.loader_batches import BatchFormat
from tutelage.errors import DataError

RNG = np.random.default_rng(0)
NHWC = RNG.integers(0, 256, (4, 8, 6, 3), dtype=np.uint8)
NCHW = NHWC.transpose(0, 3, 1, 2)
LABELS = np.array([2, 0, 1, 1])
SHARES = np.array([[0.25, 0.75, 0], [1, 0, 0], [0, 0, 1], [0.5, 0, 0.5]])
Pair = namedtuple("Pair", ("pixels", "kind"))


def arrays(batch: Any, channels_first: bool = False) -> tuple[np.ndarray, np.ndarray]:
    return BatchFormat(channels_first).arrays(batch, "mine: batch 1")


@pytest.mark.parametrize(
    "batch",
    [
        (NHWC, LABELS),
        [NHWC, LABELS.astype(np.uint8)],
        (NHWC, LABELS[:, np.newaxis]),
        (NHWC, LABELS, None),
        Pair(NHWC, LABELS),
        (list(NHWC), LABELS.tolist()),
        (torch.tensor(NHWC), torch.tensor(LABELS)),
        (np.broadcast_to(NHWC, NHWC.shape), np.broadcast_to(LABELS, 4)),  # read-only
        {"image": NHWC, "label": LABELS, "id": np.arange(4)},
        UserDict(img=NHWC, target=LABELS),
    ],
)
@pytest.mark.parametrize("channels_first", [False, True])
def test_images_and_class_indices(batch: Any, channels_first: bool) -> None:
    images, labels = arrays(batch, channels_first)
    np.testing.assert_array_equal(images, NHWC)
    np.testing.assert_array_equal(labels, LABELS)
    assert (images.dtype, labels.dtype) == (np.uint8, np.int64)
    assert images.flags.c_contiguous
    assert images.flags.writeable


def test_pytorch_may_have_channels_first() -> None:
    images, _ = arrays((torch.tensor(NCHW), LABELS), channels_first=True)
    np.testing.assert_array_equal(images, NHWC)
    with pytest.raises(DataError, match="mine: batch 1") as raised:
        arrays((NCHW, LABELS))
    assert "(4, 3, 8, 6)" in str(raised.value)
    gray, _ = arrays((NHWC[..., 0], LABELS), channels_first=True)
    np.testing.assert_array_equal(gray, NHWC[..., :1])


def test_an_ambiguous_shape_is_noted() -> None:
    form = BatchFormat(channels_first=True)
    images, _ = form.arrays((NCHW[:, :, :, :1], LABELS), "mine")
    np.testing.assert_array_equal(images, NHWC[:, :, :1])
    (note,) = form.notes
    assert "(3, 8, 1)" in note


@pytest.mark.parametrize("kind", ["float16", "float32", "float64"])
def test_shares_of_classes(kind: str) -> None:
    form = BatchFormat(channels_first=False)
    _, labels = form.arrays((NHWC, SHARES.astype(kind)), "mine")
    np.testing.assert_array_equal(labels, SHARES)
    assert (labels.dtype, form.width) == (np.float32, 3)
    _, whole = form.arrays((NHWC, np.eye(3, dtype=np.int64)[LABELS]), "mine")
    np.testing.assert_array_equal(whole.argmax(1), LABELS)


def test_keys_that_are_not_used_are_noted_once() -> None:
    form = BatchFormat(channels_first=False)
    for _ in range(2):
        form.arrays({"image": NHWC, "label": LABELS, "file_name": None}, "mine")
    (note,) = form.notes
    assert "file_name" in note


@pytest.mark.parametrize(
    ("batch", "named"),
    [
        (NHWC, "ndarray of shape (4, 8, 6, 3)"),
        ((NHWC,), "tuple"),
        ((NHWC, LABELS, np.ones(4)), "sample weights"),
        (({"image": NHWC}, LABELS), "dict"),
        ((NHWC, {"label": LABELS}), "dict"),
        ({"image": NHWC}, "label, labels"),
        ({"image": NHWC, "x": NHWC, "label": LABELS}, "image, x"),
        ({"image": NHWC, "label": LABELS, "sample_weight": LABELS}, "sample_weight"),
        ((NHWC / 255, LABELS), "float64"),
        ((NHWC.astype(np.float32), LABELS), "teacher.scale"),
        ((NHWC.astype(np.int64), LABELS), "int64"),
        ((NHWC[0, 0], LABELS[0]), "single"),
        ((NHWC[0], 1), "single"),
        ((NHWC[..., :2], LABELS), "(4, 8, 6, 2)"),
        ((NHWC[0, 0], LABELS), "(6, 3)"),
        ((NHWC, LABELS[:3]), "3 labels"),
        ((NHWC[:0], LABELS[:0]), "0 images"),
        ((NHWC, LABELS - 1), "-1"),
        ((NHWC, LABELS + 2**20), "1048578"),
        ((NHWC, LABELS.astype(np.float32)), "float32"),
        ((NHWC, LABELS[:, np.newaxis] / 2), "float64"),
        ((NHWC, np.array(["a", "b", "c", "d"])), "<U1"),
        ((NHWC, SHARES * 2), "2"),
        ((NHWC, SHARES - 0.5), "-0.5"),
        ((NHWC, SHARES * np.nan), "nan"),
        (([NHWC[0], NHWC[0, 1:]], LABELS[:2]), "list"),
    ],
)
def test_other_batches_are_refused_in_one_line(batch: Any, named: str) -> None:
    with pytest.raises(DataError) as raised:
        arrays(batch)
    text = str(raised.value)
    assert text.startswith("mine: batch 1: ")
    assert named in text
    assert "\n" not in text


@pytest.mark.parametrize(
    ("second", "named"),
    [
        ((NHWC[:, :7], LABELS), "(7, 6, 3)"),
        ((NHWC[..., 0], LABELS), "(8, 6, 1)"),
        ((NHWC, SHARES), "(n, 3)"),
    ],
)
def test_batches_have_the_format_of_the_first_one(second: Any, named: str) -> None:
    form = BatchFormat(channels_first=False)
    form.arrays((NHWC, LABELS), "batch 1")
    with pytest.raises(DataError, match="batch 2") as raised:
        form.arrays(second, "batch 2")
    assert named in str(raised.value)
