"""A distiller's lessons: losses on inner layers, several losses, several teachers, no labels."""

import keras
import numpy as np
import pytest

from tests.distillation.test_distiller import (
    BACKENDS,
    QUIET,
    X,
    Y,
    deep,
    linear,
    pair,
    run_python,
    same,
    train,
    weights,
)
from tutelage.distillation.distiller import Distiller
from tutelage.errors import ModelError, RecipeError
from tutelage.kernels import accelerate
from tutelage.losses import (
    DIST,
    DKD,
    KD,
    NKD,
    RKD,
    AttentionTransfer,
    FitNet,
    ReviewKD,
    SimilarityPreserving,
    StandardizedKD,
    layer_selection,
)

IMAGES = np.random.default_rng(1).normal(size=(24, 8, 8, 1)).astype("float32")
ON_FEATURES = {
    FitNet: 1.0,
    AttentionTransfer: 100.0,
    SimilarityPreserving: 100.0,
    RKD: 1.0,
    ReviewKD: 1.0,
}


def convolutional(seed, filters=(4, 6)):
    inputs = keras.Input((8, 8, 1))
    x = inputs
    for i, count in enumerate(filters):
        initial = keras.initializers.GlorotUniform(seed + i)
        layer = keras.layers.Conv2D(count, 3, padding="same", kernel_initializer=initial)
        x = keras.layers.ReLU()(keras.layers.BatchNormalization()(layer(x)))
        x = keras.layers.MaxPooling2D()(x)
    x = keras.layers.GlobalAveragePooling2D()(x)
    initial = keras.initializers.GlorotUniform(seed)
    return keras.Model(inputs, keras.layers.Dense(3, kernel_initializer=initial)(x))


def learns_by(loss, weight):
    """In training a loss on features falls, and its projection is trained with the student."""
    student, teacher = convolutional(1), convolutional(5, (6, 8))
    distiller = Distiller(
        student=student,
        teacher=teacher,
        distillation_losses=loss,
        distillation_loss_weights=weight,
        alpha=1,
    )
    distiller.compile(optimizer=keras.optimizers.SGD(0.1))
    own = [keras.ops.convert_to_numpy(v) for v in distiller.own_variables]
    history = distiller.fit(IMAGES, Y, batch_size=24, epochs=8, shuffle=False, verbose=0).history
    assert np.isfinite(history["loss"]).all()
    assert history["loss"][-1] < history["loss"][0]
    for before, variable in zip(own, distiller.own_variables, strict=True):
        assert (before != keras.ops.convert_to_numpy(variable)).any()


class Counted(keras.layers.Layer):
    """Counts the passes through it, on real data."""

    def __init__(self):
        super().__init__()
        self.passes = []

    def call(self, inputs, training=None):
        if inputs.device.type != "meta":
            self.passes.append(training)
        return inputs


# Reference


@pytest.mark.parametrize("method", ON_FEATURES)
def test_a_loss_on_features_is_that_of_the_layers_it_picks(method):
    student, teacher = convolutional(1), convolutional(5)
    loss = method()
    distiller = Distiller(student=student, teacher=teacher, distillation_losses=loss, alpha=1.0)
    distiller.compile()
    names = zip(*loss.pairs(teacher, student), strict=True)
    features = [
        accelerate.watching(model, chosen)(IMAGES, training=False)[1:]
        for model, chosen in zip((teacher, student), names, strict=True)
    ]
    if method is FitNet:
        kernel, bias = (variable.value for variable in distiller.own_variables)
        features[1] = [features[1][0] @ kernel + bias]
    elif method is ReviewKD:
        shapes = [[(None, *x.shape[1:]) for x in both] for both in features]
        features[1] = loss.projection(*shapes, seed=0)(features[1], training=False)
    expected = float(loss.compute_loss(*features).detach())
    got = distiller.evaluate(IMAGES, Y, batch_size=24, **QUIET)
    assert got["distillation_loss"] == pytest.approx(expected, rel=1e-5)
    assert got["loss"] == pytest.approx(expected, rel=1e-5)


def test_several_losses_are_their_weighted_sum():
    each = [pair(distillation_losses=loss, alpha=1.0) for loss in (KD(), DKD())]
    values = []
    for distiller in each:
        distiller.compile()
        values.append(distiller.evaluate(X, Y, **QUIET)["distillation_loss"])
    both = pair(distillation_losses=[KD(), DKD()], distillation_loss_weights=[2.0, 0.5], alpha=0.75)
    both.compile()
    logs = both.evaluate(X, Y, **QUIET)
    assert logs["distillation_loss"] == pytest.approx(2 * values[0] + values[1] / 2, rel=1e-6)
    assert (logs["KD"], logs["DKD"]) == pytest.approx(values, rel=1e-6)
    expected = 0.75 * logs["distillation_loss"] + 0.25 * logs["hard_loss"]
    assert logs["loss"] == pytest.approx(expected, rel=1e-6)


def follows_its_schedule():
    """The weight is that of each training step, and evaluation is none."""
    rise = keras.optimizers.schedules.PolynomialDecay(0.0, 3, 2.0)  # 0, 2/3, 4/3, 2, 2, ...
    distiller = pair(distillation_loss_weights=rise, alpha=1.0)
    distiller.compile(optimizer=keras.optimizers.SGD(0.0))
    logs = train(distiller, batch_size=24, epochs=5)["distillation_loss"]
    whole = pair(alpha=1.0)
    whole.compile(optimizer=keras.optimizers.SGD(0.0))
    (value,) = train(whole, batch_size=24, epochs=1)["distillation_loss"]
    assert logs == pytest.approx([value * w for w in (0, 2 / 3, 4 / 3, 2, 2)], rel=1e-5)
    for _ in range(2):
        assert distiller.evaluate(X, Y, **QUIET)["distillation_loss"] == pytest.approx(2 * value)
    assert int(distiller.own_variables[0].value) == 5


def test_a_weights_schedule_is_asked_at_each_training_step():
    follows_its_schedule()


def test_several_teachers_losses_are_averaged():
    teachers = [linear(2), linear(3)]
    alone = []
    for teacher in teachers:
        distiller = pair(teacher=teacher, alpha=1.0)
        distiller.compile()
        alone.append(distiller.evaluate(X, Y, **QUIET)["loss"])
    both = pair(teacher=teachers, alpha=1.0)
    both.compile()
    assert both.evaluate(X, Y, **QUIET)["loss"] == pytest.approx(np.mean(alone), rel=1e-6)
    assert both.teacher == teachers
    stored = np.stack([keras.ops.convert_to_numpy(t(X)) for t in teachers], axis=1)
    held = pair(teacher=None, alpha=1.0)
    held.compile()
    got = held.evaluate({"images": X, "teacher_logits": stored}, Y, **QUIET)["loss"]
    assert got == pytest.approx(np.mean(alone), rel=1e-5)


def test_with_alpha_one_images_without_labels_teach_as_those_with():
    labelled, bare = pair(alpha=1.0), pair(alpha=1.0)
    options = {"batch_size": 8, "epochs": 2, "shuffle": False, "verbose": 0}
    for distiller in (labelled, bare):
        distiller.compile(optimizer=keras.optimizers.SGD(0.1))
    expected = labelled.fit(X, Y, **options).history
    got = bare.fit(X, **options).history
    assert got["loss"] == expected["loss"]
    assert np.isnan(got["hard_loss"]).all()
    assert same(weights(labelled.student), weights(bare.student))


# Determinism


def test_the_same_seed_ends_in_the_same_bits_and_another_does_not():
    ends = []
    for seed in (0, 0, 1):
        distiller = Distiller(
            student=convolutional(1),
            teacher=convolutional(5),
            distillation_losses=FitNet(),
            seed=seed,
        )
        train(distiller, IMAGES)
        ends.append(weights(distiller.student))
    assert same(ends[0], ends[1])
    assert not same(ends[0], ends[2])


# Properties


@pytest.mark.parametrize(("method", "weight"), ON_FEATURES.items())
def test_every_method_on_features_teaches_inside_fit(method, weight):
    learns_by(method(), weight)


@BACKENDS
def test_and_on_other_backends_with_weights_on_schedule(tmp_path, backend):
    script = """
import os
import keras
from tests.distillation import test_loss_terms as lessons
assert keras.backend.backend() == os.environ["KERAS_BACKEND"]
for method, weight in lessons.ON_FEATURES.items():
    lessons.learns_by(method(), weight)
lessons.follows_its_schedule()
"""
    run_python(script, tmp_path, backend)


def test_one_pass_of_each_model_a_step_whatever_is_watched():
    counters = Counted(), Counted()

    models = []
    for counter in counters:
        inputs = keras.Input((8, 8, 1))
        x = keras.layers.Conv2D(4, 3, padding="same")(counter(inputs))
        x = keras.layers.MaxPooling2D()(keras.layers.BatchNormalization()(x))
        x = keras.layers.GlobalAveragePooling2D()(x)
        models.append(keras.Model(inputs, keras.layers.Dense(3)(x)))
    student, teacher = models
    losses = [KD(), *(method() for method in ON_FEATURES)]
    distiller = Distiller(student=student, teacher=teacher, distillation_losses=losses)
    for counter in counters:
        counter.passes.clear()
    train(distiller, IMAGES)
    assert counters[0].passes == [True] * 6
    assert counters[1].passes == [False] * 6
    before = weights(student)
    distiller.evaluate(IMAGES, Y, batch_size=8, verbose=0)
    assert counters[0].passes[6:] == [False] * 3
    assert same(before, weights(student))


def test_projections_are_trained_with_the_student_and_not_saved_with_it(tmp_path):
    student, teacher = convolutional(1), convolutional(5)
    distiller = Distiller(student=student, teacher=teacher, distillation_losses=[KD(), FitNet()])
    kernel, bias = distiller.own_variables
    ids = [id(variable) for variable in distiller.trainable_variables]
    assert ids == [id(v) for v in [*student.trainable_variables, kernel, bias]]
    train(distiller, IMAGES)
    distiller.save(tmp_path / "student.keras")
    saved = keras.saving.load_model(tmp_path / "student.keras")
    assert saved.count_params() == student.count_params()
    np.testing.assert_array_equal(
        saved.predict(IMAGES, verbose=0), student.predict(IMAGES, verbose=0)
    )


def test_the_teacher_stays_as_it_was():
    teacher = convolutional(5)
    before = weights(teacher)
    train(
        Distiller(student=convolutional(1), teacher=teacher, distillation_losses=FitNet()), IMAGES
    )
    assert same(before, weights(teacher))


def test_fast_layers_learn_from_inner_layers_as_stock_does():
    values = []
    for run in (lambda model: model, accelerate.accelerate):
        student, teacher = run(convolutional(1)), run(convolutional(5, (6, 8)))
        losses = [method() for method in ON_FEATURES]
        distiller = Distiller(student=student, teacher=teacher, distillation_losses=losses)
        distiller.compile(optimizer=keras.optimizers.SGD(0.01))
        values.append(train(distiller, IMAGES, shuffle=False)["distillation_loss"])
    assert values[0] == pytest.approx(values[1], rel=1e-4)


def test_alpha_zero_asks_no_layer_of_anyone():
    distiller = pair(distillation_losses=RKD(), alpha=0.0, student=deep(1), teacher=deep(2))
    assert distiller.own_variables == []
    train(distiller)


@pytest.mark.parametrize("method", ON_FEATURES)
def test_keras_own_distiller_takes_a_loss_on_named_layers(method):
    student, teacher = convolutional(1), convolutional(5)
    names = {"teacher_layer_name": teacher, "student_layer_name": student}
    loss = method(**{name: layer_selection.stages(model)[0] for name, model in names.items()})
    theirs = keras.distillation.Distiller(teacher, student, loss, student_loss_weight=0.5)
    theirs.compile(optimizer="sgd", loss=keras.losses.SparseCategoricalCrossentropy(True))
    history = theirs.fit(IMAGES, Y, batch_size=8, epochs=1, verbose=0).history
    assert np.isfinite(history["distillation_loss"]).all()


def in_keras_own(loss):
    theirs = keras.distillation.Distiller(linear(2), linear(1), loss, student_loss_weight=0.1)
    hard = keras.losses.SparseCategoricalCrossentropy(True)
    theirs.compile(optimizer=keras.optimizers.SGD(0.1), loss=hard)
    return theirs.fit(X, Y, batch_size=24, epochs=10, shuffle=False, verbose=0).history[
        "distillation_loss"
    ]


@pytest.mark.parametrize("method", [KD, StandardizedKD, DIST])
def test_keras_own_distiller_takes_a_loss_on_logits(method):
    losses = in_keras_own(method())
    assert losses[-1] < losses[0]


# Bad input


def test_a_loss_on_features_needs_its_teacher():
    with pytest.raises(RecipeError, match=r"^FitNet"):
        Distiller(student=convolutional(1), teacher=None, distillation_losses=FitNet())


def test_layers_that_are_not_there_are_refused_at_once():
    loss = FitNet(teacher_layer_name="no", student_layer_name="no")
    with pytest.raises(RecipeError, match="layer 'no'"):
        Distiller(student=convolutional(1), teacher=convolutional(5), distillation_losses=loss)
    with pytest.raises(ModelError, match="feature maps"):
        pair(distillation_losses=AttentionTransfer())


@pytest.mark.parametrize("weights", [-1.0, float("nan"), "1", [1.0, 2.0, 3.0], [1.0, None]])
def test_impossible_weights_of_losses_are_refused(weights):
    with pytest.raises(RecipeError, match="weight"):
        pair(distillation_losses=[KD(), DKD()], distillation_loss_weights=weights)


@pytest.mark.parametrize("change", [{"distillation_losses": []}, {"teacher": []}])
def test_no_loss_and_no_teacher_are_refused(change):
    with pytest.raises(RecipeError, match="empty list"):
        pair(**change)


def test_several_teachers_are_each_checked():
    with pytest.raises(ModelError, match="output shape"):
        pair(teacher=[linear(2), linear(3, classes=5)])
    with pytest.raises(ModelError, match=r"^teacher .*NoneType"):
        pair(teacher=[linear(2), None])


def test_without_labels_alpha_below_one_is_refused():
    distiller = pair(alpha=0.9)
    distiller.compile()
    with pytest.raises(RecipeError, match="alpha = 1"):
        distiller.fit(X, verbose=0)
    needy = pair(alpha=1.0, distillation_losses=DKD())
    needy.compile()
    with pytest.raises(RecipeError, match=r"DKD .*labels"):
        needy.fit(X, verbose=0)


@pytest.mark.parametrize("method", [DKD, NKD])
def test_keras_own_distiller_which_hands_no_labels_on_is_told_so(method):
    with pytest.raises(RecipeError, match=f"{method.__name__} .*labels"):
        in_keras_own(method())
