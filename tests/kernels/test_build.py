"""Parts in C: compiled once, and never needed."""

from __future__ import annotations

import logging
import os
import stat
from collections.abc import Iterator
from pathlib import Path

import keras
import numpy as np
import pytest
from keras import layers

from tutelage.kernels import accelerate, build
from tutelage.models import zoo

RNG = np.random.default_rng(13)
needs_compiler = pytest.mark.skipif(
    None in map(build.library, build.PARTS), reason="no C compiler here"
)


@pytest.fixture(autouse=True)
def forget() -> Iterator[None]:
    build.library.cache_clear()
    build._warn.cache_clear()
    yield
    build.library.cache_clear()


def trained(model: keras.Model, x: np.ndarray) -> list[np.ndarray]:
    copy = keras.models.clone_model(model)
    copy.set_weights(model.get_weights())
    fast = accelerate.accelerate(copy)
    fast.compile(keras.optimizers.SGD(0.01), "mse")
    y = np.zeros((len(x), *model.output_shape[1:]), "float32")
    fast.fit(x, y, batch_size=8, epochs=2, shuffle=False, verbose=0)
    return [np.array(w) for w in copy.get_weights()]


def digits_teacher() -> tuple[keras.Model, np.ndarray]:
    images = RNG.integers(0, 256, (16, 8, 8, 1), np.uint8)
    model = zoo.build("digits-teacher", images=images, classes=10, seed=0)
    for layer in model.layers:  # dropout draws anew each time
        if isinstance(layer, layers.Dropout):
            layer.rate = 0
    return model, images


def convolutions() -> tuple[keras.Model, np.ndarray]:
    def conv() -> layers.Layer:
        return layers.Conv2D(32, 3, padding="same", activation="relu")

    model = keras.Sequential(
        [keras.Input((16, 16, 32)), conv(), conv(), layers.GlobalAveragePooling2D()]
    )
    return model, RNG.normal(size=(16, 16, 16, 32)).astype("float32")


@needs_compiler
@pytest.mark.parametrize(
    ("make", "part"), [(digits_teacher, "fused_batch_norm"), (convolutions, "winograd")]
)
@pytest.mark.parametrize(
    ("compiler", "reason"),
    [("no-such-compiler", "no C compiler"), ("false", "{part}.c can't be compiled")],
)
def test_without_a_compiler_pytorch_does_the_same(
    monkeypatch, caplog, compiler, reason, make, part
):
    model, x = make()
    expected = trained(model, x)
    monkeypatch.setenv("CC", compiler)
    build.library.cache_clear()
    with caplog.at_level(logging.WARNING, logger="tutelage.kernels.build"):
        got = trained(model, x)
        build.library.cache_clear()
        build.library(part)
    assert caplog.text.count(reason.format(part=part)) == 1  # once, however often it is asked for
    assert accelerate.compiled_parts() == []
    for ours, theirs in zip(got, expected, strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=2e-3, atol=2e-3)


@needs_compiler
@pytest.mark.parametrize("name", build.PARTS)
def test_it_is_compiled_once(monkeypatch, tmp_path, name):
    monkeypatch.setenv("TUTELAGE_CACHE", str(tmp_path))
    made = []
    for _ in range(2):
        build.library.cache_clear()
        assert build.library(name) is not None
        made.append([(path, path.stat().st_mtime_ns) for path in tmp_path.rglob("*.so")])
    assert len(made[0]) == 1
    assert made[0] == made[1]


@needs_compiler
def test_libraries_lie_in_a_folder_that_only_the_user_can_enter(monkeypatch, tmp_path):
    monkeypatch.setenv("TUTELAGE_CACHE", str(tmp_path))
    assert build.library("winograd") is not None
    folder = tmp_path / "kernels"
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    assert folder.stat().st_uid == os.getuid()


def replaced_by_a_link(path: Path) -> None:
    path.symlink_to(path.rename(path.with_name("elsewhere")))


def owned_by_another(path: Path) -> None:
    os.chown(path, 12345, 12345)


@needs_compiler
@pytest.mark.parametrize(
    "spoil",
    [
        lambda folder: folder.chmod(0o770),
        lambda folder: folder.chmod(0o707),
        lambda folder: next(folder.glob("*.so")).chmod(0o666),
        replaced_by_a_link,
        owned_by_another,
    ],
    ids=["group", "others", "library", "link", "owner"],
)
def test_what_others_could_have_written_is_not_loaded(monkeypatch, tmp_path, caplog, spoil):
    if spoil is owned_by_another and os.getuid() != 0:
        pytest.skip("only root can give a folder away")
    monkeypatch.setenv("TUTELAGE_CACHE", str(tmp_path))
    assert build.library("winograd") is not None
    folder = tmp_path / "kernels"
    spoil(folder)
    build.library.cache_clear()
    assert build.library("winograd") is None
    assert str(folder) in caplog.text
