"""The classes' names of model files: kept, compared, and followed wherever a model meets data."""

from __future__ import annotations

import asyncio
import json
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
import torch
from keras import layers

from tests.models.example_models import CLASSES, GREY, linear, store, teacher_of
from tutelage.data import datasets
from tutelage.data.datasets import Dataset
from tutelage.errors import LogitsError, ModelError
from tutelage.evaluation import evaluate
from tutelage.exporters import exporter
from tutelage.losses import FitNet
from tutelage.models import class_names, file_metadata, loading, resolve
from tutelage.models.ensemble import ensemble
from tutelage.models.onnx_model import ExportedModel
from tutelage.server import models as served
from tutelage.server.metrics import Metrics
from tutelage.server.uploads import Limits
from tutelage.server.worker_pool import WorkerPool

OTHER = ("emu", "cat", "dog")  # the classes in another order
PLACES = [OTHER.index(name) for name in CLASSES]


def model(seed: int = 0) -> keras.Model:
    """Pixels to the logits of `CLASSES`, without a scale: right to the last bit when permuted."""
    keras.utils.set_random_seed(seed)
    inputs = keras.Input((8, 8, 1), dtype="uint8")
    x = layers.Conv2D(4, 3, name="maps")(layers.Rescaling(1 / 255)(inputs))
    return keras.Model(inputs, layers.Dense(3, name="head")(layers.Flatten()(x)))


def permuted(made: keras.Model) -> keras.Model:
    """The same model with its classes in the order of `OTHER`."""
    copy = keras.models.clone_model(made)
    copy.set_weights(made.get_weights())
    kernel, bias = made.get_layer("head").get_weights()
    back = [CLASSES.index(name) for name in OTHER]
    copy.get_layer("head").set_weights([kernel[:, back], bias[back]])
    return copy


@pytest.fixture
def files(tmp_path: Path) -> tuple[Path, Path]:
    """A model's file, and that of the same model with its classes in another order."""
    for name, made, classes in (("own", model(), CLASSES), ("other", permuted(model()), OTHER)):
        made.save(tmp_path / f"{name}.keras")
        file_metadata.write(tmp_path / f"{name}.keras", classes)
    return tmp_path / "own.keras", tmp_path / "other.keras"


@pytest.fixture
def data(monkeypatch: pytest.MonkeyPatch) -> Callable[[tuple[str, ...]], str]:
    """Makes `evaluate` and `export` find a data set whose labels are the first model's answers."""

    def serve(classes: tuple[str, ...]) -> str:
        labels = loading.logits(model(), GREY).argmax(axis=1)
        labels = np.array([classes.index(CLASSES[k]) for k in labels])
        part = datasets.Part(GREY, labels)
        found = Dataset("made", classes, part, part, "of classes", "memory")
        monkeypatch.setattr(evaluate.datasets, "load", lambda *_, **__: found)
        return "made"

    return serve


def test_names_stay_in_the_file_and_keras_reads_it_as_before(files: tuple[Path, Path]) -> None:
    own, other = files
    assert (file_metadata.classes(own), file_metadata.classes(other)) == (CLASSES, OTHER)
    before = own.read_bytes()
    file_metadata.write(own, OTHER)  # the file's own names stand
    assert own.read_bytes() == before
    assert zipfile.ZipFile(own).testzip() is None
    loaded = keras.saving.load_model(own)
    np.testing.assert_array_equal(loaded.predict(GREY), model().predict(GREY))
    (own.parent / "results.json").write_text(json.dumps({"data": {"classes": ["x", "y", "z"]}}))
    assert file_metadata.classes(own) == CLASSES
    model().save(own)  # as of an older run
    assert file_metadata.classes(own) == ("x", "y", "z")


def test_placeholders_are_no_names(tmp_path: Path) -> None:
    assert class_names.order("mine", class_names.numbered(3), CLASSES, []) is None
    assert class_names.order("mine", CLASSES, class_names.numbered(3), []) is None
    assert class_names.order("mine", None, CLASSES, []) is None
    model().save(tmp_path / "one.keras")
    file_metadata.write(tmp_path / "one.keras", class_names.numbered(3))
    assert file_metadata.classes(tmp_path / "one.keras") is None


def test_a_name_is_the_same_however_a_system_composes_its_letters() -> None:
    composed, apart = "caf\u00e9", "cafe\u0301"
    assert class_names.order("mine", (composed, "tea"), (apart, "tea"), []) is None
    index = class_names.order("mine", (composed, "tea"), ("tea", apart), [])
    assert index is not None
    assert index.tolist() == [1, 0]


@pytest.mark.parametrize(
    ("own", "offender"),
    [
        (("cat", "dog", "yak"), "'yak' there and 'emu' here"),
        (("yak", "emu", "dog"), "'yak' there and 'cat' here"),
        (("cat", "dog"), "None there and 'emu' here"),
        (("emu", "dog", "cat", "yak"), "'yak' there and None here"),
        (("cat", "dog", "dog"), "'dog' there and 'emu' here"),
        (("Cat", "dog", "emu"), "'Cat' there and 'cat' here"),
    ],
)
def test_other_names_are_refused_by_the_first_that_differs(
    own: tuple[str, ...], offender: str
) -> None:
    with pytest.raises(ModelError, match=f"^mine .*{offender}"):
        class_names.order("mine", own, CLASSES, [])


@pytest.mark.parametrize("kind", ["keras", "run folder", "older run", "onnx", "npy"])
def test_a_teacher_of_another_order_teaches_the_same(
    files: tuple[Path, Path], tmp_path: Path, kind: str, data: Callable[[tuple[str, ...]], str]
) -> None:
    own, other = files
    sources: list[Any] = [own, other]
    if kind in ("run folder", "older run"):
        for number, (made, classes) in enumerate(((model(), CLASSES), (permuted(model()), OTHER))):
            sources[number] = folder = tmp_path / f"run-{number}"
            folder.mkdir()
            made.save(folder / "teacher.keras")
            if kind == "run folder":
                file_metadata.write(folder / "teacher.keras", classes)
            (folder / "results.json").write_text(json.dumps({"data": {"classes": classes}}))
    elif kind == "onnx":
        sources = [exporter.export(file, data=data(CLASSES))["file"] for file in files]
        assert ExportedModel(sources[1]).classes == OTHER
    elif kind == "npy":
        logits = loading.logits(model(), GREY)
        back = [CLASSES.index(name) for name in OTHER]
        sources[0] = store(tmp_path / "own.npy", logits)
        sources[1] = store(tmp_path / "other.npy", logits[:, back], classes=OTHER)
    one, two = (teacher_of(source) for source in sources)
    (first, second) = (
        made.stored if made.logits is None else made.logits(GREY, "float32") for made in (one, two)
    )
    np.testing.assert_array_equal(first, second)
    assert len(np.unique(first.argmax(axis=1))) > 1
    assert (len(one.notes), len(two.notes)) == (0, 1)
    same = resolve.teacher(sources[1], images=GREY, classes=OTHER) if kind != "npy" else None
    if same is not None:
        assert same.digest != two.digest  # what it answers decides, not its file
    if kind == "keras":
        assert two.model is not None
        two.model.save(tmp_path / "again.keras")
        again = loading.load_model(tmp_path / "again.keras")
        np.testing.assert_array_equal(loading.logits(again, GREY), first)
        FitNet("maps", "maps").validate_model_compatibility(again, model())  # layers keep names


def test_stored_logits_of_other_classes_or_images_stay_refused(tmp_path: Path) -> None:
    logits = linear(GREY / np.float32(255))
    for changes in (
        {"classes": ["cat", "dog", "yak"]},
        {"classes": ["cat", "dog"]},
        {"images": "x"},
    ):
        with pytest.raises(LogitsError, match=r"logits\.json"):
            teacher_of(store(tmp_path / "logits.npy", logits, **changes))


def test_an_ensemble_puts_each_member_in_the_data_s_order(files: tuple[Path, Path]) -> None:
    own, other = files
    whole = ensemble([teacher_of(own), teacher_of(other)])
    assert whole.logits is not None
    expected = loading.logits(model(), GREY)
    np.testing.assert_allclose(whole.logits(GREY, "float32"), expected, rtol=1e-6)
    assert [str(other) in note for note in whole.notes] == [True]


def test_a_module_has_no_names_to_compare() -> None:
    torch.manual_seed(0)
    module = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(64, 3))
    assert teacher_of(module).notes == ()


def test_a_student_of_another_order_starts_in_the_data_s(files: tuple[Path, Path]) -> None:
    own, _ = files
    settings: dict[str, Any] = {"images": GREY, "classes": CLASSES, "seed": 0}
    (one, none), (two, notes) = (resolve.student(file, **settings) for file in files)
    np.testing.assert_array_equal(loading.logits(one, GREY), loading.logits(two, GREY))
    assert (len(none), len(notes)) == (0, 1)
    # Of other classes it may start, as a net for them is fine-tuned; it is said.
    _, notes = resolve.student(own, images=GREY, classes=("a", "b", "c"), seed=0)
    assert len(notes) == 1


@pytest.mark.parametrize("suffix", [".keras", ".onnx"])
@pytest.mark.parametrize("classes", [CLASSES, OTHER])
def test_evaluation_is_the_same_in_any_order(
    files: tuple[Path, Path],
    suffix: str,
    classes: tuple[str, ...],
    data: Callable[[tuple[str, ...]], str],
) -> None:
    name = data(classes)
    for file in files:
        exported = exporter.export(file, data=name)  # scored in the data's order, kept in its own
        assert exported["models"]["exported"]["accuracy"] == 1
        found = evaluate.evaluate(file.with_suffix(suffix), name, teacher=files[0])
        figures = found["models"][file.stem]
        assert (figures["accuracy"], figures["agreement"]) == (1, 1)
        assert figures["kl"] == pytest.approx(0, abs=1e-6)
        turned = (file_metadata.classes(file) != classes) + (classes != CLASSES)
        assert len(found["notes"]) == turned
    with pytest.raises(ModelError, match="'emu' there and 'yak' here"):
        evaluate.evaluate(files[0].with_suffix(suffix), data(("cat", "dog", "yak", "emu")[:3]))


def test_export_keeps_the_model_s_own_names(
    files: tuple[Path, Path], data: Callable[[tuple[str, ...]], str]
) -> None:
    for file in files:
        for form in ("onnx", "keras"):
            out = file.with_name(f"{file.stem}-out{exporter.SUFFIXES[form]}")
            exporter.export(file, form=form, data=data(CLASSES), out=out)
            names = ExportedModel(out).classes if form == "onnx" else file_metadata.classes(out)
            assert names == file_metadata.classes(file)
    with pytest.raises(ModelError, match="'emu' there and 'gnu' here"):
        exporter.export(files[0], data=data(("cat", "dog", "gnu")))


def test_a_server_names_each_model_s_classes_itself(
    files: tuple[Path, Path], data: Callable[[tuple[str, ...]], str]
) -> None:
    name = data(CLASSES)
    found = served.load([Path(exporter.export(file, data=name)["file"]) for file in files])
    pool = WorkerPool(found, 1, Limits(), Metrics())
    picture = served.png(GREY[0])
    models = asyncio.run(pool.classify(picture, 3, False))["models"]
    pool.close()
    first, second = ([one["name"] for one in answer["classes"]] for answer in models)
    chances = loading.logits(model(), GREY[:1])[0]
    assert first == second == [CLASSES[i] for i in np.argsort(-chances)]
