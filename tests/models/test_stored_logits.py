"""Files of logits and their manifests."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from scipy.special import log_softmax

from tests.models.example_models import (
    CLASSES,
    GREY,
    SEEN,
    linear,
    refused,
    store,
    teacher_of,
)
from tutelage.errors import (
    LogitsError,
    RecipeError,
)
from tutelage.models import stored_logits


def test_stored_logits_are_read_as_they_are(tmp_path: Path) -> None:
    logits = linear(GREY / np.float32(255))
    teacher = teacher_of(store(tmp_path / "logits.npy", logits.astype(np.float64)))
    assert teacher.stored is not None
    assert teacher.stored.dtype == np.float32
    np.testing.assert_array_equal(teacher.stored, logits)
    assert (teacher.model, teacher.logits, teacher.notes) == (None, None, ())
    chances = np.exp(log_softmax(logits, axis=1))
    teacher = teacher_of(store(tmp_path / "chances.npy", chances))
    assert teacher.stored is not None
    np.testing.assert_allclose(teacher.stored, np.log(chances), atol=1e-6)
    assert teacher.notes == ("it returns probabilities: using their logarithms as logits",)


def test_an_image_hash_depends_on_order_values_and_shape() -> None:
    same = np.asfortranarray(GREY)
    assert stored_logits.image_hash(same) == stored_logits.image_hash(GREY)
    changed = GREY.copy()
    changed[3, 2, 1] ^= 1
    for other in (GREY[::-1], changed, GREY[:-1], GREY.reshape(300, 4, 16, 1)):
        assert stored_logits.image_hash(other) != stored_logits.image_hash(GREY)


def test_stored_logits_that_do_not_fit_are_refused(tmp_path: Path) -> None:
    path, good = tmp_path / "logits.npy", linear(GREY / np.float32(255))
    expected = json.dumps({"images": stored_logits.image_hash(GREY), "classes": list(CLASSES)})
    for changes in ({"images": "of others"}, {"classes": ["dog", "cat", "yak"]}, {"more": 1}):
        with pytest.raises(LogitsError, match=r"logits\.json") as caught:
            teacher_of(store(path, good, **changes))
        assert expected in str(caught.value)
    path.with_suffix(".json").unlink()
    with pytest.raises(LogitsError, match="FileNotFoundError") as caught:
        teacher_of(path)
    path.with_suffix(".json").write_text(
        str(caught.value).split("expected ")[1].split(", found")[0]
    )
    teacher_of(path)  # what the message shows is what is wanted
    for offender, logits in [
        (r"\(299, 3\)", good[1:]),
        ("int64", np.zeros((300, 3), np.int64)),
        (r"\(300, 4\)", np.zeros((300, 4), np.float32)),
        ("not finite", np.full((300, 3), np.nan)),
        ("allow_pickle", np.full((300, 3), None)),
    ]:
        refused(LogitsError, offender, store(path, logits))
    store(path, good)
    path.write_bytes(path.read_bytes()[:200])
    refused(LogitsError, r"logits\.npy", path)
    refused(RecipeError, "leave out", store(path, good), preprocessing=SEEN)
