"""Training one model: the schedule, the checkpoint, going on, and stopping at nonsense."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import keras
import numpy as np
import pytest
from keras import ops

from tutelage import losses
from tutelage.data import augmentation
from tutelage.data.datasets import Part
from tutelage.distillation.distiller import Distiller
from tutelage.distillation.logit_cache import LogitCache, Origin
from tutelage.errors import LogitsError, RunError, TrainingError
from tutelage.kernels import accelerate
from tutelage.models import zoo
from tutelage.progress import EpochLog, Progress
from tutelage.recipe import Schedule, Views
from tutelage.training import callbacks, checkpoint, trainer
from tutelage.training.accumulation import parts_per_step
from tutelage.training.batch_norm import recalibrate_batch_norm
from tutelage.training.batches import ViewedBatches, steps_per_epoch
from tutelage.training.checkpoint import epochs_done
from tutelage.training.schedules import TriangularSchedule
from tutelage.training.trainer import DistillationTargets

RNG = np.random.default_rng(0)
TRAIN = Part(RNG.integers(0, 256, (40, 8, 8, 1), dtype=np.uint8), np.arange(40) % 4)
VALIDATION = Part(RNG.integers(0, 256, (12, 8, 8, 1), dtype=np.uint8), np.arange(12) % 4)
SCHEDULE = Schedule(epochs=3, batch_size=8, learning_rate=0.05)


def student(seed: int = 0) -> keras.Model:
    # Its dropout draws from a seed that a resumed run has to go on with.
    return zoo.build("digits-teacher", images=TRAIN.images, classes=4, seed=seed)


def fit(model: keras.Model, checkpoint: Path, **changed: object) -> list[EpochLog]:
    settings = {
        "schedule": SCHEDULE,
        "views": Views(flip=True, shift=1),
        "seed": 0,
        "precision": "float32",
        "checkpoint": checkpoint,
        "key": "mine",
        "train": TRAIN,
    }
    return trainer.fit(model, validation=VALIDATION, **(settings | changed))


def known(folder: Path, count: int = SCHEDULE.epochs) -> LogitCache:
    """What another model says of the training images."""
    teacher = student(seed=9)
    seen = {"seed": 0, "flip": True, "shift": 1, "cutout": 0}
    origin = Origin("t", "i", **seen, precision="float32", shape=(40, 4))
    held = LogitCache(folder / "knowledge", origin)
    held.ask(lambda images: teacher.predict(images, verbose=0), TRAIN.images, count)
    return held


def values(model: keras.Model) -> list[np.ndarray]:
    return [ops.convert_to_numpy(v.value).copy() for v in model.variables]


def assert_identical(one: list[np.ndarray], other: list[np.ndarray]) -> None:
    for a, b in zip(one, other, strict=True):
        np.testing.assert_array_equal(a, b)


class Killed(Exception):
    pass


class KilledAt(Progress):
    """Stands for a process that dies in the middle of an epoch."""

    def __init__(self, epoch: int, step: int):
        self.at, self.now = (epoch, step), 1

    def step(self, step: int, logs: object) -> None:
        if (self.now, step) == self.at:
            raise Killed

    def epoch(self, row: EpochLog) -> None:
        self.now = int(row["epoch"]) + 1


def test_learning_rate_is_a_triangle() -> None:
    rate = TriangularSchedule(peak=2.0, steps=99, warmup=0.25)
    at = [float(rate(step)) for step in range(99)]
    expected = [min(s / 25, (100 - s) / 75) * 2 for s in range(1, 100)]
    np.testing.assert_allclose(at, expected, rtol=1e-5)
    assert max(at) == pytest.approx(2.0, rel=0.05)
    assert float(TriangularSchedule(1.0, 10, 0.0)(0)) == pytest.approx(10 / 11)


def test_training_twice_gives_the_same_bits(tmp_path: Path) -> None:
    one, other = student(), student()
    fit(one, tmp_path / "one.npz")
    fit(other, tmp_path / "other.npz")
    assert_identical(values(one), values(other))
    changed = student()
    fit(changed, tmp_path / "changed.npz", seed=1)
    assert any((a != b).any() for a, b in zip(values(one), values(changed), strict=True))


@pytest.mark.parametrize(("epoch", "step"), [(1, 3), (2, 1), (3, 5)])
def test_killed_run_ends_bit_identical_and_repeats_no_epoch(
    tmp_path: Path, epoch: int, step: int
) -> None:
    whole = student()
    history = fit(whole, tmp_path / "whole.npz")
    with pytest.raises(Killed):
        fit(student(), tmp_path / "cut.npz", progress=KilledAt(epoch, step))
    assert epochs_done(tmp_path / "cut.npz") == epoch - 1
    kept = checkpoint._read(tmp_path / "cut.npz")[0]["history"] if epoch > 1 else []
    resumed = student()
    rows = fit(resumed, tmp_path / "cut.npz")
    assert_identical(values(whole), values(resumed))
    assert [row["epoch"] for row in rows] == [1, 2, 3]
    assert rows[: epoch - 1] == kept  # their seconds too: they were not run again
    for ours, theirs in zip(rows, history, strict=True):
        assert ours | {"seconds": 0} == theirs | {"seconds": 0}


def test_dropout_stops_after_its_part_of_the_epochs_and_the_model_keeps_its_rates(
    tmp_path: Path,
) -> None:
    half = Schedule(epochs=4, batch_size=8, learning_rate=0.05, dropout=0.5)
    seen: list[list[float]] = []
    model = student()
    layers = [layer for layer in model.layers if isinstance(layer, keras.layers.Dropout)]
    rates = [layer.rate for layer in layers]
    assert all(rates)
    assert rates

    class Watch(Progress):
        def step(self, step: int, logs: object) -> None:
            if step == 1:
                seen.append([layer.rate for layer in layers])

    fit(model, tmp_path / "c.npz", schedule=half, progress=Watch())
    assert seen == [rates, rates, [0] * len(rates), [0] * len(rates)]
    assert [layer.rate for layer in layers] == rates
    # Until then nothing differs, and afterwards what can be learned is learned faster.
    labels = np.arange(400) % 4
    noise = RNG.integers(0, 100, (400, 8, 8, 1))
    bright = Part((noise + 40 * labels[:, None, None, None]).astype(np.uint8), labels)
    rows = [
        fit(student(), tmp_path / f"{d}.npz", schedule=replace(half, dropout=d), train=bright)
        for d in (0.5, 1.0)
    ]
    assert [row["loss"] for row in rows[0]][:2] == [row["loss"] for row in rows[1]][:2]
    assert rows[0][2]["loss"] < rows[1][2]["loss"]
    with pytest.raises(Killed):
        fit(student(), tmp_path / "k.npz", schedule=half, progress=KilledAt(4, 2))
    resumed = student()
    fit(resumed, tmp_path / "k.npz", schedule=half)
    assert_identical(values(model), values(resumed))


@pytest.mark.parametrize("optimizer", ["sgd", "muon"])
def test_limits_on_norms_hold_while_it_trains(optimizer: str, tmp_path: Path) -> None:
    def norms(name: str) -> np.ndarray:
        architecture = zoo.ARCHITECTURES[name]
        model = zoo.build(name, images=TRAIN.images, classes=4, seed=0)
        # So fast that weights would soon be larger.
        rapid = replace(SCHEDULE, optimizer=optimizer, learning_rate=1.0, weight_decay=0.0)
        fit(model, tmp_path / name, schedule=rapid)
        assert isinstance(architecture, zoo.MLP)
        hidden = [layer for layer in model.layers if layer.name in ("hidden1", "hidden2")]
        assert [layer.units for layer in hidden] == list(architecture.units)
        return np.stack(
            [np.linalg.norm(ops.convert_to_numpy(x.kernel.value), axis=0) for x in hidden]
        )

    limited = zoo.MLP((12, 12), (0.2, 0.5, 0.5), max_norm=0.5)
    free = zoo.MLP((12, 12), (0.2, 0.5, 0.5))
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(zoo.ARCHITECTURES, "mlp-30", limited)
        patch.setitem(zoo.ARCHITECTURES, "mlp-300", free)
        assert norms("mlp-30").max() <= 0.5 + 1e-5
        assert norms("mlp-300").max() > 0.6


def test_finished_training_is_not_repeated(tmp_path: Path) -> None:
    fit(student(), tmp_path / "c.npz")
    again = student()
    fit(again, tmp_path / "c.npz", progress=KilledAt(1, 1))
    assert epochs_done(tmp_path / "c.npz") == 3


def test_alpha_zero_is_the_baseline_to_the_bit(tmp_path: Path) -> None:
    baseline, pupil = student(), student()
    fit(baseline, tmp_path / "b.npz")
    for name, held in (("none", None), ("held", known(tmp_path))):
        targets = DistillationTargets(held, [losses.KD()], 1.0, alpha=0.0)
        fit(pupil, tmp_path / f"{name}.npz", targets=targets)
        assert_identical(values(baseline), values(pupil))
        pupil = student()


def test_student_sees_the_views_of_the_baseline(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[list[bytes]] = []
    changed = augmentation.changed

    def noted(*args: object, **kwargs: object) -> np.ndarray:
        batch = changed(*args, **kwargs)
        seen[-1].append(batch.tobytes())
        return batch

    targets = DistillationTargets(known(tmp_path), [losses.KD()], 1.0, alpha=0.9)
    monkeypatch.setattr(augmentation, "changed", noted)
    for name, teacher in (("baseline", None), ("student", targets)):
        seen.append([])
        fit(student(), tmp_path / f"{name}.npz", targets=teacher)
    # Keras looks at the first batch once more before it begins.
    baseline, pupil = (list(dict.fromkeys(batches)) for batches in seen)
    assert baseline == pupil
    assert (len(baseline), len(seen[0])) == (15, 16)


def test_student_learns_of_each_view_what_the_teacher_said_of_it(tmp_path: Path) -> None:
    def teacher(images: np.ndarray) -> np.ndarray:
        return images[:, 3, :4, 0] / np.float32(64)  # exact in float16

    stored, asked = student(), student()
    seen = {"seed": 0, "flip": True, "shift": 1, "cutout": 3}
    origin = Origin("t", "i", **seen, precision="float32", shape=(40, 4))
    held = LogitCache(tmp_path / "knowledge", origin)
    held.ask(teacher, TRAIN.images, SCHEDULE.epochs)
    targets = DistillationTargets(held, [losses.KD()], 1.0, alpha=0.9)
    fit(stored, tmp_path / "s.npz", targets=targets, schedule=replace(SCHEDULE, cutout=3))
    distiller = Distiller(
        student=accelerate.accelerate(asked),
        teacher=None,
        distillation_losses=losses.KD(),
        alpha=0.9,
    )
    distiller.compile(trainer._optimizer(SCHEDULE, steps_per_epoch(SCHEDULE, len(TRAIN)), parts=1))
    for epoch in range(SCHEDULE.epochs):
        order = augmentation.order(len(TRAIN), seed=0, epoch=epoch)
        for index in order.reshape(-1, SCHEDULE.batch_size):
            x = augmentation.view(TRAIN.images, index, epoch=epoch, **seen)
            distiller.train_on_batch(
                {"images": x, "teacher_logits": teacher(x)}, TRAIN.labels[index]
            )
    assert_identical(values(stored), values(asked))


def test_student_sees_as_many_views_as_it_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shown: list[int] = []
    changed = augmentation.changed

    def noted(*args: object, epoch: int, **kwargs: object) -> np.ndarray:
        shown.append(epoch)
        return changed(*args, epoch=epoch, **kwargs)

    targets = DistillationTargets(known(tmp_path, count=2), [losses.KD()], 1.0, alpha=0.9)
    monkeypatch.setattr(augmentation, "changed", noted)
    views = Views(flip=True, shift=1, distinct=2)
    fit(student(), tmp_path / "s.npz", targets=targets, views=views)
    # Keras looks at the first batch once more.
    assert shown == [0] * (1 + 5) + [1] * 5 + [0] * 5
    with pytest.raises(LogitsError, match=r"00002\.npy"):
        fit(student(), tmp_path / "t.npz", targets=targets)


def test_student_is_drawn_to_its_teacher(tmp_path: Path) -> None:
    targets = DistillationTargets(known(tmp_path), [losses.KD()], 1.0, alpha=1.0)
    rows = fit(student(), tmp_path / "s.npz", targets=targets)
    assert rows[-1]["distillation_loss"] < rows[0]["distillation_loss"]


def test_settled_normalization_gives_what_its_layers_promise(tmp_path: Path) -> None:
    model = student()
    fit(model, tmp_path / "c.npz")
    norms = [x for x in model.layers if isinstance(x, keras.layers.BatchNormalization)]
    assert len(norms) == 5  # behind four convolutions and a dense layer
    trained = [ops.convert_to_numpy(v.value).copy() for v in model.trainable_variables]
    recalibrate_batch_norm(model, TRAIN.images, seed=0)
    for layer in norms:
        shown = keras.Model(model.inputs, layer.output).predict(TRAIN.images, verbose=0)
        shown = shown.reshape(-1, shown.shape[-1]).astype(np.float64)
        beta, gamma, variance = (
            ops.convert_to_numpy(v) for v in (layer.beta, layer.gamma, layer.moving_variance)
        )
        np.testing.assert_allclose(shown.mean(axis=0), beta, atol=1e-4)
        expected = np.abs(gamma) * np.sqrt(variance / (variance + layer.epsilon))
        np.testing.assert_allclose(shown.std(axis=0), expected, atol=1e-4)
    assert_identical(trained, [ops.convert_to_numpy(v.value) for v in model.trainable_variables])
    settled = values(model)
    recalibrate_batch_norm(model, TRAIN.images, seed=0)
    assert_identical(settled, values(model))


def test_loss_that_is_not_finite_stops_at_its_step_and_keeps_the_epochs_before(
    tmp_path: Path,
) -> None:
    class Poison(Progress):
        def epoch(self, row: EpochLog) -> None:
            if row["epoch"] == 2:
                model.trainable_variables[0].assign(np.full((3, 3, 1, 32), np.nan))

    model = student()
    with pytest.raises(TrainingError, match=r"step 1 .* 3:"):
        fit(model, tmp_path / "c.npz", progress=Poison())
    assert epochs_done(tmp_path / "c.npz") == 2


def test_the_step_is_named_though_values_are_read_later(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Poison(Progress):
        def step(self, step: int, logs: object) -> None:
            if step == 2:
                model.trainable_variables[0].assign(np.full((3, 3, 1, 32), np.nan))

    model = student()
    monkeypatch.setattr(callbacks, "_READ_SECONDS", 1e9)  # at the epoch's end alone
    with pytest.raises(TrainingError, match=r"step 3 .* 1:"):
        fit(model, tmp_path / "c.npz", progress=Poison())


def test_checkpoint_of_another_training_is_refused_and_kept(tmp_path: Path) -> None:
    path = tmp_path / "c.npz"
    fit(student(), path)
    content = path.read_bytes()
    with pytest.raises(RunError, match="another training"):
        fit(student(), path, key="other")
    assert path.read_bytes() == content


def test_damaged_checkpoint_is_named(tmp_path: Path) -> None:
    path = tmp_path / "c.npz"
    fit(student(), path)
    path.write_bytes(path.read_bytes()[:5000])
    with pytest.raises(RunError, match=r"c\.npz"):
        fit(student(), path)


def test_fewer_images_than_a_batch_are_one_batch(tmp_path: Path) -> None:
    schedule = Schedule(epochs=1, batch_size=4096, learning_rate=0.05)
    assert len(fit(student(), tmp_path / "c.npz", schedule=schedule)) == 1
    assert steps_per_epoch(schedule, 40) == 1
    assert steps_per_epoch(SCHEDULE, 43) == 5


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="needs /proc")
def test_a_finished_training_gives_its_memory_back(tmp_path: Path) -> None:
    script = f"""
import pathlib
import numpy as np
from tutelage.models import zoo
from tutelage.training import trainer
from tutelage.data.datasets import Part
from tutelage.recipe import Schedule, Views

def megabytes(what):
    lines = open("/proc/self/status").read().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(what)) / 1024

images = np.zeros((512, 32, 32, 3), np.uint8)
part = Part(images, np.arange(512) % 10)
model = zoo.build("student-300k", images=images, classes=10, seed=0)
before = megabytes("VmRSS")
trainer.fit(model, part, part, schedule=Schedule(epochs=1, batch_size=256, learning_rate=0.01),
    views=Views(), seed=0, precision="float32",
    checkpoint=pathlib.Path({str(tmp_path / "checkpoint")!r}), key="mine")
print(before, megabytes("VmRSS"), megabytes("VmHWM"))
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    before, after, most = map(float, done.stdout.split())
    assert most - before > 200  # feature maps
    assert after - before < (most - before) / 3


def linear_network() -> keras.Model:
    """A network that computes each image's output from that image alone."""
    inputs = keras.Input((8, 8, 1), dtype="uint8")
    x = keras.layers.Rescaling(1 / 255, dtype="float32")(inputs)
    x = keras.layers.Conv2D(4, 3, activation="relu", kernel_initializer=seeded(1))(x)
    x = keras.layers.Flatten()(x)
    return keras.Model(inputs, keras.layers.Dense(4, kernel_initializer=seeded(2))(x))


def seeded(seed: int) -> keras.initializers.Initializer:
    return keras.initializers.GlorotUniform(seed=seed)


@pytest.mark.parametrize(
    ("optimizer", "parts", "norm"),
    [("sgd", 2, None), ("sgd", 4, 0.5), ("muon", 2, 0.5), ("muon", 4, None)],
)
def test_a_step_in_equal_parts_is_the_same_step(
    tmp_path: Path, optimizer: str, parts: int, norm: float | None
) -> None:
    logits = known(tmp_path)
    weight = keras.optimizers.schedules.PolynomialDecay(1.0, 15, 0.1)
    runs = []
    for accumulation in (1, parts):
        model = linear_network()
        targets = DistillationTargets(logits, [losses.KD()], [weight], alpha=0.5)
        schedule = replace(
            SCHEDULE,
            optimizer=optimizer,
            gradient_accumulation_steps=accumulation,
            clip_norm=norm,
        )
        seen: list[int] = []

        class Watch(Progress):
            def step(self, step: int, logs: object, seen: list[int] = seen) -> None:
                seen.append(step)

        rows = fit(
            model,
            tmp_path / f"{accumulation}.npz",
            schedule=schedule,
            targets=targets,
            progress=Watch(),
        )
        assert seen == [step for step in range(1, 6) for _ in range(accumulation)] * 3
        runs.append((values(model), rows))
    (expected, history), (found, rows) = runs
    for one, other in zip(found, expected, strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-4, atol=1e-5)
    for row, former in zip(rows, history, strict=True):
        assert row["learning_rate"] == pytest.approx(former["learning_rate"])
        assert row["loss"] == pytest.approx(former["loss"], rel=1e-4)


KERAS_OPTIMIZERS = [
    name
    for name, kind in vars(keras.optimizers).items()
    if isinstance(kind, type)
    and issubclass(kind, keras.optimizers.Optimizer)
    and name not in ("Optimizer", "LossScaleOptimizer", "MultiOptimizer")
]


@pytest.mark.parametrize("name", [*KERAS_OPTIMIZERS, "adamw", "lamb"])
def test_each_optimizer_of_keras_trains_and_resumes_within_a_step(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    monkeypatch.setattr(callbacks, "SAVE_SECONDS", 0.0)
    schedule = Schedule(
        epochs=2, batch_size=8, learning_rate=0.01, optimizer=name, gradient_accumulation_steps=2
    )
    whole, resumed = linear_network(), linear_network()
    before = values(whole)
    history = fit(whole, tmp_path / "whole.npz", schedule=schedule)
    with pytest.raises(Killed):
        fit(linear_network(), tmp_path / "cut.npz", schedule=schedule, progress=KilledAt(2, 3))
    rows = fit(resumed, tmp_path / "cut.npz", schedule=schedule)
    assert_identical(values(whole), values(resumed))
    assert rows[1]["loss"] == history[1]["loss"]
    assert all((a != b).any() for a, b in zip(values(whole), before, strict=True))


def test_a_clipped_gradient_is_another_training_only_where_it_is_larger(tmp_path: Path) -> None:
    found = []
    for norm in (None, 1e6, 0.1):
        model = linear_network()
        fit(model, tmp_path / f"{norm}.npz", schedule=replace(SCHEDULE, clip_norm=norm))
        found.append(values(model))
    for free, wide, narrow in zip(*found, strict=True):
        np.testing.assert_allclose(wide, free, rtol=1e-6)
        assert (narrow != free).any()


def test_parts_of_a_step_hold_all_its_images_and_differ_by_at_most_one(tmp_path: Path) -> None:
    batches = ViewedBatches(TRAIN, 4, replace(SCHEDULE, batch_size=10), Views(), seed=0, parts=4)
    whole = ViewedBatches(TRAIN, 4, replace(SCHEDULE, batch_size=10), Views(), seed=0)
    assert [len(batches[number][1]) for number in range(16)] == [2, 3, 2, 3] * 4
    for step in range(4):
        parts = [batches[4 * step + part] for part in range(4)]
        for value, expected in zip(zip(*parts, strict=True), whole[step], strict=True):
            np.testing.assert_array_equal(np.concatenate(value), expected)


def test_a_run_killed_in_the_middle_of_a_step_ends_bit_identical(tmp_path: Path) -> None:
    schedule = replace(SCHEDULE, gradient_accumulation_steps=3)
    whole, resumed = student(), student()
    fit(whole, tmp_path / "whole.npz", schedule=schedule)
    with pytest.raises(Killed):
        fit(student(), tmp_path / "cut.npz", schedule=schedule, progress=KilledAt(2, 2))
    fit(resumed, tmp_path / "cut.npz", schedule=schedule)
    assert_identical(values(whole), values(resumed))


@pytest.mark.parametrize(
    ("pixels", "teacher", "student"), [(32, 1, 1), (100, 5, 4), (128, 9, 6), (400, 16, 16)]
)
def test_activations_of_a_step_are_bounded(pixels: int, teacher: int, student: int) -> None:
    images = np.zeros((1, pixels, pixels, 3), np.uint8)
    shape = images.shape[1:]
    models = [
        zoo.build(name, images=images, classes=4, seed=0) for name in ("teacher-2m", "student-300k")
    ]
    assert [parts_per_step([model], shape, 128) for model in models] == [teacher, student]
    assert parts_per_step(models, shape, 128) >= teacher
    assert parts_per_step(models, shape, 5) == 1
