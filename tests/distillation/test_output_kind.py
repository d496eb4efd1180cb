"""Logits and probabilities are told apart, by structure and by values."""

from __future__ import annotations

import functools
import json
from collections.abc import Callable
from pathlib import Path

import keras
import numpy as np
import pytest
from keras import layers, ops
from scipy.special import expit, log_softmax, rel_entr, softmax

import tutelage
from tutelage.distillation import output_kind
from tutelage.errors import ModelError, RecipeError
from tutelage.evaluation.evaluate import evaluate
from tutelage.kernels import accelerate

X = np.random.default_rng(0).normal(size=(64, 6)).astype("float32")
LOGITS = np.random.default_rng(1).normal(scale=4, size=(64, 10))


def functional(end: Callable[[keras.KerasTensor], keras.KerasTensor]) -> keras.Model:
    inputs = keras.Input((6,))
    return keras.Model(inputs, end(layers.Dense(8, "relu")(inputs)))


def nested(z: keras.KerasTensor) -> keras.KerasTensor:
    inner = keras.Sequential([keras.Input((8,)), layers.Dense(4), layers.Softmax()])
    return keras.Sequential([keras.Input((8,)), inner])(z)


ENDS = {
    "fused": layers.Dense(4, "softmax"),
    "Softmax": lambda z: layers.Softmax()(layers.Dense(4)(z)),
    "Activation": lambda z: layers.Activation("softmax")(layers.Dense(4)(z)),
    "operation": lambda z: ops.softmax(layers.Dense(4)(z)),
    "float32 behind it": lambda z: layers.Activation("linear", dtype="float32")(
        layers.Dense(4, "softmax")(z)
    ),
    "Flatten behind it": lambda z: layers.Flatten()(layers.Dense(4, "softmax")(z)),
    "convolution": lambda z: layers.Flatten()(
        layers.Conv2D(4, 1, activation="softmax")(layers.Reshape((1, 1, 8))(z))
    ),
    "nested": nested,
}


@pytest.mark.parametrize("end", ENDS.values(), ids=ENDS)
def test_logits_before_a_softmax_are_found_by_structure(end: Callable[..., object]) -> None:
    model = functional(end)
    logits, activation = output_kind.logits_model(model)
    assert activation == "softmax"
    found = logits.predict(X, verbose=0)
    np.testing.assert_allclose(softmax(found, axis=1), model.predict(X, verbose=0), atol=1e-6)
    assert (found < 0).any()


def test_sigmoids_are_found_and_logits_left_alone() -> None:
    model = functional(layers.Dense(4, "sigmoid"))
    logits, activation = output_kind.logits_model(model)
    assert activation == "sigmoid"
    np.testing.assert_allclose(
        expit(logits.predict(X, verbose=0)), model.predict(X, verbose=0), atol=1e-6
    )
    for end in (layers.Dense(4), layers.Dense(4, "log_softmax"), layers.Dense(4, "relu")):
        model = functional(end)
        assert output_kind.logits_model(model) == (model, "")


# With the largest error of a probability: of rounding it and its row's sum.
ROUNDED = {
    "float32": (lambda p: p.astype(np.float32), 1e-6),
    "float16": (lambda p: p.astype(np.float16), 1e-3),
    "8 bits": (lambda p: np.round(p * 256) / 256, 2 / 256),
    "255 steps": (lambda p: np.round(p * 255) / 255, 2 / 255),
    "2 digits": (lambda p: np.round(p, 2), 0.02),
    "3 digits": (lambda p: np.round(p, 3), 0.002),
    "percentages": (lambda p: 100 * p, 1e-6),
    "percentages, 1 digit": (lambda p: np.round(100 * p, 1), 0.002),
}


@pytest.mark.parametrize(("rounded", "error"), ROUNDED.values(), ids=ROUNDED)
def test_probabilities_are_told_by_their_values(
    rounded: Callable[[np.ndarray], np.ndarray], error: float
) -> None:
    outputs = rounded(softmax(LOGITS, axis=1))
    bound = output_kind.smallest_probability(outputs)
    assert bound is not None
    logits = output_kind.log_of(np.asarray(outputs, np.float32), bound)
    assert np.isfinite(logits).all()
    np.testing.assert_allclose(softmax(logits, axis=1), softmax(LOGITS, axis=1), atol=error)
    assert output_kind.smallest_probability(outputs[:, :9]) is None  # they sum to less


@pytest.mark.parametrize(
    "outputs",
    [
        LOGITS,
        log_softmax(LOGITS, axis=1),
        np.maximum(LOGITS, 0),
        expit(LOGITS),
        np.zeros((8, 3)),
        np.eye(4) * 7,
        np.random.default_rng(2).random((64, 2)),
        np.full((4, 2), np.nan),
    ],
)
def test_logits_are_not_taken_for_probabilities(outputs: np.ndarray) -> None:
    assert output_kind.smallest_probability(outputs) is None


def test_values_of_a_sigmoid_are_refused_with_the_way_out() -> None:
    with pytest.raises(ModelError, match="mine"):
        output_kind.refuse_sigmoid("mine", expit(LOGITS))
    within = np.array([[0.1, 0.8, 0.3], [0.7, 0.0, 0.2]])
    for logits in (LOGITS, np.zeros((4, 2)), np.tile([0.3, 0.7], (9, 1)), within):
        output_kind.refuse_sigmoid("mine", logits)


class Opaque(keras.Model):
    """A subclass without a graph of layers."""

    def __init__(self, activation: str | None = None):
        super().__init__()
        self.dense = layers.Dense(4, activation)

    def call(self, x: object) -> object:
        return self.dense(x)


def fitted(teacher: keras.Model | None, student: keras.Model, x: object = X) -> dict[str, float]:
    distiller = tutelage.Distiller(teacher=teacher, student=student, alpha=0.9)
    distiller.compile(keras.optimizers.SGD(0.1))
    history = distiller.fit(x, np.arange(64) % 4, verbose=0, shuffle=False, epochs=2).history
    return {name: values[-1] for name, values in history.items()}


@pytest.mark.parametrize("end", [ENDS["fused"], ENDS["nested"]], ids=["fused", "nested"])
def test_a_distillers_softmax_teacher_teaches_its_logits(end: Callable[..., object]) -> None:
    model = functional(end)
    plain, _ = output_kind.logits_model(model)
    students = [functional(layers.Dense(4)) for _ in range(2)]
    students[1].set_weights(students[0].get_weights())
    with pytest.warns(UserWarning, match="softmax"):
        got = fitted(model, students[0])
    assert got == pytest.approx(fitted(plain, students[1]), abs=1e-6)


def test_a_distillers_teacher_teaches_with_the_weights_it_gets_later() -> None:
    teachers = [functional(layers.Dense(4, "softmax")) for _ in range(2)]
    student = functional(layers.Dense(4))
    with pytest.warns(UserWarning, match="teacher"):
        distiller = tutelage.Distiller(teacher=teachers[0], student=student, alpha=1.0)
    assert distiller.teacher is teachers[0]
    teachers[0].set_weights(teachers[1].get_weights())
    distiller.compile("sgd")
    found = distiller.evaluate(X, np.zeros(64), verbose=0, return_dict=True)["loss"]
    p = softmax_at(4, np.log(teachers[1].predict(X, verbose=0)))
    q = softmax_at(4, student.predict(X, verbose=0))
    assert found == pytest.approx(16 * rel_entr(p, q).sum(axis=1).mean(), rel=1e-4)


def softmax_at(temperature: float, logits: np.ndarray) -> np.ndarray:
    return softmax(np.asarray(logits, np.float64) / temperature, axis=1)


@pytest.mark.parametrize("end", [ENDS["fused"], ENDS["nested"]], ids=["fused", "nested"])
@pytest.mark.parametrize("fast", [False, True])
def test_a_distillers_softmax_student_learns_by_its_logits_and_keeps_its_softmax(
    end: Callable[..., object], fast: bool, tmp_path: Path
) -> None:
    teacher, student = functional(layers.Dense(4)), functional(end)
    plain = keras.models.clone_model(output_kind.logits_model(student)[0])
    plain.set_weights(student.get_weights())
    wanted = fitted(teacher, plain)
    with pytest.warns(UserWarning, match="student"):
        got = fitted(teacher, accelerate.accelerate(student) if fast else student)
    assert got == pytest.approx(wanted, abs=1e-6)
    z = plain.predict(X, verbose=0)
    assert np.ptp(z) > 1
    np.testing.assert_allclose(student.predict(X, verbose=0), softmax(z, axis=1), atol=1e-6)
    with pytest.warns(UserWarning, match="student"):
        distiller = tutelage.Distiller(teacher=teacher, student=student)
    np.testing.assert_allclose(distiller.predict(X, verbose=0), z, atol=1e-5)
    distiller.save(tmp_path / "student.keras")
    saved = keras.saving.load_model(tmp_path / "student.keras")
    np.testing.assert_allclose(saved.predict(X, verbose=0), softmax(z, axis=1), atol=1e-6)
    keras.saving.save_model(distiller, tmp_path / "distiller.keras")
    with pytest.warns(UserWarning, match="student"):
        loaded = keras.saving.load_model(tmp_path / "distiller.keras")
    np.testing.assert_allclose(loaded.predict(X, verbose=0), z, atol=1e-5)


def test_a_distillers_sigmoid_student_is_refused() -> None:
    with pytest.raises(ModelError, match="sigmoid"):
        tutelage.Distiller(
            teacher=functional(layers.Dense(4)), student=functional(layers.Dense(4, "sigmoid"))
        )


FROM_LOGITS = [
    keras.losses.SparseCategoricalCrossentropy,
    functools.partial(functools.partial, keras.losses.sparse_categorical_crossentropy),
]


@pytest.mark.parametrize(
    "loss",
    [
        "sparse_categorical_crossentropy",
        "SparseCategoricalCrossentropy",
        keras.losses.categorical_crossentropy,
        keras.losses.CategoricalCrossentropy(),
        keras.losses.BinaryCrossentropy(),
        [keras.losses.CategoricalFocalCrossentropy()],
        *(made(from_logits=False) for made in FROM_LOGITS),
    ],
)
def test_a_hard_loss_of_probabilities_is_refused(loss: object) -> None:
    distiller = tutelage.Distiller(teacher=None, student=functional(layers.Dense(4)))
    with pytest.raises(RecipeError, match=r"(?i)crossentropy.*set from_logits=True"):
        distiller.compile(loss=loss)


@pytest.mark.parametrize("made", FROM_LOGITS)
def test_a_hard_loss_of_logits_is_their_cross_entropy(made: Callable[..., object]) -> None:
    student = functional(layers.Dense(4))
    distiller = tutelage.Distiller(teacher=None, student=student)
    distiller.compile(loss=made(from_logits=True))
    labels = np.arange(64) % 4
    logs = distiller.evaluate(X, labels, verbose=0, return_dict=True)
    expected = -log_softmax(student.predict(X, verbose=0), axis=1)[np.arange(64), labels].mean()
    assert logs["hard_loss"] == pytest.approx(expected, rel=1e-5)


@pytest.mark.skipif(keras.config.backend() != "torch", reason="needs values within a step")
def test_probabilities_without_structure_are_refused_in_the_first_step() -> None:
    with pytest.raises(ModelError, match="teacher"):
        fitted(Opaque("softmax"), functional(layers.Dense(4)))
    with pytest.raises(ModelError, match="student"):
        fitted(functional(layers.Dense(4)), Opaque("softmax"))
    stored = {"images": X, "teacher_logits": softmax(LOGITS[:, :4], axis=1).astype("float32")}
    with pytest.raises(ModelError, match="teacher"):
        fitted(None, functional(layers.Dense(4)), stored)
    fitted(Opaque(), Opaque())


def test_evaluate_and_predict_see_the_same_whatever_a_file_ends_in(tmp_path: Path) -> None:
    inputs = keras.Input((8, 8, 1))
    dense = layers.Dense(10)
    logits = dense(layers.Flatten()(layers.Rescaling(1 / 256)(inputs)))
    files = {"logits": logits, "softmax": layers.Softmax()(logits)}
    files["sigmoid"] = layers.Activation("sigmoid")(logits)
    files["percent"] = layers.Rescaling(100)(files["softmax"])
    figures, answers = {}, {}
    image = tmp_path / "image.png"
    keras.utils.save_img(image, np.eye(8)[..., None] * 255)
    for name, output in files.items():
        file = tmp_path / f"{name}.keras"
        keras.Model(inputs, output).save(file)
        result = evaluate(file, "digits")
        figures[name] = result["models"][name]
        assert bool(result["notes"]) == (name != "logits")
        answers[name] = json.dumps(tutelage.predict(file, [image], top=10)[0]["classes"])
    for name in files:
        assert figures[name]["nll"] == pytest.approx(figures["logits"]["nll"], rel=1e-3)
        assert figures[name]["ece"] == pytest.approx(figures["logits"]["ece"], abs=1e-3)
        now, plain = (json.loads(answers[each]) for each in (name, "logits"))
        assert [c["name"] for c in now] == [c["name"] for c in plain]
        chances = [c["probability"] for c in now]
        assert chances == pytest.approx([c["probability"] for c in plain], abs=1e-3)


def twice(z: keras.KerasTensor) -> keras.KerasTensor:
    softmax_layer = layers.Softmax()
    return softmax_layer(layers.Rescaling(3.0)(softmax_layer(layers.Dense(4)(z))))


@keras.saving.register_keras_serializable(package="tests")
class Halved(layers.Dense):
    """A layer whose activation is not the last thing that it does."""

    def call(self, x: object) -> object:
        return super().call(x) / 2


def softmax_over_images(x: object) -> object:
    return ops.softmax(x, axis=0)


softmax_over_images.__name__ = "softmax"


class Doubled(keras.Model):
    """A graph of layers whose `call` does something else."""

    def call(self, x: object) -> object:
        return 2 * super().call(x)


def doubled(z: keras.KerasTensor) -> keras.KerasTensor:
    inputs = keras.Input((8,))
    return Doubled(inputs, layers.Dense(4, "softmax")(inputs))(z)


NO_ENDS = {
    "over images": lambda z: layers.Softmax(axis=0)(layers.Dense(4)(z)),
    "over places": lambda z: layers.Flatten()(
        layers.Conv2D(2, 1, activation="softmax")(layers.Reshape((2, 2, 2))(z))
    ),
    "map": lambda z: layers.Conv2D(2, 1, activation="softmax")(layers.Reshape((2, 2, 2))(z)),
    "axis of a map": lambda z: layers.Softmax(axis=1)(layers.Reshape((4, 1, 2))(z)),
    "LSTM": lambda z: layers.LSTM(4, activation="softmax")(layers.Reshape((2, 4))(z)),
    "subclass": Halved(4, "softmax"),
    "function of that name": layers.Dense(4, softmax_over_images),
    "scaled": lambda z: layers.Rescaling(2.0)(layers.Dense(4, "softmax")(z)),
    "pooled": lambda z: layers.GlobalAveragePooling2D()(
        layers.Softmax()(layers.Reshape((2, 2, 2))(z))
    ),
    "model with a call of its own": doubled,
}


@pytest.mark.parametrize("end", NO_ENDS.values(), ids=NO_ENDS)
def test_what_only_looks_like_a_last_softmax_is_kept(end: Callable[..., object]) -> None:
    model = functional(end)
    assert output_kind.logits_model(model) == (model, "")


def test_of_a_softmax_in_the_middle_and_at_the_end_the_last_is_left_out() -> None:
    model = functional(twice)
    logits, activation = output_kind.logits_model(model)
    dense = model.layers[2]
    z = keras.Model(model.inputs, dense.output).predict(X, verbose=0)
    assert activation == "softmax"
    np.testing.assert_allclose(logits.predict(X, verbose=0), 3 * softmax(z, axis=1), atol=1e-6)


@pytest.mark.parametrize("end", [ENDS["fused"], ENDS["convolution"], ENDS["nested"]])
def test_logits_are_those_of_the_weights_that_a_model_gets_later(
    end: Callable[..., object],
) -> None:
    model = functional(end)
    logits, _ = output_kind.logits_model(model)
    later = np.random.default_rng(5)
    model.set_weights([later.normal(size=w.shape) for w in model.get_weights()])
    found = logits.predict(X, verbose=0)
    np.testing.assert_allclose(softmax(found, axis=1), model.predict(X, verbose=0), atol=1e-6)
