"""What a model file logits, against softmax and figures worked out beside it."""

from __future__ import annotations

import json
import subprocess
import sys
import zipfile
from pathlib import Path

import keras
import numpy as np
import pytest
from keras import layers, ops
from PIL import Image
from scipy.special import softmax
from sklearn.metrics import accuracy_score, log_loss

from tutelage import recipe
from tutelage.data import datasets
from tutelage.errors import DataError, DataNotFoundError, ModelError, RecipeError, TutelageError
from tutelage.evaluation import metrics
from tutelage.evaluation.evaluate import evaluate
from tutelage.models import loading, zoo

DIGITS = datasets.load("digits")


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two models of digits, untrained, and pictures, one of them damaged."""
    folder = tmp_path_factory.mktemp("home")
    for seed, name in enumerate(["one", "other"]):
        images = DIGITS.train.images
        zoo.build("digits-student", images=images, classes=10, seed=seed).save(
            folder / f"{name}.keras"
        )
    for i in range(3):
        Image.fromarray(DIGITS.test.images[i, ..., 0]).save(folder / f"{i}.png")
    (folder / "damaged.png").write_bytes((folder / "0.png").read_bytes()[:40])
    return folder


def net(shape: tuple[int | None, ...], *head: keras.Layer) -> keras.Model:
    return keras.Sequential([keras.Input(shape, dtype="uint8"), *head])


def flat(classes: int = 3, activation: str | None = None) -> tuple[keras.Layer, ...]:
    return layers.Flatten(), layers.Dense(classes, activation)


def saved(model: keras.Model, path: Path) -> Path:
    model.save(path)
    return path


def bright_or_dark(shape: tuple[int, int, int]) -> keras.Model:
    """A model that tells bright pictures (class 2) from dark ones (class 1)."""
    model = net(shape, layers.Rescaling(1 / 255), layers.Flatten(), layers.Dense(3))
    size = np.prod(shape)
    kernel = np.stack([np.zeros(size), np.zeros(size), np.full(size, 8 / size)], axis=1)
    model.layers[-1].set_weights([kernel, np.array([0.0, 4.0, 0.0])])
    return model


def one_line(error: TutelageError) -> str:
    assert "\n" not in str(error)
    return str(error)


def test_a_model_file_is_read_as_it_was_saved(home: Path) -> None:
    model = zoo.build("digits-student", images=DIGITS.train.images, classes=10, seed=0)
    loaded = loading.load_model(str(home / "one.keras"))
    for ours, theirs in zip(model.get_weights(), loaded.get_weights(), strict=True):
        np.testing.assert_array_equal(ours, theirs)


def test_what_is_no_model_file_is_refused(home: Path, tmp_path: Path) -> None:
    whole = (home / "one.keras").read_bytes()
    with zipfile.ZipFile(tmp_path / "other-zip.keras", "w") as file:
        file.writestr("config.json", "{}")
    (tmp_path / "cut.keras").write_bytes(whole[: len(whole) // 2])
    (tmp_path / "empty.keras").write_bytes(b"")
    (tmp_path / "notes.txt").write_text("no model")
    for name in ("other-zip.keras", "cut.keras", "empty.keras", "notes.txt"):
        with pytest.raises(ModelError, match=rf"{name}") as caught:
            loading.load_model(tmp_path / name)
        assert len(one_line(caught.value)) < 400
    for missing in (tmp_path / "missing.keras", tmp_path):
        with pytest.raises(ModelError, match=r"\.keras file"):
            loading.load_model(missing)


def test_a_model_that_fits_passes() -> None:
    model = bright_or_dark((8, 9, 3))
    loading.check_fit(model, "mine", (8, 9, 3), 3)
    nested = keras.Sequential([keras.Input((8, 9, 3), dtype="uint8"), model])
    loading.check_fit(nested, "mine", (8, 9, 3), 3)


def test_a_model_that_does_not_fit_is_refused_and_named() -> None:
    two = keras.Input((8, 8, 1)), keras.Input((8, 8, 1))
    joined = layers.Dense(3)(layers.Flatten()(layers.Add()(two)))
    one = layers.Flatten()(two[0])
    pooled = [layers.GlobalAveragePooling2D(), layers.Dense(3)]
    cases = [
        (net((9, 8, 1), *flat()), r"\(9, 8, 1\)"),
        (net((8, 8, 3), *flat()), r"\(8, 8, 3\)"),
        (net((8, 8, 1), *flat(4)), "4 classes"),
        (net((64,), layers.Dense(3)), r"\(None, 64\)"),
        (net((None, None, 1), *pooled), "fixed size"),
        (keras.Model(two, joined), "one input"),
        (keras.Model(two[0], [layers.Dense(3)(one)] * 2), "has output"),
        (net((8, 8, 1), layers.Dense(3)), r"\(None, 8, 8, 3\)"),
        (keras.Sequential([layers.Dense(3)]), "shape None"),
        (net((8, 8, 1), *flat(3, "softmax")), "returns softmax probabilities"),
        (net((8, 8, 1), *flat(), layers.Softmax()), "returns softmax probabilities"),
        (net((8, 8, 1), *flat(), layers.Activation("softmax")), "returns softmax probabilities"),
        (net((8, 8, 1), keras.Sequential(flat(3, "softmax"))), "returns softmax probabilities"),
    ]
    for model, offender in cases:
        with pytest.raises(ModelError, match=offender) as caught:
            loading.check_fit(model, "mine.keras", (8, 8, 1), 3)
        assert one_line(caught.value).startswith("mine.keras")


def test_logits_are_the_model_s_own_in_inference_mode() -> None:
    teacher = zoo.build("digits-teacher", images=DIGITS.train.images, classes=10, seed=0)
    images = DIGITS.test.images  # more than one batch of them, the last one smaller
    assert len(images) > loading.BATCH
    assert len(images) % loading.BATCH
    before = [ops.convert_to_numpy(v.value).copy() for v in teacher.variables]
    logits = loading.logits(teacher, images)
    assert logits.dtype == np.float32
    # Dropout and batch statistics would differ.
    expected = ops.convert_to_numpy(teacher(images, training=False).detach())
    np.testing.assert_allclose(logits, expected, atol=1e-4)
    for variable, value in zip(teacher.variables, before, strict=True):
        np.testing.assert_array_equal(ops.convert_to_numpy(variable.value), value)


def test_evaluation_is_of_the_test_part(home: Path) -> None:
    results = evaluate(home / "one.keras", "digits", home / "other.keras")
    logits = loading.logits(loading.load_model(home / "one.keras"), DIGITS.test.images)
    guide = loading.logits(loading.load_model(home / "other.keras"), DIGITS.test.images)
    labels = DIGITS.test.labels
    figures = results["models"]["one"]
    assert figures["accuracy"] == accuracy_score(labels, logits.argmax(1))
    probabilities = softmax(logits.astype(np.float64), axis=1)
    assert figures["nll"] == pytest.approx(log_loss(labels, probabilities, labels=range(10)))
    assert figures["agreement"] == np.mean(logits.argmax(1) == guide.argmax(1)) < 1
    assert figures["kl"] > 0
    assert figures["bytes"] == (home / "one.keras").stat().st_size
    assert figures["parameters"] == loading.load_model(home / "one.keras").count_params()
    assert figures["macs"] > 0
    assert results["data"] == {
        "name": "digits",
        "fingerprint": DIGITS.fingerprint,
        "classes": list("0123456789"),
        "test": 360,
    }
    assert results == json.loads(json.dumps(results))
    alone = evaluate(home / "one.keras", "digits")["models"]["one"]
    assert alone == {k: v for k, v in figures.items() if k not in ("agreement", "kl")}


def test_evaluation_resizes_as_the_run_beside_the_model_did(tmp_path: Path) -> None:
    model = zoo.build(
        "digits-student", images=np.zeros((4, 16, 16, 1), np.uint8), classes=10, seed=0
    )
    path = saved(model, tmp_path / "student.keras")
    with pytest.raises(ModelError, match=r"\(16, 16, 1\)"):
        evaluate(path, "digits")
    (tmp_path / "recipe.toml").write_text(sized((16, 16)))
    results = evaluate(path, "digits")
    larger = datasets.load("digits", size=(16, 16))
    assert results["data"]["name"] == larger.name
    logits = loading.logits(model, larger.test.images)
    expected = metrics.score(logits, larger.test.labels)["nll"]
    assert results["models"]["student"]["nll"] == pytest.approx(expected, rel=1e-6)


def sized(size: tuple[int, int]) -> str:
    return recipe.to_toml(recipe.load("digits", {"data.size": list(size)}))


def test_evaluation_reads_data_from_a_path(tmp_path: Path) -> None:
    for part in ("train", "test"):
        for label, shade in [("a", 100), ("dark", 10), ("z bright", 240)]:
            (tmp_path / "data" / part / label).mkdir(parents=True)
            for i in range(3):
                picture = Image.new("RGB", (5, 4), (shade + i,) * 3)
                picture.save(tmp_path / "data" / part / label / f"{i}.png")
    path = saved(bright_or_dark((4, 5, 3)), tmp_path / "model.keras")
    results = evaluate(path, str(tmp_path / "data"))
    assert results["data"]["classes"] == ["a", "dark", "z bright"]
    assert results["models"]["model"]["accuracy"] == pytest.approx(2 / 3)  # no grey is known to it


def test_evaluation_refuses_a_missing_teacher_or_data_and_names_it(home: Path) -> None:
    with pytest.raises(ModelError, match=r"none\.keras"):
        evaluate(home / "one.keras", "digits", home / "none.keras")
    with pytest.raises(DataNotFoundError, match="nowhere"):
        evaluate(home / "one.keras", str(home / "nowhere"))


@pytest.mark.parametrize(("mode", "channels"), [("RGB", 1), ("L", 3), ("RGB", 3)])
def test_pictures_of_any_size_and_colour_are_told_apart(
    tmp_path: Path, mode: str, channels: int
) -> None:
    path = saved(bright_or_dark((8, 6, channels)), tmp_path / "model.keras")
    pictures = [tmp_path / "dark.png", tmp_path / "bright.jpg"]
    for picture, shade in zip(pictures, (10, 240), strict=True):
        Image.new("RGB", (30, 20), (shade,) * 3).convert(mode).save(picture)
    dark, bright = loading.predict(path, pictures)
    assert [dark["image"], bright["image"]] == [str(picture) for picture in pictures]
    assert [c["name"] for c in dark["classes"]] == ["class 1", "class 2", "class 0"]
    assert bright["classes"][0]["name"] == "class 2"
    # The likeliest of logits 0, 4 and 8 times the brightness.
    probabilities = softmax([0, 4, 8 * 240 / 255])
    assert bright["classes"][0]["probability"] == pytest.approx(probabilities[2], abs=0.01)


def test_prediction_gives_the_top_classes_by_the_names_of_the_run(
    home: Path, tmp_path: Path
) -> None:
    path = tmp_path / "one.keras"
    path.write_bytes((home / "one.keras").read_bytes())
    names = [f"digit {i}" for i in range(10)]
    (tmp_path / "results.json").write_text(json.dumps({"data": {"classes": names}}))
    logits = loading.logits(loading.load_model(path), DIGITS.test.images[:3])
    probabilities = softmax(logits.astype(np.float64), axis=1)
    pictures = [home / f"{i}.png" for i in range(3)]
    for results, chance in zip(loading.predict(path, pictures, top=4), probabilities, strict=True):
        best = sorted(range(10), key=lambda i: -chance[i])[:4]
        assert [c["name"] for c in results["classes"]] == [f"digit {i}" for i in best]
        chances = [c["probability"] for c in results["classes"]]
        np.testing.assert_allclose(chances, chance[best], rtol=1e-4)
    (whole,) = loading.predict(path, pictures[:1], top=99)
    assert sum(c["probability"] for c in whole["classes"]) == pytest.approx(1)
    assert whole == json.loads(json.dumps(whole))


@pytest.mark.parametrize(
    "results", ["[]", "no JSON", '{"data": null}', '{"data": {"classes": ["a", "b"]}}']
)
def test_classes_are_numbered_where_no_results_name_them(
    home: Path, tmp_path: Path, results: str
) -> None:
    (tmp_path / "results.json").write_text(results)
    model, picture = saved(bright_or_dark((8, 8, 1)), tmp_path / "one.keras"), home / "0.png"
    (answer,) = loading.predict(model, [picture], top=3)
    assert {one["name"] for one in answer["classes"]} == {"class 0", "class 1", "class 2"}


def test_prediction_refuses_what_it_can_not_do(home: Path, tmp_path: Path) -> None:
    path, picture = home / "one.keras", home / "0.png"
    two = net((8, 8, 2), *flat())
    cases: list[tuple[type[TutelageError], str, tuple]] = [
        (RecipeError, "0 and 3", (path, [])),
        (RecipeError, "1 and 0", (path, [picture], 0)),
        (DataNotFoundError, r"none\.png", (path, [picture, home / "none.png"])),
        (DataError, r"damaged\.png", (path, [picture, home / "damaged.png"])),
        (ModelError, r"none\.keras", (home / "none.keras", [picture])),
        (ModelError, "2 channels", (saved(two, tmp_path / "two.keras"), [picture])),
    ]
    for kind, offender, arguments in cases:
        with pytest.raises(kind, match=offender) as caught:
            loading.predict(*arguments)
        one_line(caught.value)


def heavy(pixels: int | None = 128) -> keras.Model:
    """A model with a nested one, a layer used twice and a wrapper of layers."""
    inner = keras.Sequential([keras.Input((pixels, pixels, 4)), layers.Conv2D(8, 1), layers.ReLU()])
    inputs = keras.Input((pixels, pixels, 3), dtype="uint8")
    twice = layers.Conv2D(4, 1)
    x = twice(layers.Concatenate()([twice(inputs)[..., :1], inputs[..., :2]]))
    return keras.Model(inputs, layers.Dense(3)(layers.GlobalAveragePooling2D()(inner(x))))


def test_a_prediction_keeps_its_activations_within_256_mb() -> None:
    maps = 128 * 128 * 4  # bytes
    # Twice, a slice, another, their concatenation, twice again, the inner model; input and head.
    channels = 4 + 1 + 2 + 3 + 4 + (4 + 8 + 8) + 3
    expected = 256 * 2**20 // (channels * maps + 4 * (8 + 3))
    assert loading.batch_size((128, 128, 3), heavy()) == expected
    assert loading.batch_size((128, 128, 3)) == 256 * 2**20 // (256 * maps)  # of no known graph
    assert loading.batch_size((128, 128, 3), heavy(None)) == 256 * 2**20 // (256 * maps)
    assert loading.batch_size((4000, 6000, 3)) == 1
    images = DIGITS.train.images
    for name in ("digits-teacher", "digits-student", "mlp-30"):
        model = zoo.build(name, images=images, classes=10, seed=0)
        assert loading.batch_size((8, 8, 1), model) == loading.BATCH


PEAK = """
import numpy as np
from tutelage.models import loading, zoo
images = np.random.default_rng(0).integers(0, 256, (250, 128, 128, 3), dtype=np.uint8)
def peak():
    return int(open("/proc/self/status").read().split("VmHWM:")[1].split()[0]) / 2**20
model = zoo.build("student-300k", images=images[:20], classes=4, seed=0)
loading.logits(model, images[:1])
before = peak()
loading.logits(model, images)
print(peak() - before)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_large_images_take_little_memory() -> None:
    done = subprocess.run([sys.executable, "-c", PEAK], capture_output=True, text=True, check=True)
    assert float(done.stdout) < 0.5  # GiB; 250 images at once take 2.5
