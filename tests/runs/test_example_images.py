"""The chosen test images, against a plain loop."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from scipy.special import softmax

from tutelage.runs import example_images

CLASSES = 10


@pytest.fixture(scope="module")
def logits() -> dict[str, np.ndarray]:
    random = np.random.default_rng(0)
    signal = 3 * np.eye(CLASSES)[labels()]
    return {
        name: (signal + noise * random.normal(size=signal.shape)).astype(np.float32)
        for name, noise in (("teacher", 1.0), ("student", 2.0))
    }


def labels() -> np.ndarray:
    return np.arange(400) % CLASSES


def test_missed_are_the_surest_of_those_that_the_teacher_alone_is_right_on(
    logits: dict[str, np.ndarray],
) -> None:
    found = []
    for i, label in enumerate(labels()):
        if logits["teacher"][i].argmax() == label != logits["student"][i].argmax():
            found.append((-softmax(logits["teacher"][i].astype(float)).max(), i))
    assert len(found) > example_images.MISSED
    chosen = example_images.choose(logits, labels(), 4.0)
    assert chosen.missed.tolist() == [i for _, i in sorted(found)][: example_images.MISSED]


@pytest.mark.parametrize("temperature", [1.0, 4.0])
def test_telling_are_those_of_the_weightiest_second_guess_one_a_class(
    logits: dict[str, np.ndarray], temperature: float
) -> None:
    best: dict[int, tuple[float, int]] = {}
    for i, label in enumerate(labels()):
        p = softmax(logits["teacher"][i].astype(float) / temperature)
        second = -sorted(p)[-2]
        if p.argmax() == label and second < best.get(int(label), (1.0, 0))[0]:
            best[int(label)] = (second, i)
    expected = [i for _, i in sorted(best.values())][: example_images.TELLING]
    chosen = example_images.choose(logits, labels(), temperature)
    assert chosen.telling.tolist() == expected
    assert len(set(labels()[chosen.telling])) == len(expected) == example_images.TELLING


def test_without_a_teacher_s_logits_nothing_is_chosen(logits: dict[str, np.ndarray]) -> None:
    chosen = example_images.choose({"student": logits["student"]}, labels(), 4.0)
    assert len(chosen.missed) == len(chosen.telling) == 0


def test_what_is_saved_are_the_images_chosen(logits: dict[str, np.ndarray], tmp_path: Path) -> None:
    images = np.random.default_rng(1).integers(0, 256, (400, 4, 4, 3), np.uint8)
    chosen = example_images.choose(logits, labels(), 2.5)
    example_images.save(tmp_path / "pictures.npz", chosen, images)
    with np.load(tmp_path / "pictures.npz") as stored:
        assert float(stored["temperature"]) == 2.5
        for name in ("missed", "telling"):
            np.testing.assert_array_equal(stored[f"{name}_images"], images[stored[name]])
            np.testing.assert_array_equal(stored[name], getattr(chosen, name))
