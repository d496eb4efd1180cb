import csv
import importlib.util
import os
import subprocess
import sys
from pathlib import Path

import keras
import numpy as np
import pytest
import torch
import torch.nn.functional as F

from tutelage.distillation.distiller import Distiller
from tutelage.errors import ModelError, RecipeError
from tutelage.losses import DIST, DKD, KD, NKD, CrossEntropy, FitNet, StandardizedKD

# Beside PyTorch, where they are installed.
BACKENDS = pytest.mark.parametrize(
    "backend",
    [
        pytest.param(
            name,
            marks=pytest.mark.skipif(
                importlib.util.find_spec(name) is None, reason=f"{name} is not installed"
            ),
        )
        for name in ("jax", "tensorflow")
    ],
)
RNG = np.random.default_rng(0)
X = RNG.normal(size=(24, 4)).astype("float32")
Y = RNG.integers(0, 3, 24)
WEIGHTS = RNG.uniform(0.1, 3.0, 24).astype("float32")
QUIET = {"verbose": 0, "return_dict": True}


def stack(*layers, inputs=4):
    return keras.Sequential([keras.Input((inputs,)), *layers])


def linear(seed=0, classes=3, inputs=4):
    init = keras.initializers.RandomNormal(stddev=1.0, seed=seed)
    return stack(keras.layers.Dense(classes, kernel_initializer=init), inputs=inputs)


def deep(seed=0, dropout=0.5):
    """All that could leak: dropout, batch statistics, regularisers of weights and activity."""
    init = keras.initializers.RandomNormal(stddev=0.5, seed=seed)
    regular = {"kernel_regularizer": keras.regularizers.L2(0.01), "activity_regularizer": "l1"}
    return stack(
        keras.layers.Dense(8, kernel_initializer=init, **regular),
        keras.layers.BatchNormalization(),
        keras.layers.Dropout(dropout, seed=seed),
        keras.layers.Dense(3, kernel_initializer=init),
    )


class FeatureExtractor(keras.Model):
    """A model that notes how it is run, leaving Keras' dry runs on the meta device out."""

    def __init__(self, model):
        super().__init__()
        self.model, self.runs, self.grad = model, [], []

    def call(self, inputs, training=None):
        if inputs.device.type != "meta":
            self.runs.append(training)
            self.grad.append(torch.is_grad_enabled())
        return self.model(inputs, training=training)


def pair(**change):
    return Distiller(**{"student": linear(1), "teacher": linear(2), **change})


def weights(model):
    """Every variable, dropout's seeds too."""
    return [keras.ops.convert_to_numpy(variable).copy() for variable in model.variables]


def same(one, other):
    return all(np.array_equal(a, b) for a, b in zip(one, other, strict=True))


def train(model, x=X, y=Y, **options):
    """Compile where not yet, and fit with a fixed shuffle; returns the epochs' logs."""
    if not model.compiled:
        model.compile(optimizer="adam", metrics=["accuracy"])
    keras.utils.set_random_seed(7)
    return model.fit(x, y, **{"batch_size": 8, "epochs": 2, "verbose": 0, **options}).history


def run_python(script, folder, backend, **variables):
    path = os.pathsep.join([str(Path(__file__).parents[2]), *sys.path])
    environment = {**os.environ, "KERAS_BACKEND": backend, "PYTHONPATH": path, **variables}
    command = [sys.executable, "-c", script]
    run = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True)
    assert run.returncode == 0, run.stderr


# Reference


@pytest.mark.parametrize("weight", [None, WEIGHTS, WEIGHTS[:, None]])
def test_one_step_is_the_step_computed_by_hand(weight):
    distiller = pair(distillation_losses=KD(2.0), alpha=0.7)
    student, teacher = distiller.student, distiller.teacher
    kernel, bias = (torch.tensor(w, requires_grad=True) for w in student.get_weights())
    soft = torch.tensor(X) @ torch.tensor(teacher.get_weights()[0])
    z = torch.tensor(X) @ kernel + bias
    log_q, p = F.log_softmax(z / 2, -1), F.softmax(soft / 2, -1)
    kd = 4 * F.kl_div(log_q, p, reduction="none").sum(-1)
    hard = F.cross_entropy(z, torch.tensor(Y), reduction="none")
    w = torch.ones(24) if weight is None else torch.tensor(weight).reshape(-1)
    loss = (w * (0.7 * kd + 0.3 * hard)).mean()
    loss.backward()

    distiller.compile(optimizer=keras.optimizers.SGD(0.5), metrics=["accuracy"])
    logs = distiller.train_on_batch(X, Y, sample_weight=weight, return_dict=True)

    assert logs["loss"] == pytest.approx(loss.item(), rel=1e-5)
    assert logs["distillation_loss"] == pytest.approx((w * kd).mean().item(), rel=1e-5)
    assert logs["hard_loss"] == pytest.approx((w * hard).mean().item(), rel=1e-5)
    assert logs["accuracy"] == pytest.approx((z.argmax(-1).numpy() == Y).mean())
    for variable, got in zip((kernel, bias), student.get_weights(), strict=True):
        np.testing.assert_allclose(got, (variable - 0.5 * variable.grad).detach(), atol=1e-6)


def test_class_weights_are_the_sample_weights_of_their_classes():
    by_class = {0: 0.5, 1: 1.0, 2: 4.0}
    one, other = pair(), pair()
    train(one, class_weight=by_class)
    train(other, sample_weight=np.array([by_class[y] for y in Y]))
    assert same(weights(one.student), weights(other.student))


def test_the_students_regularisers_count_once_and_the_teachers_not_at_all():
    distiller = pair(student=deep(1), teacher=deep(2), alpha=0.6)
    distiller.compile()
    logs = distiller.evaluate(X, Y, batch_size=24, **QUIET)
    kernel, bias = distiller.student.layers[0].get_weights()
    own = 0.01 * (kernel**2).sum() + 0.01 * abs(X @ kernel + bias).sum() / 24
    assert own > 0.05
    expected = 0.6 * logs["distillation_loss"] + 0.4 * logs["hard_loss"] + own
    assert logs["loss"] == pytest.approx(expected, rel=1e-5)


# Determinism


def test_alpha_zero_is_plain_training_to_the_bit():
    baseline, teacher = deep(1), FeatureExtractor(linear(2))
    baseline.compile(optimizer="adam", loss=CrossEntropy(), metrics=["accuracy"])
    distiller = pair(student=deep(1), teacher=teacher, alpha=0)
    options = {"sample_weight": WEIGHTS, "validation_data": (X, Y), "epochs": 3}
    plain, distilled = train(baseline, **options), train(distiller, **options)
    assert same(weights(baseline), weights(distiller.student))
    assert teacher.runs == []
    assert "distillation_loss" not in distilled
    assert {key: distilled[key] for key in plain} == plain


def test_the_same_seeds_end_in_the_same_bits():
    one, other = (pair(student=deep(1), teacher=deep(2)) for _ in range(2))
    assert train(one) == train(other)
    assert same(weights(one.student), weights(other.student))


def test_stored_logits_teach_as_their_teacher_does():
    at_hand, stored = pair(), pair(teacher=None)
    logits = keras.ops.convert_to_numpy(at_hand.teacher(X))
    x, options = {"images": X, "teacher_logits": logits}, {"class_weight": {0: 1, 1: 2, 2: 3}}
    logs, again = train(at_hand, **options), train(stored, x, **options)
    for key in logs:
        assert again[key] == pytest.approx(logs[key], rel=1e-5)
    for ours, theirs in zip(weights(at_hand.student), weights(stored.student), strict=True):
        np.testing.assert_allclose(theirs, ours, rtol=1e-5)


# Properties


def test_a_step_runs_the_student_once_and_the_teacher_at_most_once():
    student, teacher = FeatureExtractor(linear(1)), FeatureExtractor(linear(2))
    distiller = Distiller(student=student, teacher=teacher)
    train(distiller)
    assert student.runs == [True] * 6
    assert teacher.runs == [False] * 6
    assert not any(teacher.grad)
    distiller.evaluate(X, Y, batch_size=8, verbose=0)
    assert student.runs[6:] == [False] * 3
    assert teacher.runs[6:] == [False] * 3
    distiller.predict(X, batch_size=8, verbose=0)
    assert student.runs[9:] == [False] * 3
    assert len(teacher.runs) == 9


def test_training_leaves_the_teacher_as_it_was():
    student, teacher = deep(1), deep(2)
    teacher.layers[0].trainable = False
    flags = [layer.trainable for layer in (teacher, *teacher.layers)]
    before, start = weights(teacher), weights(student)
    distiller = Distiller(student=student, teacher=teacher)
    train(distiller)
    distiller.trainable = False
    assert not same(start, weights(student))
    assert same(before, weights(teacher))
    assert [layer.trainable for layer in (teacher, *teacher.layers)] == flags


def test_the_optimizer_and_the_summary_see_the_student_alone():
    student, teacher = deep(1), deep(2)
    distiller = Distiller(student=student, teacher=teacher)
    assert distiller.trainable_variables == student.trainable_variables
    assert distiller.weights == student.weights
    ids = [id(variable) for variable in distiller.non_trainable_variables]
    assert ids == [id(v) for v in [*student.non_trainable_variables, *teacher.variables]]
    lines = []
    distiller.summary(print_fn=lines.append)
    assert f"Total params: {student.count_params()} " in "".join(lines)


def test_evaluating_and_predicting_leave_the_batch_statistics_alone():
    distiller = pair(student=deep(1))
    train(distiller, epochs=1)
    before = weights(distiller.student)
    logs = distiller.evaluate(X, Y, **QUIET)
    assert set(logs) == {"loss", "hard_loss", "distillation_loss", "accuracy"}
    expected = distiller.student.predict(X, verbose=0)
    np.testing.assert_array_equal(distiller.predict(X, verbose=0), expected)
    assert same(before, weights(distiller.student))


def test_epoch_logs_are_means_over_the_images():
    distiller = pair()
    # Two batches of unequal size and a rate of zero: the epoch's mean is the whole set's.
    distiller.compile(optimizer=keras.optimizers.SGD(0.0))
    history = train(distiller, batch_size=16, epochs=1, validation_data=(X, Y))
    for key, value in distiller.evaluate(X, Y, batch_size=24, **QUIET).items():
        assert history[key] == pytest.approx([value], rel=1e-5)
        assert history[f"val_{key}"] == pytest.approx([value], rel=1e-5)


def test_stored_knowledge_is_evaluated_on_images_alone_by_its_hard_loss():
    distiller = pair(teacher=None)
    stored = {"images": X, "teacher_logits": np.zeros((24, 3), "float16")}
    history = train(distiller, stored, validation_data=(X, Y))
    assert history["val_loss"] == history["val_hard_loss"]
    assert np.isnan(history["val_distillation_loss"]).all()
    assert np.isfinite(history["distillation_loss"]).all()
    expected = distiller.student.predict(X, verbose=0)
    np.testing.assert_array_equal(distiller.predict(X, verbose=0), expected)
    np.testing.assert_array_equal(distiller.predict(stored, verbose=0), expected)


def test_integer_and_one_hot_labels_train_alike():
    integer, column, one_hot = (pair() for _ in range(3))
    accuracy = train(integer)["accuracy"]
    for other, y in ((column, Y[:, None]), (one_hot, np.eye(3)[Y])):
        assert train(other, y=y)["accuracy"] == accuracy
        assert same(weights(integer.student), weights(other.student))


@pytest.mark.parametrize("loss", [None, CrossEntropy(label_smoothing=0.3), "mse"])
def test_the_compiled_loss_is_the_hard_loss(loss):
    distiller = pair()
    distiller.compile(loss=loss)
    one_hot, z = np.eye(3)[Y], distiller.student.predict(X, verbose=0)
    logs = distiller.evaluate(X, one_hot, **QUIET)
    expected = ((z - one_hot) ** 2).mean() if loss == "mse" else (loss or CrossEntropy())(Y, z)
    assert logs["hard_loss"] == pytest.approx(float(expected), rel=1e-5)


def test_a_loss_of_keras_own_teaches_too():
    loss = keras.distillation.LogitsDistillation(loss=keras.losses.KLDivergence(), temperature=2)
    ours, theirs = pair(distillation_losses=KD(2.0)), pair(distillation_losses=loss)
    assert train(theirs)["loss"] == pytest.approx(train(ours)["loss"], rel=1e-4)


def two_layers(seed):
    init = keras.initializers.RandomNormal(stddev=0.5, seed=seed)
    inner = keras.layers.Dense(5, activation="tanh", kernel_initializer=init, name="inner")
    return stack(inner, keras.layers.Dense(3, kernel_initializer=init, name="head"))


class Gap(keras.distillation.DistillationLoss):
    """A loss of a user's own."""

    def compute_loss(self, teacher_outputs, student_outputs, **kwargs):
        return keras.ops.mean(keras.ops.abs(teacher_outputs - student_outputs))


@pytest.mark.parametrize(
    "losses",
    [
        [keras.distillation.LogitsDistillation(temperature=3.0)],
        [keras.distillation.FeatureDistillation("mse")],
        [
            keras.distillation.LogitsDistillation(),
            keras.distillation.FeatureDistillation("mse", "inner", "inner"),
            Gap(),
        ],
    ],
    ids=["logits", "features", "three"],
)
def test_keras_losses_and_ones_of_ones_own_train_as_in_keras_distiller(losses):
    """The reference is keras.distillation.Distiller: same weights, losses and steps."""
    weights = [0.5, 2.0, 1.5][: len(losses)] if len(losses) > 1 else [1.0]
    students = []
    for made, share in (
        (Distiller, {"alpha": 0.3}),
        (keras.distillation.Distiller, {"student_loss_weight": 0.7}),
    ):
        student, teacher = two_layers(1), two_layers(2)
        distiller = made(
            teacher=teacher,
            student=student,
            distillation_losses=losses,
            distillation_loss_weights=weights,
            **share,
        )
        hard = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
        distiller.compile(optimizer=keras.optimizers.SGD(0.1), loss=hard)
        distiller.fit(X, Y, batch_size=8, epochs=2, shuffle=False, verbose=0)
        students.append(student.get_weights())
    for ours, theirs in zip(*students, strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=1e-4, atol=1e-6)


def test_a_saved_distiller_goes_on_as_the_one_that_was_saved(tmp_path):
    rise = keras.optimizers.schedules.PolynomialDecay(0.0, 10, 1.0)
    one = pair(
        student=two_layers(1),
        teacher=two_layers(2),
        distillation_losses=[KD(2.0), FitNet("inner", "inner")],
        distillation_loss_weights=[1.0, rise],
        alpha=0.6,
        seed=3,
        name="mine",
    )
    train(one)
    keras.saving.save_model(one, tmp_path / "distiller.keras")
    other = keras.saving.load_model(tmp_path / "distiller.keras")
    assert (type(other), other.name, other.alpha, other.seed) == (Distiller, "mine", 0.6, 3)
    for name in ("distillation_losses", "distillation_loss_weights"):
        assert other.get_config()[name] == one.get_config()[name]
    assert same(weights(other.teacher), weights(one.teacher))
    assert same(weights(other), weights(one))
    assert train(other, shuffle=False) == train(one, shuffle=False)
    for ours, theirs in zip(weights(other.student), weights(one.student), strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=1e-5, atol=1e-7)


def test_a_distiller_without_or_with_several_teachers_is_made_again_from_its_config():
    for teacher in (None, [linear(2), linear(3)]):
        one = pair(teacher=teacher)
        other = Distiller.from_config(one.get_config())
        assert type(other.teacher) is type(one.teacher)
        assert other.student.to_json() == one.student.to_json()


@pytest.mark.parametrize(
    ("former", "now"),
    [
        ("loss", "distillation_losses"),
        ("loss_weights", "distillation_loss_weights"),
        ("student_loss_weight", "alpha"),
        ("losses", "losses"),
    ],
)
def test_former_arguments_are_refused_with_the_present_ones(former, now):
    with pytest.raises(TypeError, match=now):
        pair(**{former: 1})


def test_models_that_are_built_by_their_first_batch_can_be_distilled():
    student, teacher = (keras.Sequential([keras.layers.Dense(3)]) for _ in "st")
    assert not teacher.built
    history = train(Distiller(student=student, teacher=teacher))
    assert history["loss"][1] < history["loss"][0]


def test_files_hold_the_student_alone_and_load_without_the_package(tmp_path):
    distiller = pair(student=deep(1))
    path = str(tmp_path / "only.weights.h5")
    checkpoints = [
        keras.callbacks.ModelCheckpoint(tmp_path / "full.keras"),
        keras.callbacks.ModelCheckpoint(path, save_weights_only=True),
    ]
    train(distiller, callbacks=checkpoints)
    distiller.save(tmp_path / "saved.keras")
    np.savez(tmp_path / "expected.npz", x=X, logits=distiller.predict(X, verbose=0))
    script = """
import sys, numpy as np, keras
expected = np.load("expected.npz")
full, saved = keras.saving.load_model("full.keras"), keras.saving.load_model("saved.keras")
only = keras.models.clone_model(full)
only.load_weights("only.weights.h5")
for model in (full, saved, only):
    assert type(model) is keras.Sequential, model
    np.testing.assert_array_equal(model.predict(expected["x"], verbose=0), expected["logits"])
assert not any(name.startswith("tutelage") for name in sys.modules)
"""
    run_python(script, tmp_path, "torch")

    trained = distiller.get_weights()
    train(distiller)
    assert not same(trained, distiller.get_weights())
    distiller.load_weights(path)
    assert same(trained, distiller.get_weights())


def test_what_is_exported_is_the_student(tmp_path):
    distiller = pair(teacher=deep(2))
    train(distiller)
    path = str(tmp_path / "student.pt2")
    distiller.export(path, format="torch", verbose=False)
    exported = torch.export.load(path)
    logits = exported.module()(torch.tensor(X[:1])).detach()
    np.testing.assert_allclose(logits, distiller.predict(X[:1], verbose=0), rtol=1e-6)
    assert {tuple(w.shape) for w in exported.state_dict.values()} == {(4, 3), (3,)}


def test_callbacks_watch_and_restore_the_student(tmp_path):
    distiller = pair()
    stop = keras.callbacks.EarlyStopping(mode="max", patience=2, restore_best_weights=True)
    callbacks = [stop, keras.callbacks.CSVLogger(str(tmp_path / "log.csv"))]
    history = train(distiller, epochs=9, validation_data=(X, Y), callbacks=callbacks)
    assert len(history["loss"]) == 3
    assert history["val_loss"][2] < history["val_loss"][0]
    restored = distiller.evaluate(X, Y, **QUIET)["loss"]
    assert restored == pytest.approx(history["val_loss"][0], rel=1e-6)
    with open(tmp_path / "log.csv", newline="") as file:
        column = [float(row["distillation_loss"]) for row in csv.DictReader(file)]
    assert column == history["distillation_loss"]


def learns_by(loss):
    """A distiller's own value of a loss is the loss's, and falls."""
    student, teacher = linear(1), linear(2)
    distiller = Distiller(student=student, teacher=teacher, distillation_losses=loss, alpha=0.9)
    distiller.compile(optimizer=keras.optimizers.SGD(0.1))
    expected = keras.ops.convert_to_numpy(loss.compute_loss(teacher(X), student(X), Y))
    first = distiller.evaluate(X, Y, batch_size=24, **QUIET)["distillation_loss"]
    np.testing.assert_allclose(first, expected, rtol=1e-5)
    distiller.fit(X, np.eye(3)[Y], batch_size=24, epochs=5, shuffle=False, verbose=0)
    last = distiller.evaluate(X, Y, batch_size=24, **QUIET)["distillation_loss"]
    assert last < first


METHODS = [StandardizedKD, DKD, NKD, DIST]


@pytest.mark.parametrize("method", METHODS)
def test_every_method_teaches_inside_fit(method):
    learns_by(method())


@BACKENDS
def test_and_on_other_backends(tmp_path, backend):
    script = f"""
from tests.distillation.test_distiller import METHODS, keras, learns_by
assert keras.backend.backend() == "{backend}"
for method in METHODS:
    learns_by(method())
"""
    run_python(script, tmp_path, backend)


def steps_on_any_backend(student, teacher):
    """Steps with the teacher at hand, then with its stored logits; returns the first's logs."""
    distiller = Distiller(student=student, teacher=teacher)
    distiller.compile(optimizer=keras.optimizers.SGD(0.1), metrics=["accuracy"])
    options = {"sample_weight": WEIGHTS, "shuffle": False}
    logs = train(distiller, validation_data=(X, Y), **options)
    stored = {"images": X, "teacher_logits": keras.ops.convert_to_numpy(teacher(X))}
    distiller = Distiller(student=student, teacher=None)
    distiller.compile(optimizer=keras.optimizers.SGD(0.1))
    train(distiller, stored, **options)
    return logs


@BACKENDS
def test_other_backends_take_the_same_steps(tmp_path, backend):
    student, teacher = deep(1, dropout=0), deep(2)
    np.savez(tmp_path / "student.npz", *student.get_weights())
    np.savez(tmp_path / "teacher.npz", *teacher.get_weights())
    script = """
import os
import numpy as np
from tests.distillation.test_distiller import deep, keras, steps_on_any_backend
assert keras.backend.backend() == os.environ["KERAS_BACKEND"]
student, teacher = deep(1, dropout=0), deep(2)
for name, model in (("student", student), ("teacher", teacher)):
    model.set_weights(list(np.load(f"{name}.npz").values()))
before = teacher.get_weights()
np.savez("logs.npz", **steps_on_any_backend(student, teacher))
np.savez("student.npz", *student.get_weights())
for was, is_now in zip(before, teacher.get_weights(), strict=True):
    np.testing.assert_array_equal(was, is_now)
"""
    run_python(script, tmp_path, backend)
    theirs = np.load(tmp_path / "logs.npz")
    for key, values in steps_on_any_backend(student, teacher).items():
        np.testing.assert_allclose(theirs[key], values, rtol=1e-5, atol=1e-5)
    stepped = np.load(tmp_path / "student.npz").values()
    for ours, other in zip(student.get_weights(), stepped, strict=True):
        np.testing.assert_allclose(other, ours, rtol=1e-5, atol=1e-5)


# Bad input


@pytest.mark.parametrize("bad", [-0.1, 1.1, float("nan"), True, "0.5", None])
def test_impossible_alphas_are_refused(bad):
    with pytest.raises(RecipeError, match=r"^alpha"):
        pair(alpha=bad)


@pytest.mark.parametrize("bad", ["kl_divergence", CrossEntropy(), 4.0, KD])
def test_what_is_no_distillation_loss_is_refused(bad):
    with pytest.raises(RecipeError, match="distillation_losses"):
        pair(distillation_losses=bad)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"student": "mobilenet"}, "student must be a keras.Model, got str"),
        ({"teacher": len}, "teacher must be a keras.Model, got builtin"),
        ({"teacher": linear(classes=5)}, r"output shape, got \(None, 3\).* \(None, 5\)"),
        ({"teacher": linear(inputs=6)}, r"input shape, got \(None, 4\).* \(None, 6\)"),
        ({"teacher": linear(classes=1)}, r"2 classes, got the output shape \(None, 1\)"),
        ({"student": stack(keras.layers.Reshape((2, 2)))}, r"output shape \(None, 2, 2\)"),
    ],
)
def test_models_that_do_not_fit_are_refused(change, words):
    with pytest.raises(ModelError, match=f"^[^\n]*{words}[^\n]*$"):
        pair(**change)


def test_a_teacher_with_a_weight_of_the_students_is_refused():
    student, body = linear(), keras.layers.Dense(8)
    sharers = [stack(body, keras.layers.Dense(3)) for _ in range(2)]
    for one, other in ((student, student), sharers):
        with pytest.raises(ModelError, match="weights"):
            Distiller(student=one, teacher=other)


def test_unknown_shapes_are_compared_at_the_first_batch():
    with pytest.raises(ModelError, match=r"\(8, 5\) .* \(8, 3\)"):
        train(pair(teacher=FeatureExtractor(linear(classes=5))))


@pytest.mark.parametrize(
    "how", [{"sample_weight": WEIGHTS}, {"class_weight": {0: 1.0, 1: 1.0, 2: 2.0}}]
)
def test_a_loss_with_no_value_per_sample_refuses_weights(how):
    with pytest.raises(RecipeError, match="LogitsDistillation"):
        train(pair(distillation_losses=keras.distillation.LogitsDistillation()), **how)


@pytest.mark.parametrize(
    ("teacher", "x", "words"),
    [
        (None, X, "^without a teacher, its logits are expected"),
        (linear(), {"images": X, "teacher_logits": X}, "^.* got a teacher and stored logits"),
        (None, {"images": X, "logits": X}, r"\['images', 'teacher_logits'\], got \['images', 'l"),
    ],
)
def test_a_teachers_logits_from_no_place_or_two_are_refused(teacher, x, words):
    with pytest.raises(RecipeError, match=words):
        train(pair(teacher=teacher), x)


def test_training_without_labels_is_refused():
    distiller = pair()
    distiller.compile()
    with pytest.raises(RecipeError, match=r"^labels"):
        train(distiller, y=None)
