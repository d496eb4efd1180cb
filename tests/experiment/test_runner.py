"""A whole run: its files, its figures, going on, and what it refuses."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
from scipy.special import softmax
from sklearn.metrics import accuracy_score, f1_score, log_loss, precision_score, recall_score

from tutelage import losses, recipe
from tutelage.data import augmentation
from tutelage.errors import ModelError, RecipeError, RunError
from tutelage.evaluation import bias_correction, metrics
from tutelage.experiment import runner, stages
from tutelage.experiment.prepare import prepare
from tutelage.experiment.spec import Experiment
from tutelage.models import loading
from tutelage.models.architectures import ARCHITECTURES, Architecture
from tutelage.models.digest import keras_digest
from tutelage.progress import EpochLog, Progress
from tutelage.training.batch_norm import recalibrate_batch_norm

SMALL = {
    "schedule.teacher.epochs": 2,
    "schedule.student.epochs": 2,
    "schedule.teacher.batch_size": 128,
    "schedule.student.batch_size": 128,
}


def resolved(**changed: object) -> Experiment:
    overrides = {key.replace("__", "."): value for key, value in changed.items()}
    return prepare(recipe.load("digits", SMALL | overrides))


def keys(experiment: Experiment) -> dict[str, str]:
    return {stage.name: stage.key for stage in experiment.stages}


class Notes(Progress):
    """Keeps what it hears, and raises at a given stage and epoch."""

    def __init__(self, dies_at: tuple[str, int] = ("", 0)):
        self.told: list[str] = []
        self.trained: list[tuple[str, int]] = []
        self.dies_at, self.name, self.now = dies_at, "", 0

    def note(self, text: str) -> None:
        self.told.append(text)

    def stage(self, name: str, epochs: int, done: int, steps: int, unit: str = "epoch") -> None:
        self.name, self.now = name, done

    def step(self, step: int, logs: object) -> None:
        if (self.name, self.now + 1) == self.dies_at:
            raise KeyboardInterrupt

    def epoch(self, row: EpochLog) -> None:
        self.now = int(row["epoch"])
        if self.name in ("caching teacher logits", "batch normalization"):
            return
        self.trained.append((self.name, self.now))


EPOCHS = [(stage, epoch) for stage in ("teacher", "baseline", "student") for epoch in (1, 2)]


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, Any]]:
    folder = tmp_path_factory.mktemp("runs") / "first"
    return folder, runner.run(resolved(), folder)


def history(folder: Path) -> list[dict[str, str]]:
    return list(csv.DictReader((folder / "history.csv").read_text().splitlines()))


def weights(folder: Path, stage: str) -> list[np.ndarray]:
    return loading.load_model(folder / f"{stage}.keras").get_weights()


def test_folder_holds_what_a_run_is_said_to_leave(run: tuple[Path, dict[str, Any]]) -> None:
    folder, results = run
    assert sorted(path.name for path in folder.iterdir() if path.name != ".lock") == [
        "baseline.keras",
        "history.csv",
        "pictures.npz",
        "predictions.npz",
        "recipe.toml",
        "report.md",
        "results.json",
        "run.json",
        "student.keras",
        "teacher.keras",
    ]
    assert json.loads((folder / "results.json").read_text()) == results
    assert recipe.key(recipe.load(folder / "recipe.toml")) == recipe.key(resolved().recipe)
    for figures in results["models"].values():
        names = "accuracy precision recall f1 nll ece agreement kl parameters macs bytes seconds"
        assert set(figures) == set(names.split())
    assert set(results["environment"]) >= {"versions", "hardware", "commit", "precision"}
    assert set(results["environment"]["compiled"]) <= {"fused_batch_norm", "winograd"}
    assert results["data"]["fingerprint"].startswith("sha256:")


def test_every_reported_figure_recomputes_from_the_predictions(
    run: tuple[Path, dict[str, Any]],
) -> None:
    folder, results = run
    with np.load(folder / "predictions.npz") as file:
        stored = dict(file)
    assert sorted(stored) == ["baseline", "index", "labels", "student", "teacher"]
    labels = stored["labels"]
    np.testing.assert_array_equal(labels, resolved().data.test.labels)
    for name, figures in results["models"].items():
        answers = stored[name].argmax(axis=1)
        mean = {"average": "macro", "zero_division": 0}
        assert figures["accuracy"] == pytest.approx(accuracy_score(labels, answers))
        assert figures["precision"] == pytest.approx(precision_score(labels, answers, **mean))
        assert figures["recall"] == pytest.approx(recall_score(labels, answers, **mean))
        assert figures["f1"] == pytest.approx(f1_score(labels, answers, **mean))
        again = metrics.score(stored[name], labels, stored["teacher"])
        assert again == {key: figures[key] for key in again}
        assert figures["bytes"] == (folder / f"{name}.keras").stat().st_size


def test_stored_logits_are_those_of_the_saved_model_in_stock_keras(
    run: tuple[Path, dict[str, Any]],
) -> None:
    folder, _ = run
    model = keras.saving.load_model(folder / "student.keras")
    expected = model.predict(resolved().data.test.images, verbose=0)
    with np.load(folder / "predictions.npz") as stored:
        got = stored["student"]
    np.testing.assert_allclose(got, expected, rtol=1e-4, atol=1e-4)
    assert {layer.dtype_policy.name for layer in model.layers} == {"float32"}


def test_validation_figures_are_those_of_the_saved_models(run: tuple[Path, dict[str, Any]]) -> None:
    folder, results = run
    held_out = resolved().validation
    for stage, figures in results["validation"].items():
        model = keras.saving.load_model(folder / f"{stage}.keras")
        p = softmax(model.predict(held_out.images, verbose=0).astype("float64"), axis=1)
        assert figures["accuracy"] == pytest.approx(accuracy_score(held_out.labels, p.argmax(1)))
        classes = range(len(resolved().data.classes))
        expected = log_loss(held_out.labels, p, labels=classes)
        assert figures["nll"] == pytest.approx(expected, rel=1e-4)
        percent = f"{stage} {100 * figures['accuracy']:.2f} %"
        assert percent in (folder / "report.md").read_text()
    assert list(results["validation"]) == ["teacher", "baseline", "student"]


def test_every_saved_model_goes_by_images_as_they_are(run: tuple[Path, dict[str, Any]]) -> None:
    for stage in ("teacher", "baseline", "student"):
        model = loading.load_model(run[0] / f"{stage}.keras")
        saved = model.get_weights()
        recalibrate_batch_norm(model, resolved().train.images, seed=resolved().recipe.seed)
        for ours, theirs in zip(model.get_weights(), saved, strict=True):
            np.testing.assert_array_equal(ours, theirs)


def test_history_has_each_epoch_of_each_stage_once(run: tuple[Path, dict[str, Any]]) -> None:
    rows = history(run[0])
    assert [(row["stage"], int(row["epoch"])) for row in rows] == EPOCHS
    assert all(float(row["val_accuracy"]) > 0 and float(row["seconds"]) > 0 for row in rows)


def test_killed_run_goes_on_and_ends_bit_identical(
    run: tuple[Path, dict[str, Any]], tmp_path: Path
) -> None:
    whole, _ = run
    cut = Notes(dies_at=("student", 2))
    with pytest.raises(KeyboardInterrupt):
        runner.run(resolved(), tmp_path / "cut", cut)
    before = history(tmp_path / "cut")
    resumed = Notes()
    runner.run(resolved(), tmp_path / "cut", resumed)
    assert cut.trained + resumed.trained == EPOCHS
    assert resumed.trained == [("student", 2)]
    after = history(tmp_path / "cut")
    assert after[: len(before)] == before  # their seconds too: no epoch was repeated
    for stage in ("teacher", "baseline", "student"):
        for ours, theirs in zip(
            weights(tmp_path / "cut", stage), weights(whole, stage), strict=True
        ):
            np.testing.assert_array_equal(ours, theirs)
    with (
        np.load(tmp_path / "cut" / "predictions.npz") as ours,
        np.load(whole / "predictions.npz") as theirs,
    ):
        for name in ours:
            np.testing.assert_array_equal(ours[name], theirs[name])


def test_an_epoch_that_early_stopping_selects_is_named(run: tuple[Path, dict[str, Any]]) -> None:
    folder, notes = run[0].parent / "stopped", Notes()
    results = runner.run(resolved(schedule__student__early_stopping=1), folder, notes)
    assert set(results["early_stopping"]) == {"baseline", "student"}
    for name, told in results["early_stopping"].items():
        scores = [float(row["val_accuracy"]) for row in history(folder) if row["stage"] == name]
        assert told == {
            "epochs": len(scores),
            "best_epoch": 1 + int(np.argmax(scores)),
            "monitor": "val_accuracy",
        }
        assert any(f"{name}: the weights of epoch {told['best_epoch']} " in n for n in notes.told)
        said = f"{name} {told['best_epoch']} of {told['epochs']}"
        assert said in (folder / "report.md").read_text()
    assert "early_stopping" not in run[1]
    assert "weights of the last epoch, after" in (run[0] / "report.md").read_text()


def test_finished_run_is_given_back_untrained(run: tuple[Path, dict[str, Any]]) -> None:
    folder, results = run
    content = {path: path.read_bytes() for path in folder.iterdir()}
    notes = Notes()
    assert runner.run(resolved(), folder, notes) == results
    assert notes.trained == []
    assert {path: path.read_bytes() for path in folder.iterdir()} == content


def test_changed_alpha_trains_the_student_alone(run: tuple[Path, dict[str, Any]]) -> None:
    folder, results = run
    notes = Notes()
    changed = runner.run(resolved(loss__alpha=0.0), folder.parent / "zero", notes)
    assert notes.trained == [("student", 1), ("student", 2)]
    assert changed["models"]["teacher"] == results["models"]["teacher"]
    # And with alpha = 0 the student is the baseline, bit by bit.
    zero = folder.parent / "zero"
    for ours, theirs in zip(weights(zero, "student"), weights(zero, "baseline"), strict=True):
        np.testing.assert_array_equal(ours, theirs)


def test_namesake_of_another_architecture_is_not_taken(
    run: tuple[Path, dict[str, Any]], monkeypatch: pytest.MonkeyPatch
) -> None:
    mine = keys(resolved())
    wider = Architecture(((4, 4), (8, 12)), (0.0, 0.0))
    monkeypatch.setitem(ARCHITECTURES, resolved().recipe.student.model, wider)
    theirs = keys(resolved())
    assert {stage for stage in mine if mine[stage] != theirs[stage]} == {"baseline", "student"}
    with pytest.raises(RunError, match="another recipe"):
        runner.run(resolved(), run[0])


def test_neighbour_with_a_damaged_model_is_not_taken(tmp_path: Path) -> None:
    small = resolved(loss__alpha=0.5)
    with pytest.raises(KeyboardInterrupt):
        runner.run(small, tmp_path / "one", Notes(dies_at=("baseline", 1)))
    with (tmp_path / "one" / "teacher.keras").open("ab") as file:
        file.write(b"x")
    notes = Notes(dies_at=("baseline", 1))
    with pytest.raises(KeyboardInterrupt):
        runner.run(small, tmp_path / "two", notes)
    assert notes.trained[:2] == [("teacher", 1), ("teacher", 2)]
    with pytest.raises(RunError, match="changed"):
        runner.run(small, tmp_path / "one")


def test_stage_keys_change_with_their_own_part_alone() -> None:
    before = keys(resolved())
    changed = {
        "loss.temperature": (3.5, {"student"}),
        "schedule.student.learning_rate": (0.01, {"baseline", "student"}),
        "schedule.teacher.learning_rate": (0.01, {"teacher", "student"}),
        "views.shift": (0, {"teacher", "baseline", "student"}),
        "schedule.teacher.cutout": (3, {"teacher", "student"}),
        "schedule.student.cutout": (3, {"baseline", "student"}),
        "schedule.teacher.shift": (3, {"teacher", "student"}),
        "schedule.student.shift": (3, {"baseline", "student"}),
        "data.transfer": (["1", "7"], {"baseline", "student"}),
        "views.distinct": (2, {"baseline", "student"}),
        "schedule.teacher.optimizer": ("muon", {"teacher", "student"}),
        "schedule.student.optimizer": ("adamw", {"baseline", "student"}),
        "schedule.student.learning_rate_schedule": ("cosine", {"baseline", "student"}),
        "schedule.teacher.learning_rate_schedule": ("linear", set()),  # as without it
        "schedule.student.ema": (0.99, {"baseline", "student"}),
        "schedule.teacher.class_weights": ("balanced", {"teacher", "student"}),
        "schedule.student.sampling": ("balanced", {"baseline", "student"}),
        "schedule.student.early_stopping": (1, {"baseline", "student"}),
        "schedule.student.clip_norm": (1.0, {"baseline", "student"}),
        "seed": (1, {"teacher", "baseline", "student"}),
    }
    for key, (value, named) in changed.items():
        others = keys(resolved(**{key.replace(".", "__"): value}))
        assert {stage for stage in before if before[stage] != others[stage]} == named, key


@pytest.mark.parametrize("role", ["teacher", "student"])
def test_an_optimizer_that_does_not_exist_is_refused_before_anything_is_trained(role: str) -> None:
    with pytest.raises(RecipeError, match=rf"schedule\.{role}\.optimizer: .*mean lamb or Lamb"):
        resolved(**{f"schedule__{role}__optimizer": "lambo"})


@pytest.mark.parametrize("name", ["layer_decay", "frozen_epochs"])
@pytest.mark.parametrize("role", ["teacher", "student"])
def test_settings_of_fine_tuning_are_refused_for_a_model_trained_from_the_start(
    role: str, name: str
) -> None:
    value = 1 if name == "frozen_epochs" else 0.5
    with pytest.raises(RecipeError, match=rf"schedule\.{role}\.{name}: expected none .* {value};"):
        resolved(**{f"schedule__{role}__{name}": value})


def test_an_optimizer_of_the_users_own_is_part_of_the_key(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    source = "import keras\ndef make(learning_rate):\n    return keras.optimizers.Lion({})\n"
    Path("made_one.py").write_text(source.format("learning_rate"))
    Path("made_two.py").write_text(source.format("learning_rate, beta_1=0.8"))
    one, two = (
        keys(resolved(schedule__student__optimizer=f"made_{name}:make")) for name in ("one", "two")
    )
    assert {stage for stage in one if one[stage] != two[stage]} == {"baseline", "student"}


def test_changed_temperature_asks_the_teacher_for_a_sample_alone(
    run: tuple[Path, dict[str, Any]], monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[tuple[str, int]] = []
    logits = loading.logits

    def noted(model: keras.Model, images: np.ndarray, precision: str = "float32") -> np.ndarray:
        asked.append((model.name, len(images)))
        return logits(model, images, precision)

    monkeypatch.setattr(loading, "logits", noted)
    runner.run(resolved(loss__temperature=3.0), run[0].parent / "warm")
    # The sample for the stored logits; then the student on the validation images, before and
    # after its batch normalization is measured again; each model once on the test part, once on
    # the validation images.
    teacher, student = (
        [(f"digits_{role}", count) for count in (360, len(resolved().validation))]
        for role in ("teacher", "student")
    )
    assert asked == [("digits_teacher", 64), *2 * student[1:], *teacher, *2 * student]


def test_student_sees_its_distinct_views_and_the_teacher_new_ones(tmp_path: Path) -> None:
    two = resolved(views__distinct=2, schedule__student__epochs=5)
    assert (two.stage("teacher").views.distinct, two.stage("student").views.distinct) == (0, 2)
    assert two.stage("baseline").views == two.stage("student").views
    assert two.stage("student").targets.passes == 2
    assert resolved(views__distinct=9).stage("student").targets.passes == 2
    assert resolved().stage("student").targets.passes == 2
    two.stage("teacher").build().save(tmp_path / "teacher.keras")
    targets, seconds = stages.targets(two.stage("student"), tmp_path / "teacher.keras", Progress())
    assert targets.logits is not None
    assert targets.logits.missing(3) == [2]
    assert seconds == targets.logits.seconds(2) > 0


def test_a_role_may_have_shifts_of_its_own(tmp_path: Path) -> None:
    plain = resolved(views__shift=0)
    own = resolved(views__shift=0, schedule__teacher__shift=2)
    assert [own.stage(stage).views.shift for stage in ("teacher", "baseline", "student")] == [
        2,
        0,
        0,
    ]
    # The same views are the same training, whichever way they are said.
    assert keys(own)["baseline"] == keys(plain)["baseline"]
    assert (
        keys(own)["teacher"] == keys(resolved(views__shift=2))["teacher"] != keys(plain)["teacher"]
    )
    said_twice = resolved(views__shift=1, schedule__teacher__shift=1, schedule__student__shift=1)
    assert keys(said_twice) == keys(resolved(views__shift=1))
    still = resolved(views__shift=2, schedule__student__shift=0)
    still.stage("teacher").build().save(tmp_path / "teacher.keras")
    targets, _ = stages.targets(still.stage("student"), tmp_path / "teacher.keras", Progress())
    assert targets.logits.origin.shift == 0  # the teacher is asked of what the student sees
    with pytest.raises(ModelError, match=r"teacher\.shift: .* 9"):
        resolved(schedule__teacher__shift=9)


def test_each_role_trains_on_its_own_shifts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[tuple[str, int]] = []
    changed, notes = augmentation.changed, Notes()

    def noted(*arrays: np.ndarray, **settings: Any) -> np.ndarray:
        seen.append((notes.name, settings["shift"]))
        return changed(*arrays, **settings)

    monkeypatch.setattr(augmentation, "changed", noted)
    runner.run(resolved(views__shift=0, schedule__teacher__shift=2), tmp_path / "run", notes)
    assert set(seen) == {
        ("teacher", 2),
        ("baseline", 0),
        ("caching teacher logits", 0),
        ("student", 0),
    }


def test_students_see_the_transferred_classes_alone(tmp_path: Path) -> None:
    sevens = resolved(data__transfer=["7", "8"])
    labels = resolved().train.labels
    for stage, classes in (("teacher", range(10)), ("baseline", [7, 8]), ("student", [7, 8])):
        assert set(sevens.stage(stage).train.labels) == set(classes)
        assert len(sevens.stage(stage).train) == np.isin(labels, classes).sum()
    for part in (sevens.validation, sevens.data.test):
        assert set(part.labels) == set(range(10))
    assert list(sevens.stages[-1].unseen) == [0, 1, 2, 3, 4, 5, 6, 9]
    # A baseline that has seen no other class never names one, and all know ten.
    results = runner.run(sevens, tmp_path / "run")
    with np.load(tmp_path / "run" / "predictions.npz") as stored:
        answers = dict(stored)
    assert answers["student"].shape == answers["baseline"].shape == (360, 10)
    assert results["data"]["transfer"] == len(sevens.stages[-1].train)
    test = sevens.data.test.labels
    student = loading.load_model(tmp_path / "run" / "student.keras")
    held_out = loading.logits(student, sevens.validation.images)
    told = results["corrected"]["student"]
    expected = bias_correction.find(
        held_out, sevens.validation.labels, list(sevens.stages[-1].unseen)
    ).offset
    assert told["offset"] == expected  # chosen on validation labels, not on those of the test
    moved = answers["student"].copy()
    moved[:, list(sevens.stages[-1].unseen)] += told["offset"]
    assert told["accuracy"] == pytest.approx(accuracy_score(test, moved.argmax(1)))
    assert f"({told['offset']:+.2f})" in (tmp_path / "run" / "report.md").read_text()


def test_all_classes_are_transferred_unless_it_is_said_otherwise() -> None:
    every = resolved(data__transfer=[str(k) for k in range(10)])
    assert every.stages[-1].unseen == resolved().stages[-1].unseen == ()
    np.testing.assert_array_equal(every.stage("student").train.images, resolved().train.images)


def test_transfer_of_an_unknown_class_is_refused() -> None:
    with pytest.raises(RecipeError, match=r"data\.transfer: .* 11"):
        resolved(data__transfer=["7", "11"])


def test_without_a_share_in_the_loss_the_teacher_is_not_asked(tmp_path: Path) -> None:
    targets, seconds = stages.targets(
        resolved(loss__alpha=0.0).stage("student"), tmp_path / "absent.keras", Progress()
    )
    assert (targets.logits, seconds) == (None, 0.0)


def test_folder_of_another_recipe_is_refused_and_left_as_it_is(
    run: tuple[Path, dict[str, Any]],
) -> None:
    folder, _ = run
    content = {path: path.read_bytes() for path in folder.iterdir()}
    with pytest.raises(RunError, match="another recipe"):
        runner.run(resolved(seed=3), folder)
    assert {path: path.read_bytes() for path in folder.iterdir()} == content


def test_baseline_and_first_student_begin_alike_and_further_generations_elsewhere() -> None:
    experiment = resolved(loss__generations=2)
    names = ("baseline", "student-1", "student")
    baseline, first, second = (experiment.stage(name).build().get_weights() for name in names)
    for a, b in zip(baseline, first, strict=True):
        np.testing.assert_array_equal(a, b)
    assert any((a != b).any() for a, b in zip(baseline, second, strict=True))


def test_folder_of_something_else_is_refused(tmp_path: Path) -> None:
    (tmp_path / "letters.txt").write_text("mine")
    with pytest.raises(RunError, match="run folder"):
        runner.run(resolved(), tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["letters.txt"]
    with pytest.raises(RunError):
        runner.run(resolved(), tmp_path / "letters.txt")


def test_folder_of_a_run_killed_at_its_very_start_is_gone_on_with(tmp_path: Path) -> None:
    (tmp_path / ".lock").touch()
    (tmp_path / ".run-12ab34cd.json").write_text("{")
    with pytest.raises(KeyboardInterrupt):
        runner.run(resolved(), tmp_path, Notes(dies_at=("teacher", 1)))
    (tmp_path / "recipe.toml").unlink()
    with pytest.raises(KeyboardInterrupt):
        runner.run(resolved(), tmp_path, Notes(dies_at=("teacher", 1)))
    assert (tmp_path / "recipe.toml").exists()


def test_teacher_is_taken_from_a_run_or_a_file(
    run: tuple[Path, dict[str, Any]], tmp_path: Path
) -> None:
    folder, _ = run
    for source in (folder, folder / "teacher.keras"):
        notes = Notes(dies_at=("student", 1))
        small = resolved(teacher__file=str(source))
        with pytest.raises(KeyboardInterrupt):
            runner.run(small, tmp_path / source.name / "run", notes)
        assert [stage for stage, _ in notes.trained] == ["baseline", "baseline"]
        copied = tmp_path / source.name / "run" / "teacher.keras"
        # The same in all that its answers depend on, so that what it was asked serves again.
        digests = {keras_digest(loading.load_model(f)) for f in (copied, folder / copied.name)}
        assert len(digests) == 1


def test_teacher_that_does_not_fit_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="teacher"):
        resolved(teacher__file=str(tmp_path / "absent.keras"))
    layers = [keras.Input((8, 8, 3)), keras.layers.Flatten(), keras.layers.Dense(10)]
    keras.Sequential(layers).save(tmp_path / "color.keras")
    with pytest.raises(ModelError, match="3 channels"):
        resolved(teacher__file=str(tmp_path / "color.keras"))
    layers = [keras.Input((8, 8, 1)), keras.layers.Flatten(), keras.layers.Dense(3)]
    keras.Sequential(layers).save(tmp_path / "three.keras")
    with pytest.raises(ModelError, match="10"):
        resolved(teacher__file=str(tmp_path / "three.keras"))


@pytest.mark.parametrize(
    "key", ["views__shift", "schedule__teacher__cutout", "schedule__student__cutout"]
)
def test_shift_or_cutout_over_the_whole_image_is_refused(key: str) -> None:
    with pytest.raises(ModelError, match=key.replace("__", ".") + ": .* 8 pixels, found 8"):
        resolved(**{key: 8})


def test_student_and_baseline_begin_alike_and_the_teacher_elsewhere() -> None:
    small = resolved()
    baseline, student = small.stage("baseline").build(), small.stage("student").build()
    for ours, theirs in zip(baseline.get_weights(), student.get_weights(), strict=True):
        np.testing.assert_array_equal(ours, theirs)


def test_plan_of_data_that_is_not_here_uses_its_known_sizes(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.delenv("TUTELAGE_DATA", raising=False)
    plan = runner.plan(recipe.load("cifar10"))
    assert not plan["data"]["found"]
    assert plan["models"]["teacher"]["parameters"] == 2_201_418
    assert plan["models"]["student"]["parameters"] <= 330_000
    assert plan["models"]["teacher"]["macs"] == 153_815_552
    assert plan["seconds"] == pytest.approx(sum(m["seconds"] for m in plan["models"].values()))


def test_distillation_loss_is_that_of_the_recipe(tmp_path: Path) -> None:
    cutouts = {"schedule__teacher__cutout": 4, "schedule__student__cutout": 3}
    small = resolved(loss__temperature=2.5, loss__alpha=0.3, **cutouts)
    small.stage("teacher").build().save(tmp_path / "teacher.keras")
    targets, _ = stages.targets(small.stage("student"), tmp_path / "teacher.keras", Progress())
    (loss,) = targets.losses
    assert isinstance(loss, losses.KD)
    assert (loss.temperature, targets.alpha, targets.weights) == (2.5, 0.3, [1.0])
    assert targets.logits.origin.cutout == 3  # the teacher is asked of what the student sees


@pytest.mark.parametrize(
    ("settings", "loss"),
    [
        ({"name": "standardized-kd"}, losses.StandardizedKD(temperature=3.0)),
        ({"name": "dkd"}, losses.DKD(temperature=3.0)),
        ({"name": "dkd", "beta": 2.0}, losses.DKD(beta=2.0, temperature=3.0)),
        ({"name": "nkd", "gamma": 0.5}, losses.NKD(gamma=0.5, temperature=3.0)),
        ({"name": "dist", "beta": 2.0, "gamma": 0.5}, losses.DIST(2.0, 0.5, 3.0)),
    ],
    ids=lambda x: x["name"] if isinstance(x, dict) else "",
)
def test_every_method_teaches_by_its_own_loss(
    run: tuple[Path, dict[str, Any]],
    settings: dict[str, object],
    loss: keras.distillation.DistillationLoss,
) -> None:
    told = {f"loss__{key}": value for key, value in settings.items()}
    stage = resolved(loss__temperature=3.0, **told).stage("student")
    targets, _ = stages.targets(stage, run[0] / "teacher.keras", Progress())
    (made,) = targets.losses
    assert type(made) is type(loss)
    assert made.get_config() == loss.get_config()


def test_a_run_by_another_method_trains_its_student_alone(
    run: tuple[Path, dict[str, Any]], tmp_path: Path
) -> None:
    notes, folder = Notes(), run[0].with_name("dkd")
    results = runner.run(resolved(loss__name="dkd"), folder, notes)
    assert notes.trained == [("student", 1), ("student", 2)]
    assert results["recipe"]["loss"]["name"] == "dkd"
    theirs = weights(run[0], "student")
    assert any((a != b).any() for a, b in zip(weights(folder, "student"), theirs, strict=True))


@pytest.mark.parametrize("name", ["dkd", "nkd"])
def test_methods_that_compare_other_classes_are_refused_before_training_where_there_is_one(
    name: str, tmp_path: Path
) -> None:
    random = np.random.default_rng(0)
    arrays = {
        f"x_{part}": random.integers(0, 256, (40, 8, 8, 1), np.uint8) for part in ("train", "test")
    }
    arrays |= {f"y_{part}": np.arange(40) % 2 for part in ("train", "test")}
    np.savez(tmp_path / "two.npz", **arrays)
    with pytest.raises(ModelError, match=f"2 classes, .*{name}"):
        resolved(data__name="folder", data__path=str(tmp_path / "two.npz"), loss__name=name)
