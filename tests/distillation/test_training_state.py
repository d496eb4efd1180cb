"""Keras' own callbacks on a distiller: an interrupted training goes on as in plain Keras."""

import keras
import numpy as np
import pytest

from tests.distillation.test_distiller import BACKENDS, X, Y, deep, pair, run_python, same, weights
from tutelage.kernels import accelerate
from tutelage.losses import KD, FitNet

callbacks = keras.callbacks


class LearnedWeight(keras.layers.Layer, keras.distillation.DistillationLoss):
    """A loss with a weight that is trained."""

    def __init__(self):
        super().__init__()
        self.scale = self.add_weight((), "ones", name="scale")
        self.built = True

    def compute_loss(self, teacher_outputs, student_outputs, **kwargs):
        difference = keras.ops.mean((teacher_outputs - student_outputs) ** 2)
        return keras.ops.exp(-self.scale) * difference + self.scale


class Interruption(callbacks.Callback):
    """Ends training as Ctrl-C does, after two epochs have been saved."""

    def on_epoch_begin(self, epoch, logs=None):
        if epoch == 2:
            raise KeyboardInterrupt


def student(seed, policy="float32"):
    """Dropout, batch statistics and a layer of the teacher's width to read."""
    init = keras.initializers.RandomNormal(stddev=0.5, seed=seed)
    options = {"kernel_initializer": init, "dtype": policy}
    return keras.Sequential(
        [
            keras.Input((4,)),
            keras.layers.Dense(5, name="inner", **options),
            keras.layers.BatchNormalization(dtype=policy),
            keras.layers.Dropout(0.4, seed=seed, dtype=policy),
            keras.layers.Dense(3, name="head", **options),
        ]
    )


def plain():
    model = deep(1, dropout=0.0)  # whose seed Keras does not save
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(keras.optimizers.Adam(0.01), loss)
    return model


def distiller(policy="float32", fast=False, ema=False):
    """All that training changes: a student, a projection, a step count, a learned weight."""
    made = student(1, policy)
    rise = keras.optimizers.schedules.PolynomialDecay(0.0, 10, 1.0)
    distiller = pair(
        student=accelerate.accelerate(made) if fast else made,
        teacher=student(2),
        distillation_losses=[KD(2.0), FitNet("inner", "inner"), LearnedWeight()],
        distillation_loss_weights=[1.0, rise, 0.1],
        seed=3,
    )
    distiller.compile(keras.optimizers.Adam(0.01, use_ema=ema), metrics=["accuracy"])
    return distiller


def fit(model, *extra, epochs=4):
    options = {"batch_size": 8, "shuffle": False, "verbose": 0}
    model.fit(X, Y, epochs=epochs, callbacks=list(extra), **options)
    return model


def state(model):
    kept = weights(getattr(model, "student", model)) + weights(model.optimizer)
    return kept + [keras.ops.convert_to_numpy(v) for v in getattr(model, "own_variables", [])]


@pytest.mark.parametrize(
    ("make", "options"),
    [
        (plain, {}),
        (distiller, {}),
        (distiller, {"fast": True}),
        (distiller, {"policy": "mixed_float16"}),
        (distiller, {"policy": "bfloat16"}),
        (distiller, {"ema": True}),
    ],
)
def test_a_backup_goes_on_to_the_bit(make, options, tmp_path):
    def backup():
        return callbacks.BackupAndRestore(tmp_path / "backup")

    with pytest.raises(KeyboardInterrupt):
        fit(make(**options), backup(), Interruption())
    resumed, whole = fit(make(**options), backup()), fit(make(**options))
    assert same(state(resumed), state(whole))
    assert not same(state(whole), state(fit(make(**options), epochs=3)))


@BACKENDS
def test_and_on_other_backends(tmp_path, backend):
    script = """
from pathlib import Path
import tests.distillation.test_training_state as tests
tests.test_a_backup_goes_on_to_the_bit(tests.distiller, {}, Path("."))
"""
    run_python(script, tmp_path, backend)


def test_weights_are_loaded_as_they_were_saved_and_by_the_student(tmp_path):
    path = str(tmp_path / "both.weights.h5")
    checkpoint = callbacks.ModelCheckpoint(path, save_weights_only=True)
    one, other, alone = fit(distiller(), checkpoint), distiller(), student(7)
    other.load_weights(path)
    alone.load_weights(path)
    assert same(state(one), state(other))
    assert same(alone.get_weights(), one.student.get_weights())
    assert "distiller" not in vars(one.student)
    other.save_weights(tmp_path / "again.weights.h5")
    third = distiller()
    third.load_weights(tmp_path / "again.weights.h5")
    assert same(state(one), state(third))


def test_shards_hold_the_same(tmp_path):
    one, other, alone = fit(distiller()), distiller(), student(7)
    one.save_weights(tmp_path / "model.weights.json", max_shard_size=1e-6)
    for model in (other, alone):
        model.load_weights(tmp_path / "model.weights.json")
    assert same(state(one), state(other))
    assert same(alone.get_weights(), one.student.get_weights())


def test_a_file_of_the_student_leaves_the_rest_and_says_so(tmp_path):
    path = tmp_path / "student.weights.h5"
    student(7).save_weights(path)
    one, before = distiller(), distiller()
    with pytest.warns(UserWarning, match="optimizer"):
        one.load_weights(path)
    assert same(one.student.get_weights(), student(7).get_weights())
    for found, wanted in zip(one.own_variables, before.own_variables, strict=True):
        np.testing.assert_array_equal(found.numpy(), wanted.numpy())


def test_a_file_of_other_projections_is_refused(tmp_path):
    path = tmp_path / "other.weights.h5"
    loss = FitNet("inner", "inner")
    pair(student=student(1), teacher=student(2), distillation_losses=loss).save_weights(path)
    with pytest.raises(ValueError, match="training_state"):
        distiller().load_weights(path)


def test_a_checkpoint_of_averaged_weights_is_the_averaged_student(tmp_path):
    swap = callbacks.SwapEMAWeights(swap_on_epoch=True)
    checkpoint = callbacks.ModelCheckpoint(tmp_path / "{epoch}.keras")
    model = fit(distiller(ema=True), swap, checkpoint, epochs=2)
    saved = keras.saving.load_model(tmp_path / "2.keras")
    averages = [v for v in model.optimizer.variables if "average" in v.path]
    for layer in ("inner", "head"):
        (kernel,) = [v for v in averages if layer in v.path and "kernel" in v.path]
        found = saved.get_layer(layer).kernel
        np.testing.assert_array_equal(*map(keras.ops.convert_to_numpy, (found, kernel)))
