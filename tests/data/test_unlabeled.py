"""Pictures without labels: what is read, in which order, and what is refused."""

import numpy as np
import pytest
from PIL import Image

from tutelage.data import unlabeled
from tutelage.errors import DataError, DataNotFoundError


def test_all_pictures_are_read_in_the_order_of_their_names(tmp_path):
    shades = {"b/2.png": 20, "a/deep/9.jpg": 30, "c.bmp": 40, "b/10.png": 10}
    for name, shade in shades.items():
        file = tmp_path / name
        file.parent.mkdir(parents=True, exist_ok=True)
        Image.new("L", (9, 7), shade).save(file)
    (tmp_path / "b" / "notes.txt").write_text("no picture")
    found = unlabeled.read(tmp_path, shape=(6, 5, 3))
    assert found.shape == (4, 6, 5, 3)
    assert found.dtype == np.uint8
    expected = [shades[name] for name in sorted(shades)]
    assert np.abs(found.mean(axis=(1, 2, 3)) - expected).max() < 1


def test_what_holds_no_pictures_is_refused(tmp_path):
    with pytest.raises(DataNotFoundError, match="a folder"):
        unlabeled.read(tmp_path / "absent", shape=(8, 8, 1))
    with pytest.raises(DataError, match="pictures"):
        unlabeled.read(tmp_path, shape=(8, 8, 1))
    (tmp_path / "broken.png").write_bytes(b"no picture")
    with pytest.raises(DataError, match=r"broken.png"):
        unlabeled.read(tmp_path, shape=(8, 8, 1))
