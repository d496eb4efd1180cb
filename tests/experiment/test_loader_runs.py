"""Runs on loaders: the weights of runs on arrays, what ends, what is refused, and going on."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader

import tutelage
from tests.data.loader_examples import (
    Augmented,
    Batches,
    EpochOrder,
    Shuffled,
    data_loader,
    tensors,
)
from tutelage import cli
from tutelage.data import augmentation, datasets, training_stream
from tutelage.data.datasets import Dataset, Part
from tutelage.errors import DataError, ModelError, RecipeError, RunError, TutelageError
from tutelage.experiment.api import Outcome
from tutelage.models import loading
from tutelage.progress import EpochLog, Progress
from tutelage.training import callbacks

REPOSITORY = Path(__file__).parents[2]
DIGITS = datasets.load("digits")
IMAGES, LABELS = DIGITS.train.images[:576], DIGITS.train.labels[:576]
VALIDATION = DIGITS.train.images[576:776], DIGITS.train.labels[576:776]
TEST = DIGITS.test.images, DIGITS.test.labels
SIZE = 64
SETTINGS = {"schedule.teacher.epochs": 2, "schedule.student.epochs": 3}


def net(seed: int = 3) -> keras.Model:
    keras.utils.set_random_seed(seed)
    inputs = keras.Input((8, 8, 1))
    x = keras.layers.Rescaling(1 / 16)(inputs)
    x = keras.layers.Conv2D(4, 3, padding="same", activation="relu")(x)
    x = keras.layers.BatchNormalization()(x)
    x = keras.layers.Flatten()(keras.layers.MaxPooling2D()(x))
    return keras.Model(inputs, keras.layers.Dense(10)(x))


class Exact(torch.nn.Module):
    """A teacher whose logits are the same in every batch, and exact in float16, as in the cache."""

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return images.reshape(len(images), 64)[:, 20:30] / 64


def exact(folder: Path, first: int) -> str:
    """The file of such a teacher in Keras."""
    dense = keras.layers.Dense(10)
    layers = [keras.Input((8, 8, 1)), keras.layers.Flatten(), dense]
    model = keras.Sequential(layers)
    dense.set_weights([np.eye(64)[:, first : first + 10] / 64, np.zeros(10)])
    model.save(folder / f"{first}.keras")
    return str(folder / f"{first}.keras")


class RunOrder(EpochOrder):
    """The order of a run on arrays."""

    def __iter__(self) -> Any:
        return iter(augmentation.order(self.count, seed=0, epoch=self.epoch).tolist())


class Heard(Progress):
    """Keeps notes and epochs; is interrupted at a step of a stage, if one is named."""

    def __init__(self, at: tuple[str, int, int] = ("", 0, 0)) -> None:
        self.notes: list[str] = []
        self.trained: list[tuple[str, int]] = []
        self.at, self.name, self.now = at, "", 0

    def note(self, text: str) -> None:
        self.notes.append(text)

    def stage(self, name: str, epochs: int, done: int, steps: int, unit: str = "epoch") -> None:
        self.name, self.now = name, done

    def step(self, step: int, logs: object) -> None:
        if (self.name, self.now, step) == self.at:
            raise KeyboardInterrupt

    def epoch(self, row: EpochLog) -> None:
        self.now = int(row["epoch"])
        if self.name in ("teacher", "baseline", "student"):
            self.trained.append((self.name, self.now))


def distil(out: Path, data: Any, **given: Any) -> Outcome:
    settings = SETTINGS | given.pop("settings", {})
    chosen = {"teacher": Exact(), "student": net(), "recipe": "digits"} | given
    return tutelage.distill(**chosen, data=data, settings=settings, out=out / "run")


def loaders(train: Any) -> tuple[Any, Any, Any]:
    """A training loader with a `PyDataset` and arrays."""
    return train, Batches(*VALIDATION, size=50), TEST


def weights(found: Outcome) -> list[np.ndarray]:
    models = [loading.load_model(found.folder / f"{n}.keras") for n in ("baseline", "student")]
    return [v.numpy() for model in models for v in model.variables]


def assert_same(one: Outcome, other: Outcome) -> None:
    assert len(weights(one)) > 0
    for a, b in zip(weights(one), weights(other), strict=True):
        np.testing.assert_array_equal(a, b)


# Against runs on arrays


ARRAYS = Dataset(
    "mine",
    DIGITS.classes,
    Part(*(np.concatenate(both) for both in zip((IMAGES, LABELS), VALIDATION, strict=True))),
    Part(*TEST),
    "",
    "",
    held_out=len(VALIDATION[0]),
)


@pytest.mark.parametrize(
    ("workers", "given", "settings"),
    [
        (0, {}, {}),
        (2, {}, {"schedule.student.gradient_accumulation_steps": 3}),
        (0, {"teacher": exact}, {"teacher.combine": "losses"}),
        (0, {"teacher": net(4)}, {"loss.name": "fitnet", "loss.weight": 0.1}),
        (2, {"teacher": net(4), "train_teacher": True}, {"loss.alpha": 0.0}),
    ],
)
def test_a_loader_gives_the_weights_of_arrays_in_its_order(
    tmp_path: Path, workers: int, given: dict[str, Any], settings: dict[str, Any]
) -> None:
    settings = settings | {"schedule.student.ema": 0.9}
    if given.get("teacher") is exact:
        given = {"teacher": [exact(tmp_path, first) for first in (20, 40)]}
    order = RunOrder(len(IMAGES))
    train = data_loader(IMAGES, LABELS, batch_size=SIZE, sampler=order, num_workers=workers)
    one = distil(tmp_path / "loader", loaders(train), settings=settings, **given)
    batches = {f"schedule.{role}.batch_size": SIZE for role in ("teacher", "student")}
    same = settings | batches | {"views.shift": 0}
    other = distil(tmp_path / "arrays", ARRAYS, settings=same, **given)
    names = ["baseline", "student", *(["teacher"] if "train_teacher" in given else [])]
    for name in names:
        trained = [loading.load_model(found.folder / f"{name}.keras") for found in (one, other)]
        for a, b in zip(*(model.variables for model in trained), strict=True):
            if a.path.split("/")[-1].startswith("moving"):  # sums over the sample, in its order
                np.testing.assert_allclose(a.numpy(), b.numpy(), rtol=1e-4, atol=1e-5)
            else:
                np.testing.assert_array_equal(a.numpy(), b.numpy())
    for a, b in zip(one.history, other.history, strict=True):
        assert json.dumps(a | {"seconds": 0}) == json.dumps(b | {"seconds": 0})
    assert one.results["data"]["train"] == other.results["data"]["train"] == len(IMAGES)
    assert one.results["validation"].keys() == other.results["validation"].keys()


def test_a_small_sample_changes_nothing_where_no_images_are_needed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A network of the user's own without batch normalization is trained on the stream alone."""
    monkeypatch.setattr(training_stream, "_SAMPLE_IMAGES", 20)
    unequal = np.argsort(LABELS > 4, kind="stable")[: 6 * SIZE]  # few images of the last classes
    few = IMAGES[unequal], LABELS[unequal]
    settings = {"schedule.student.class_weights": "balanced"}
    train = data_loader(*few, batch_size=SIZE, sampler=RunOrder(len(unequal)))
    one = distil(tmp_path / "loader", loaders(train), student=dropping(), settings=settings)
    with np.load(tmp_path / "loader/run/answers.npz") as stored:
        assert len(stored["student"]) == 64
    data = replace(
        ARRAYS,
        train=Part(*(np.concatenate(both) for both in zip(few, VALIDATION, strict=True))),
    )
    settings |= {"schedule.student.batch_size": SIZE, "views.shift": 0}
    other = distil(tmp_path / "arrays", data, student=dropping(), settings=settings)
    assert_same(one, other)


# Every framework


def rows() -> list[dict[str, Any]]:
    return [{"image": x, "label": y} for x, y in zip(IMAGES, LABELS, strict=True)]


def grain_dataset() -> Any:
    grain = pytest.importorskip("grain")
    return grain.MapDataset.source(rows()).seed(0).shuffle().batch(SIZE)


def tf_dataset() -> Any:
    tf = pytest.importorskip("tensorflow")
    data = tf.data.Dataset.from_tensor_slices({"image": IMAGES, "label": LABELS})
    return data.shuffle(100, seed=0, reshuffle_each_iteration=False).batch(SIZE)


@pytest.mark.parametrize(
    ("make", "kind"),
    [
        (lambda: Batches(IMAGES, LABELS, SIZE, workers=2), "Batches"),
        (lambda: DataLoader(tensors(IMAGES, LABELS), SIZE, shuffle=True), "DataLoader"),
        (grain_dataset, "BatchMapDataset"),
        (tf_dataset, "BatchDataset"),
    ],
)
def test_a_run_on_the_loader_of_each_framework(
    tmp_path: Path, make: Any, kind: str, capsys: pytest.CaptureFixture[str]
) -> None:
    train, heard = make(), Heard()
    settings = {"schedule.teacher.epochs": 6, "schedule.student.epochs": 6}
    given = {"teacher": "digits-teacher", "student": "digits-student", "settings": settings}
    found = distil(tmp_path, loaders(train), progress=heard, **given)
    data = found.results["data"]
    assert (data["name"], data["train"], data["validation"]) == (kind, len(IMAGES), 200)
    (note,) = data["notes"]
    assert f"{len(IMAGES)} images in 9 batches of {SIZE}" in note
    assert "views.shift = 1" in note
    assert "began with the same batch" in note
    assert heard.notes.count(f"{kind}: {note}") == 1
    accuracies = {name: model["accuracy"] for name, model in found.results["models"].items()}
    assert min(accuracies.values()) > 0.7, accuracies
    assert found.results["recipe"]["schedule"]["student"]["batch_size"] == SIZE
    stages = [("teacher", 6), ("baseline", 6), ("student", 6)]
    assert heard.trained == [(name, e) for name, epochs in stages for e in range(1, epochs + 1)]
    # Once more: it is done, and nothing is trained.
    heard = Heard()
    again = distil(tmp_path, loaders(train), progress=heard, **given)
    assert heard.trained == []
    assert again.results == found.results
    for command in (["report", f"--out={tmp_path}/r.html"], ["export", "--data=digits"]):
        assert cli.main([command[0], str(found.folder), *command[1:]]) == 0
    assert (found.folder / "student.onnx").exists()
    assert kind in (tmp_path / "r.html").read_text()
    capsys.readouterr()


def test_all_three_may_be_loaders_or_arrays(tmp_path: Path) -> None:
    train = data_loader(IMAGES, LABELS, batch_size=SIZE, shuffle=True)
    validation = data_loader(*VALIDATION, batch_size=30, shuffle=True)
    test = Batches(TEST[0], np.eye(10)[TEST[1]])
    one = distil(tmp_path / "loaders", (train, validation, test))
    train = data_loader(IMAGES, LABELS, batch_size=SIZE, shuffle=True)
    other = distil(tmp_path / "arrays", [train, VALIDATION, TEST])
    assert_same(one, other)
    assert one.results["models"]["student"]["accuracy"] == pytest.approx(
        other.results["models"]["student"]["accuracy"]
    )
    assert one.results["data"]["fingerprint"] == other.results["data"]["fingerprint"]


def test_training_arrays_with_their_own_validation_and_test_end_no_guarantee(
    tmp_path: Path,
) -> None:
    data = (IMAGES, LABELS), Batches(*VALIDATION), TEST
    one = distil(tmp_path / "three", data)
    assert_same(one, distil(tmp_path / "two", ARRAYS))
    assert "notes" not in one.results["data"]
    assert one.results["data"]["validation"] == 200
    assert len(list(Path(os.environ["TUTELAGE_CACHE"]).glob("logits/*/*.npy"))) > 0


def test_mixed_labels(tmp_path: Path) -> None:
    """The hard loss has the shares, losses with labels the class of the largest one."""
    random = np.random.default_rng(0)
    partner, share = random.permutation(len(IMAGES)), random.uniform(0.6, 1, (len(IMAGES), 1))
    one_hot = np.eye(10)[LABELS]
    labels = share * one_hot + (1 - share) * one_hot[partner]
    pixels = share[..., None, None] * IMAGES + (1 - share[..., None, None]) * IMAGES[partner]
    train = Batches(pixels.astype(np.uint8), labels.astype(np.float32), SIZE)
    settings = {"loss.name": "dkd", "schedule.student.class_weights": "balanced"}
    settings |= {"schedule.teacher.epochs": 8, "schedule.student.epochs": 8}
    given = {"teacher": "digits-teacher", "student": "digits-student"}
    found = distil(tmp_path, loaders(train), settings=settings, **given)
    accuracies = {name: model["accuracy"] for name, model in found.results["models"].items()}
    assert min(accuracies.values()) > 0.7, accuracies
    assert all(0 < row["val_accuracy"] <= 1 for row in found.history)


def test_names_of_classes_come_from_the_loader(tmp_path: Path) -> None:
    names = [f"digit {k}" for k in range(10)]
    data = tensors(IMAGES, LABELS)
    data.classes = names
    train = DataLoader(data, SIZE)
    found = distil(tmp_path, loaders(train), settings={"schedule.student.epochs": 1})
    assert found.results["data"]["classes"] == names
    other = Batches(*VALIDATION)
    other.class_names = names[::-1]
    with pytest.raises(DataError, match="same classes"):
        distil(tmp_path / "other", (train, other, TEST))
    # Outputs of a teacher whose file names them in another order are put in the data's.
    data.classes = names[::-1]
    teacher, heard = found.folder / "student.keras", Heard()
    distil(tmp_path / "teacher", (train, VALIDATION, TEST), teacher=teacher, progress=heard)
    assert any("teacher: its classes are in another order" in note for note in heard.notes)


# Going on


def random_loader(workers: int) -> Any:
    """Order and augmentation from the global random numbers, as users have it."""
    data = Augmented(IMAGES, LABELS)
    return DataLoader(data, SIZE, shuffle=True, num_workers=workers)


RESUMED: dict[str, tuple[int, dict[str, Any]]] = {  # the loader's processes, and settings
    "random": (0, {}),
    "random in processes": (2, {"schedule.student.optimizer": "adamw"}),
    "accumulation": (0, {"schedule.student.gradient_accumulation_steps": 3}),
}


class Killed(Heard):
    """Kills its process some steps after the last checkpoint."""

    def step(self, step: int, logs: object) -> None:
        if (self.name, self.now, step) == self.at:
            os.kill(os.getpid(), signal.SIGKILL)
        if (self.name, self.now, step) == (*self.at[:2], self.at[2] - 2):
            callbacks.SAVE_SECONDS = 1e9


def resumed(case: str, out: Path, progress: Progress | None = None) -> Outcome:
    workers, settings = RESUMED[case]
    data = loaders(random_loader(workers))
    return distil(out, data, student=dropping(), settings=settings, progress=progress)


def dropping() -> keras.Model:
    """A student whose dropout draws from a seed, as what it draws is part of a checkpoint."""
    keras.utils.set_random_seed(3)
    layers = [keras.Input((8, 8, 1)), keras.layers.Rescaling(1 / 255), keras.layers.Flatten()]
    return keras.Sequential([*layers, keras.layers.Dropout(0.1, seed=1), keras.layers.Dense(10)])


@pytest.mark.skipif(not hasattr(signal, "SIGKILL"), reason="needs SIGKILL")
@pytest.mark.parametrize(
    ("case", "stage", "epoch", "step"),
    [
        ("random", "student", 2, 9),  # in the validation of the last epoch
        ("random in processes", "baseline", 1, 6),
        ("accumulation", "student", 1, 4),
    ],
)
def test_a_killed_run_ends_with_the_weights_of_an_undisturbed_one(
    tmp_path: Path, case: str, stage: str, epoch: int, step: int
) -> None:
    whole = resumed(case, tmp_path / "whole")
    call = [sys.executable, "-m", "tests.experiment.test_loader_runs", case, str(tmp_path / "cut")]
    done = subprocess.run(
        [*call, stage, str(epoch), str(step)], cwd=REPOSITORY, capture_output=True, text=True
    )
    assert done.returncode == -signal.SIGKILL, done.stderr
    np.random.rand()  # another state of the global random numbers
    heard = Heard()
    cut = resumed(case, tmp_path / "cut", heard)
    assert any(f"resuming epoch {epoch + 1}" in note for note in heard.notes)
    assert_same(whole, cut)
    for a, b in zip(whole.history, cut.history, strict=True):
        assert json.dumps(a | {"seconds": 0}) == json.dumps(b | {"seconds": 0})


@pytest.mark.parametrize("student", [net(), "digits-student"])
def test_a_loader_that_does_not_repeat_itself(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, student: Any
) -> None:
    monkeypatch.setattr(training_stream, "_SAMPLE_IMAGES", 20)

    def data() -> Any:
        order = np.random.default_rng().permutation(len(IMAGES))  # another in each process
        return loaders(Shuffled(IMAGES[order], LABELS[order], SIZE))

    given = {"student": student, "teacher": "digits-teacher"}
    with pytest.raises(KeyboardInterrupt):
        distil(tmp_path, data(), progress=Heard(("student", 1, 4)), **given)
    before = json.loads((tmp_path / "run/run.json").read_text())
    np.random.rand()
    heard = Heard()
    found = distil(tmp_path, data(), progress=heard, **given)
    # What was trained is kept, although the loader gives other images now.
    assert heard.trained == [("student", 2), ("student", 3)]
    after = json.loads((tmp_path / "run/run.json").read_text())
    assert after["stages"]["baseline"] == before["stages"]["baseline"]
    assert after["key"] == before["key"]
    (note,) = found.results["data"]["notes"]
    assert "began with another batch" in note
    if student == "digits-student":  # its normalization is that of one sample of images
        models = [loading.load_model(found.folder / f"{n}.keras") for n in ("baseline", "student")]
        one, other = (model.get_layer("rescaling").get_config()["scale"] for model in models)
        assert one == other
    with pytest.warns(UserWarning, match="run is finished"):
        again = distil(tmp_path, data(), **given)
    assert again.results == found.results
    # A neighbor's stage may have been trained on other images.
    heard = Heard()
    settings = SETTINGS | {"loss.alpha": 0.5}
    shared = {"recipe": "digits", "settings": settings, "progress": heard}
    tutelage.distill(**given, **shared, data=data(), out=tmp_path / "neighbor")
    assert heard.trained[:2] == [("teacher", 1), ("teacher", 2)]
    (found.folder / "sample.npz").write_bytes(b"")
    with pytest.raises(RunError, match=r"sample\.npz"):
        distil(tmp_path, data(), **given)


def test_other_images_are_noticed(tmp_path: Path) -> None:
    settings = {"schedule.student.epochs": 1}
    distil(tmp_path, loaders(data_loader(IMAGES, LABELS, batch_size=SIZE)), settings=settings)
    changes = [
        data_loader(IMAGES[::-1].copy(), LABELS[::-1].copy(), batch_size=SIZE),
        data_loader(IMAGES, LABELS, batch_size=SIZE // 2),
        data_loader(IMAGES, LABELS, batch_size=SIZE, shuffle=True),
    ]
    for train in changes:
        with pytest.raises(RunError, match="other data"):
            distil(tmp_path, loaders(train), settings=settings)
    train = data_loader(IMAGES, LABELS, batch_size=SIZE)
    with pytest.raises(RunError, match="other data"):
        distil(tmp_path, (train, VALIDATION, (TEST[0][1:], TEST[1][1:])), settings=settings)


def test_seeds_can_be_compared(tmp_path: Path) -> None:
    for seed in (0, 1):
        tutelage.distill(
            teacher=Exact(),
            student="digits-student",
            data=loaders(random_loader(0)),
            recipe="digits",
            settings={"seed": seed, "schedule.student.epochs": 1},
            out=tmp_path / str(seed),
        )
    (group,) = tutelage.compare(tmp_path)["groups"]
    assert group["seeds"] == [0, 1]


# What is refused


TRAIN, ONE_HOT = Batches(IMAGES, LABELS, SIZE), Batches(TEST[0], np.eye(10)[TEST[1]])


class Broken(Batches):
    """Raises in a later epoch."""

    passes = 0

    def on_epoch_begin(self) -> None:
        self.passes += 1

    def __getitem__(self, number: int) -> Any:
        if self.passes == 4 and number == 3:
            raise OSError("disk\nfull")
        return super().__getitem__(number)


def test_an_exception_of_the_loader_in_training_ends_the_run_in_one_line(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"training data \(Broken\): batch 4 of epoch 2") as raised:
        distil(tmp_path, loaders(Broken(IMAGES, LABELS, SIZE)))
    assert "OSError: disk full" in str(raised.value)
    # What was trained is on disk: a loader that works goes on.
    heard = Heard()
    distil(tmp_path, loaders(Batches(IMAGES, LABELS, SIZE)), progress=heard)
    assert heard.trained[0] == ("baseline", 2)


@pytest.mark.parametrize(
    ("data", "named"),
    [
        (TRAIN, "Batches"),
        ((TRAIN, VALIDATION), "Batches, tuple"),
        ((TRAIN, TRAIN), "Batches, Batches"),
        ([TRAIN], "Batches"),
        ((TRAIN, VALIDATION, TEST, TEST), "Batches, tuple, tuple, tuple"),
        ((TRAIN, VALIDATION, TEST[0]), "test data: .* found ndarray"),
        ((TRAIN, tensors(), TEST), "validation data: .* found TensorDataset"),
        ((TRAIN, VALIDATION, iter([TEST])), r"test data \(list_iterator\)"),
        ((TRAIN, VALIDATION, Batches(TEST[0] / 255, TEST[1])), r"test data \(Batches\): batch 1"),
        ((Batches(IMAGES / 255, LABELS), VALIDATION, TEST), r"training data \(Batches\): batch 1"),
        ((TRAIN, (VALIDATION[0][:, 1:], VALIDATION[1]), TEST), r"validation .*\(7, 8, 1\)"),
        ((TRAIN, VALIDATION, (TEST[0][:, 1:], TEST[1])), r"test .*\(7, 8, 1\)"),
        ((TRAIN, VALIDATION, (TEST[0], TEST[1] + 1)), "training .*'class 10'"),
        ((TRAIN, VALIDATION, (TEST[0][:5], TEST[1][:5])), "test .*no image of class"),
        ((TRAIN, (VALIDATION[0][:5], VALIDATION[1][:5]), TEST), "validation .*no image of class"),
        ((Batches(IMAGES, LABELS // 9 * 9), VALIDATION, TEST), "training .*'class 1'"),
        ((Batches(IMAGES[:0], LABELS[:0]), VALIDATION, TEST), "training .*no batch"),
        ((Batches(IMAGES, np.eye(12)[LABELS]), VALIDATION, ONE_HOT), "same classes"),
    ],
)
def test_data_that_is_refused(tmp_path: Path, data: Any, named: str) -> None:
    with pytest.raises(DataError, match=named) as raised:
        distil(tmp_path, data)
    assert "\n" not in str(raised.value)
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("given", "kind", "named"),
    [
        ({"settings": {"views.flip": True}}, RecipeError, "views.flip"),
        ({"settings": {"schedule.student.batch_size": 8}}, RecipeError, "batch_size"),
        ({"settings": {"data.validation": 0.2}}, RecipeError, "data.validation"),
        ({"unlabeled": IMAGES}, RecipeError, "unlabeled"),
        ({"teacher": "logits.npy"}, RecipeError, "logits.npy"),
        ({"teacher": [Exact(), Path("logits.npy")]}, RecipeError, "logits.npy"),
        (
            {"settings": {"schedule.student.gradient_accumulation_steps": 65}},
            RecipeError,
            "gradient_accumulation_steps",
        ),
    ],
)
def test_settings_that_are_refused(
    tmp_path: Path, given: dict[str, Any], kind: type[TutelageError], named: str
) -> None:
    with pytest.raises(kind, match=named):
        distil(tmp_path, loaders(TRAIN), **given)


@pytest.mark.parametrize("key", ["data.validation", "data.split_seed"])
def test_a_second_split_is_refused(tmp_path: Path, key: str) -> None:
    with pytest.raises(RecipeError, match=key):
        distil(tmp_path, ((IMAGES, LABELS), VALIDATION, TEST), settings={key: 0})


def test_a_loss_that_compares_images_needs_two_in_each_batch(tmp_path: Path) -> None:
    train = Batches(IMAGES[: SIZE + 1], LABELS[: SIZE + 1], SIZE)
    with pytest.raises(ModelError, match=r"Batches.*rkd.*found 1"):
        distil(tmp_path, loaders(train), teacher=net(4), settings={"loss.name": "rkd"})


def test_settings_are_checked_before_the_loader_is_read(tmp_path: Path) -> None:
    class Unread(Batches):
        def __getitem__(self, number: int) -> Any:
            raise AssertionError

    with pytest.raises(RecipeError, match="alpah"):
        distil(tmp_path, loaders(Unread()), settings={"loss.alpah": 1})


if __name__ == "__main__":
    name, folder, stage, *where = sys.argv[1:]
    callbacks.SAVE_SECONDS = 0.0
    epoch, step = map(int, where)
    resumed(name, Path(folder), Killed((stage, epoch, step)))
