"""Exported files answer as the models they came from, or are not kept."""

from __future__ import annotations

import importlib.util
import json
import re
import subprocess
import sys
from pathlib import Path

import keras
import numpy as np
import onnxruntime
import pytest
from keras import layers
from PIL import Image

from tutelage.data import datasets
from tutelage.errors import ModelError, RecipeError
from tutelage.evaluation import metrics
from tutelage.evaluation.evaluate import evaluate
from tutelage.exporters import exporter, fold_batch_norm
from tutelage.models import loading
from tutelage.models.onnx_model import ExportedModel

DIGITS = datasets.load("digits")
SHORT = [
    word
    for part in ("teacher", "student")
    for word in ("--set", f"schedule.{part}.epochs={3 if part == 'student' else 1}")
]


def command(*arguments: object) -> subprocess.CompletedProcess[str]:
    line = [sys.executable, "-m", "tutelage", *map(str, arguments)]
    return subprocess.run(line, capture_output=True, text=True)


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of digits with its files, made by the command line."""
    folder = tmp_path_factory.mktemp("home") / "run"
    assert command("run", "digits", *SHORT, "--out", folder).returncode == 0
    for arguments in (["--json"], ["--int8", "--json"]):
        done = command("export", folder, *arguments)
        assert done.returncode == 0, done.stderr
        told = json.loads(done.stdout)
        (folder / f"{told['precision']}.json").write_text(done.stdout)
    return folder


def told(run: Path, precision: str) -> dict:
    return json.loads((run / f"{precision}.json").read_text())


def keras_logits(file: Path, images: np.ndarray) -> np.ndarray:
    """What plain Keras answers."""
    return keras.saving.load_model(file).predict(images, verbose=0)


def test_a_float_file_gives_the_keras_models_logits(run: Path) -> None:
    wanted = keras_logits(run / "student.keras", DIGITS.test.images)
    found = ExportedModel(run / "student.onnx").logits(DIGITS.test.images)
    np.testing.assert_allclose(found, wanted, rtol=0, atol=1e-4)
    assert found.dtype == np.float32


def test_real_images_give_the_keras_models_logits(
    tmp_path: Path, shared_data: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from tutelage.models import zoo

    monkeypatch.setenv("TUTELAGE_DATA", str(shared_data))
    data = datasets.load("cifar10")
    model = zoo.build("student-300k", images=data.train.images, classes=10, seed=0)
    model.save(tmp_path / "student.keras")
    found = exporter.export(tmp_path / "student.keras", data="cifar10")
    assert found["parity"]["images"] == 1000
    assert found["parity"]["max_difference"] < 1e-4
    assert found["parity"]["agreement"] == 1
    images = data.test.images[:1000]
    wanted = keras_logits(tmp_path / "student.keras", images)
    np.testing.assert_allclose(
        ExportedModel(found["file"]).logits(images), wanted, rtol=0, atol=1e-4
    )


def test_a_file_needs_nothing_but_onnx_runtime_and_takes_any_number_of_images(run: Path) -> None:
    session = onnxruntime.InferenceSession(run / "student.onnx")
    (given,) = session.get_inputs()
    assert (given.type, given.shape[1:]) == ("tensor(uint8)", [8, 8, 1])
    whole = session.run(None, {given.name: DIGITS.test.images})[0]
    for count in (1, 7):
        some = session.run(None, {given.name: DIGITS.test.images[:count]})[0]
        np.testing.assert_allclose(some, whole[:count], atol=1e-5)


def test_the_snippet_of_the_documentation_runs(
    run: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    page = (Path(__file__).parents[2] / "docs" / "export.md").read_text(encoding="utf-8")
    (snippet,) = re.findall(r"^```python\n(.*?)^```", page, flags=re.DOTALL | re.MULTILINE)
    monkeypatch.chdir(run)
    exec(snippet, {"images": DIGITS.test.images[:3]})
    wanted = keras_logits(run / "student.keras", DIGITS.test.images[:3]).argmax(axis=1)
    assert capsys.readouterr().out.strip() == str([DIGITS.classes[i] for i in wanted])


@pytest.mark.parametrize("precision", ["float32", "int8"])
def test_a_file_says_what_it_is(run: Path, precision: str) -> None:
    results = told(run, precision)
    file = ExportedModel(results["file"])
    assert file.classes == DIGITS.classes
    assert (file.name, file.precision, file.shape) == ("student", precision, (8, 8, 1))
    assert file.about["parameters"] == results["parameters"] == 1254
    assert file.about["figures"] == results["models"]["exported"]
    assert file.about["data"]["fingerprint"] == DIGITS.fingerprint
    assert file.bytes == results["bytes"] == Path(results["file"]).stat().st_size


@pytest.mark.parametrize("precision", ["float32", "int8"])
def test_figures_are_those_of_the_file_on_the_test_part(run: Path, precision: str) -> None:
    results = told(run, precision)
    found = ExportedModel(results["file"]).logits(DIGITS.test.images)
    wanted = loading.logits(loading.load_model(run / "student.keras"), DIGITS.test.images)
    score = metrics.score(found, DIGITS.test.labels, wanted)
    assert results["models"]["exported"] == pytest.approx(score, abs=1e-6)
    assert results["models"]["keras"] == metrics.score(wanted, DIGITS.test.labels)
    agreement = np.mean(found.argmax(axis=1) == wanted.argmax(axis=1))
    assert results["parity"]["agreement"] == pytest.approx(agreement)
    difference = np.abs(found - wanted).max()
    assert results["parity"]["max_difference"] == pytest.approx(difference, abs=1e-5)


def test_8_bits_are_calibrated_on_what_was_held_out_and_the_best_method_taken(run: Path) -> None:
    results = told(run, "int8")
    calibration = results["calibration"]
    manifest = json.loads((run / "results.json").read_text())
    assert calibration["images"] == min(256, manifest["data"]["validation"])
    assert calibration["kl"][calibration["method"]] == min(calibration["kl"].values())
    assert len(calibration["kl"]) == 3
    loss = results["models"]["keras"]["accuracy"] - results["models"]["exported"]["accuracy"]
    assert loss <= max(0.003, 2 / len(DIGITS.test))
    assert results["parity"]["agreement"] > 0.97


def test_int8_is_half_as_large_or_less(tmp_path: Path) -> None:
    model = keras.Sequential([keras.Input((8, 8, 1), dtype="uint8"), layers.Rescaling(1 / 16)])
    for filters in (32, 64):
        model.add(layers.Conv2D(filters, 3, activation="relu"))
    model.add(layers.Flatten())
    model.add(layers.Dense(10))
    model.save(tmp_path / "mine.keras")
    sizes = [
        exporter.export(tmp_path / "mine.keras", int8=int8, data="digits")["bytes"]
        for int8 in (False, True)
    ]
    assert sizes[1] < 0.35 * sizes[0]


def test_a_float_file_that_answers_otherwise_is_not_kept(
    run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fold = fold_batch_norm.fold

    def wrong(model):
        folded = fold(model)
        for constant in folded.graph.initializer:
            if constant.name.endswith("bias"):
                values = exporter.onnx.numpy_helper.to_array(constant) + 0.01
                constant.CopyFrom(exporter.onnx.numpy_helper.from_array(values, constant.name))
        return folded

    monkeypatch.setattr(fold_batch_norm, "fold", wrong)
    with pytest.raises(ModelError, match="logits"):
        exporter.export(run / "student.keras", out=tmp_path / "wrong.onnx")
    assert list(tmp_path.iterdir()) == []


def test_8_bits_that_lose_too_much_are_not_kept(tmp_path: Path) -> None:
    """What tells classes apart is a thousandth of what does not: 8 bits can't hold both."""
    inputs = keras.Input((8, 8, 1), dtype="uint8")
    x = layers.Rescaling(1 / 16)(inputs)
    small = layers.Conv2D(32, 3, activation="relu", name="small")(x)
    huge = layers.Rescaling(10_000.0)(layers.Conv2D(1, 3, activation="relu")(x))
    x = layers.Flatten()(layers.Concatenate()([small, huge]))
    model = keras.Model(inputs, layers.Dense(10, name="logits")(x))
    train = DIGITS.train
    head = keras.Model(inputs, x)
    features = head.predict(train.images, verbose=0).reshape(len(train), 36, 33)
    features[:, :, 32] = 0
    wanted = np.eye(10)[train.labels]
    weights = np.linalg.lstsq(features.reshape(len(train), -1), wanted, rcond=1e-4)[0]
    weights.reshape(36, 33, 10)[:, 32] = 0
    model.get_layer("logits").set_weights([weights, np.zeros(10)])
    model.save(tmp_path / "uneven.keras")
    found = exporter.export(tmp_path / "uneven.keras", data="digits")
    assert found["models"]["exported"]["accuracy"] > 0.9
    with pytest.raises(ModelError, match="accuracy"):
        exporter.export(tmp_path / "uneven.keras", data="digits", int8=True)
    assert not (tmp_path / "uneven-int8.onnx").exists()


def test_a_keras_file_is_a_copy_that_was_scored(run: Path, tmp_path: Path) -> None:
    found = exporter.export(run, form="keras", out=tmp_path / "copy.keras")
    assert found["parity"]["max_difference"] == 0
    images = DIGITS.test.images
    np.testing.assert_array_equal(
        keras_logits(tmp_path / "copy.keras", images), keras_logits(run / "student.keras", images)
    )


@pytest.mark.skipif(importlib.util.find_spec("litert_torch") is None, reason="no litert-torch")
def test_a_litert_file_gives_the_keras_models_logits(run: Path, tmp_path: Path) -> None:
    found = exporter.export(run, form="litert", out=tmp_path / "student.tflite")
    assert found["parity"]["max_difference"] < 1e-4


@pytest.mark.skipif(importlib.util.find_spec("litert_torch") is not None, reason="litert-torch")
def test_litert_without_its_converter_is_refused_with_the_reason(run: Path) -> None:
    done = command("export", run, "--format", "litert")
    assert done.returncode == 2
    assert done.stderr.splitlines() == [
        "tutelage: format litert: its converter is not installed; "
        "pip install litert-torch 'torch==2.13.0', or choose onnx"
    ]


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--format", "keras", "--int8"], "int8: expected only with the format onnx"),
        (["--out", "student.tflite"], "out: expected a name that ends in .onnx, found"),
        (["--data", "nowhere"], "nowhere"),
    ],
)
def test_what_cannot_be_honoured_is_said_in_one_line(
    run: Path, arguments: list[str], said: str
) -> None:
    done = command("export", run, *arguments)
    assert done.returncode == 2
    assert said in done.stderr.splitlines()[-1]
    assert "Traceback" not in done.stderr


def test_a_model_is_not_overwritten_by_its_copy(run: Path) -> None:
    with pytest.raises(RecipeError, match="model itself"):
        exporter.export(run, form="keras")


def test_a_model_without_a_run_needs_data(run: Path, tmp_path: Path) -> None:
    alone = tmp_path / "alone.keras"
    alone.write_bytes((run / "student.keras").read_bytes())
    done = command("export", alone)
    assert done.returncode == 2
    assert "give it with --data" in done.stderr


def test_other_data_than_the_models_is_refused(run: Path, tmp_path: Path) -> None:
    for part in ("train", "test"):
        for name in ("a", "b"):
            folder = tmp_path / "mine" / part / name
            folder.mkdir(parents=True)
            for number in range(12):
                Image.new("L", (8, 8), number).save(folder / f"{number}.png")
    with pytest.raises(ModelError, match="10 classes"):
        exporter.export(run, data=str(tmp_path / "mine"), out=tmp_path / "x.onnx")


def test_people_see_a_table_of_both(run: Path, tmp_path: Path) -> None:
    done = command("export", run, "--int8", "--out", tmp_path / "small.onnx")
    assert done.returncode == 0
    heading = next(line for line in done.stdout.splitlines() if "exported" in line)
    assert "keras" in heading
    assert "same class for" in done.stdout
    assert done.stdout.splitlines()[-1] == f"File: {tmp_path / 'small.onnx'}"
    assert "Collecting" not in done.stdout + done.stderr  # the quantiser's own talk


def test_an_exported_file_is_evaluated_and_asked_like_its_model(run: Path, tmp_path: Path) -> None:
    Image.fromarray(DIGITS.test.images[0, ..., 0]).save(tmp_path / "0.png")
    told = {}
    for suffix in ("keras", "onnx"):
        model = run / f"student.{suffix}"
        done = command("evaluate", model, "--data", "digits", "--teacher", model, "--json")
        assert done.returncode == 0, done.stderr
        told[suffix] = json.loads(done.stdout)["models"]["student"]
        assert told[suffix].pop("bytes") == model.stat().st_size
        asked = command("predict", model, tmp_path / "0.png", "--json")
        (answer,) = json.loads(asked.stdout)
        told[f"{suffix} names"] = [one["name"] for one in answer["classes"]]
        told[f"{suffix} sure"] = {str(n): x["probability"] for n, x in enumerate(answer["classes"])}
    assert told["onnx"] == pytest.approx(told["keras"], abs=1e-5)
    assert told["onnx"]["agreement"] == 1
    assert told["onnx names"] == told["keras names"]
    assert told["onnx sure"] == pytest.approx(told["keras sure"], abs=1e-5)


def test_an_exported_file_of_other_classes_is_not_evaluated(run: Path, tmp_path: Path) -> None:
    model = exporter.onnx.load(run / "student.onnx")
    for entry in model.metadata_props:
        if entry.key == "classes":
            entry.value = json.dumps([*DIGITS.classes[:9], "ten"])
    exporter.onnx.save(model, tmp_path / "turned.onnx")
    with pytest.raises(ModelError, match="'ten' there"):
        evaluate(tmp_path / "turned.onnx", "digits")


def test_pictures_are_asked_about_without_keras(run: Path, tmp_path: Path) -> None:
    Image.fromarray(DIGITS.test.images[0, ..., 0]).save(tmp_path / "0.png")
    program = (
        "import sys; from tutelage.cli import main; status = main(sys.argv[1:]); "
        "print(sorted({'keras', 'torch', 'sklearn'} & set(sys.modules))); sys.exit(status)"
    )
    line = [sys.executable, "-c", program, "predict", run / "student.onnx", tmp_path / "0.png"]
    done = subprocess.run(list(map(str, line)), text=True, capture_output=True)
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[-1] == "[]"


@pytest.mark.parametrize("content", [b"", b"no model", None])
def test_a_file_that_is_none_of_ours_is_refused(tmp_path: Path, run: Path, content) -> None:
    file = tmp_path / "odd.onnx"
    if content is None:
        model = exporter.onnx.load(run / "student.onnx")
        del model.metadata_props[:]
        exporter.onnx.save(model, file)
    else:
        file.write_bytes(content)
    with pytest.raises(ModelError, match=r"odd\.onnx"):
        ExportedModel(file)


def test_images_of_another_shape_or_dtype_are_refused(run: Path) -> None:
    file = ExportedModel(run / "student.onnx")
    for images in (np.zeros((1, 9, 8, 1), np.uint8), np.zeros((1, 8, 8, 1), np.float32)):
        with pytest.raises(ModelError, match=r"\(n, 8, 8, 1\)"):
            file.logits(images)
    with pytest.raises(RecipeError, match="threads"):
        ExportedModel(run / "student.onnx", threads=0)
