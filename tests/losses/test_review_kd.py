"""Knowledge review: its authors' values, its projection, and what it refuses."""

import importlib.util

import keras
import numpy as np
import pytest
import torch

from tests.distillation.test_distiller import run_python
from tests.losses.test_feature_loss import features, filled, gradient, value
from tutelage.errors import ModelError, RecipeError
from tutelage.losses import ReviewKD

# Shapes are the authors', (channels, height, width); the pooled features have no height.
STACKS = {
    "their stages": ([(3, 8, 8), (4, 4, 4), (5,)], [(3, 8, 8), (4, 4, 4), (5,)]),
    "a larger teacher": ([(3, 8, 8), (4, 4, 4), (5,)], [(4, 16, 16), (6, 8, 8), (7,)]),
    "sizes that don't divide": (
        [(3, 9, 9), (4, 6, 6), (4, 4, 4)],
        [(5, 7, 7), (4, 4, 4), (6, 3, 3)],
    ),
}


def maps(wave, rate, shapes):
    return [filled(wave, rate + 0.1 * i, (4, *shape)) for i, shape in enumerate(shapes)]


def fused(stack):
    """The student's features through a projection whose weights are known, and the teacher's.

    The k-th of the trained weights, by name, has the values sin(0.7 n + k) for n = 0, 1, ... in
    Keras' layout; of a scale, one more.
    """
    student, teacher = maps(np.sin, 0.3, STACKS[stack][0]), maps(np.cos, 0.2, STACKS[stack][1])
    shapes = [[(None, *x.shape[1:]) for x in both] for both in (teacher, student)]
    projection = ReviewKD().projection(*shapes, seed=0)
    for k, variable in enumerate(sorted(projection.trainable_variables, key=lambda v: v.path)):
        values = np.sin(0.7 * np.arange(np.prod(variable.shape)) + k).reshape(variable.shape)
        variable.assign(values + variable.path.endswith("gamma"))
    outputs = projection([x.astype(keras.config.floatx()) for x in student], training=True)
    return teacher, outputs, projection


# Of the authors' own code, in float64: of their loss alone (channels, height, width of both),
# and of their modules, with the same weights, and it.
GOLDEN = [
    ((6, 8, 8), 0.613568641126),
    ((6, 7, 7), 0.596496390947),
    ((6, 5, 3), 0.828959090270),
    ((6, 4, 4), 0.803122791967),
    ((6, 2, 2), 0.733015769366),
    ((6, 1, 1), 0.232917710349),
]
FUSED = [
    ("their stages", 5.997367352190),
    ("a larger teacher", 5.594678830153),
    ("sizes that don't divide", 5.496727862891),
]


def projected(seed=0, mid_channels=None):
    shapes = [[(None, 8, 8, count), (None, 4, 4, 2 * count)] for count in (96, 64)]
    return ReviewKD(mid_channels).projection(*shapes, seed=seed)


def arrays(model):
    return {v.path: keras.ops.convert_to_numpy(v) for v in model.variables}


# Reference


@pytest.mark.parametrize(("shape", "golden"), GOLDEN)
def test_the_loss_is_its_authors_at_every_size(shape, golden):
    teacher, student = filled(np.cos, 0.2, (4, *shape)), filled(np.sin, 0.3, (4, *shape))
    got = ReviewKD().compute_loss(teacher, student)
    assert keras.backend.standardize_dtype(got.dtype) == "float64"
    assert value(got) == pytest.approx(golden, rel=1e-10)
    narrow = ReviewKD().compute_loss(teacher.astype("float32"), student.astype("float32"))
    assert keras.backend.standardize_dtype(narrow.dtype) == "float32"
    assert value(narrow) == pytest.approx(golden, rel=1e-5)


@pytest.mark.parametrize(("stack", "golden"), FUSED)
def test_the_fused_stages_give_the_authors_loss(stack, golden):
    teacher, outputs, _ = fused(stack)
    assert [tuple(x.shape) for x in outputs] == [x.shape for x in teacher]
    narrow = [x.astype("float32") for x in teacher]
    assert value(ReviewKD().compute_loss(narrow, outputs)) == pytest.approx(golden, rel=1e-5)


@pytest.mark.skipif(importlib.util.find_spec("jax") is None, reason="JAX is not installed")
def test_jax_gives_the_same_values(tmp_path):
    script = """
from tests.losses.test_review_kd import FUSED, ReviewKD, fused, keras, np
assert keras.backend.backend() == "jax"
for stack, golden in FUSED:
    teacher, outputs, _ = fused(stack)
    got = float(ReviewKD().compute_loss([x.astype("float32") for x in teacher], outputs))
    np.testing.assert_allclose(got, golden, rtol=1e-5)
"""
    run_python(script, tmp_path, "jax")


@pytest.mark.parametrize("size", [5, 2, 1])
def test_gradients_are_those_of_finite_differences(size):
    teacher, student = features(0, (2, size, size, 2)), features(1, (2, size, size, 2))
    torch.autograd.gradcheck(
        lambda s: ReviewKD().compute_loss(teacher, s), (student.requires_grad_(),), atol=1e-7
    )


def test_initial_weights_have_the_authors_spread():
    # Uniform: a variance of bound^2 / 3. The attention's is PyTorch's own for a convolution.
    found = arrays(projected())
    for name, bound in [
        ("stage0_in/kernel", (3 / 64) ** 0.5),
        ("stage0_out/kernel", (3 / (9 * 128)) ** 0.5),
        ("stage0_attention/kernel", (2 * 128) ** -0.5),
    ]:
        assert 0.95 * bound < np.abs(found[name]).max() <= bound
        assert found[name].std() == pytest.approx(bound / 3**0.5, rel=0.1)
    assert 0 < np.abs(found["stage0_attention/bias"]).max() <= (2 * 128) ** -0.5


# Determinism


def test_a_projection_of_one_seed_is_one_projection():
    one, again, other = (arrays(projected(seed)) for seed in (0, 0, 1))
    for name in one:
        np.testing.assert_array_equal(one[name], again[name])
        if name.endswith(("kernel", "attention/bias")):
            assert (one[name] != other[name]).any()
    assert (one["stage0_attention/kernel"].ravel()[:2] != one["stage0_attention/bias"]).all()


# Properties


def test_zero_at_equality_and_there_alone():
    one, other = features(0, (6, 8, 8, 3)), features(1, (6, 8, 8, 3))
    assert value(ReviewKD().compute_loss(one, one)) == 0
    assert value(ReviewKD().compute_loss(one, other)) > 1e-3


def test_a_constant_gap_weighs_the_same_at_every_size():
    for shape in [(2, 8, 8, 3), (2, 3, 3, 3), (2, 1, 1, 3), (2, 3)]:
        gap = ReviewKD().compute_loss(np.full(shape, 3.0), np.ones(shape))
        assert value(gap) == pytest.approx(4, rel=1e-12)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32])
@pytest.mark.parametrize("size", [0.0, 1e-30, 1000.0])
def test_features_of_a_thousand_and_of_nothing_give_finite_values_and_gradients(dtype, size):
    teacher, student = (features(i, (6, 8, 8, 3), scale=size).to(dtype) for i in (0, 1))
    got = ReviewKD().compute_loss(teacher, student)
    assert got.dtype == torch.float32
    assert torch.isfinite(got)
    assert torch.isfinite(gradient(ReviewKD(), teacher, student)).all()
    projection = ReviewKD().projection([(None, 4, 4, 2)], [(None, 8, 8, 3)], seed=0)
    (learned,) = keras.tree.flatten(projection([student], training=True))
    assert learned.dtype == torch.float32
    assert torch.isfinite(learned).all()


def test_little_is_lost_in_bfloat16():
    teacher, student = (features(i, (6, 8, 8, 3)).bfloat16() for i in (0, 1))
    exact = value(ReviewKD().compute_loss(teacher.double(), student.double()))
    assert value(ReviewKD().compute_loss(teacher, student)) == pytest.approx(exact, rel=1e-5)


def test_several_pairs_are_summed():
    teacher, student = [features(0), features(1)], [features(2), features(3)]
    each = [ReviewKD().compute_loss(t, s) for t, s in zip(teacher, student, strict=True)]
    torch.testing.assert_close(ReviewKD().compute_loss(teacher, student), each[0] + each[1])


def test_deeper_stages_reach_those_before_them_and_not_the_other_way():
    projection = projected()
    near, deep = (features(i, s).float() for i, s in ((0, (2, 8, 8, 64)), (1, (2, 4, 4, 128))))
    first, last = projection([near, deep])
    other_first, same_last = projection([near + 1, deep])
    torch.testing.assert_close(last, same_last, rtol=0, atol=0)
    assert (first != other_first).any()
    assert (projection([near, deep + 1])[0] != first).any()


def test_statistics_move_in_training_alone_and_are_not_trained():
    projection = projected()
    images = [features(0, (2, 8, 8, 64)).float(), features(1, (2, 4, 4, 128)).float()]
    before = arrays(projection)
    projection(images, training=False)
    assert all((array == before[name]).all() for name, array in arrays(projection).items())
    projection(images, training=True)
    moved = {name for name, array in arrays(projection).items() if (array != before[name]).any()}
    assert moved == {v.path for v in projection.non_trainable_variables}
    assert len(moved) == 8


def test_channels_between_are_the_deepest_stages_up_to_512():
    assert projected().get_layer("stage0_in").filters == 128
    assert projected(mid_channels=5).get_layer("stage0_in").filters == 5
    broad = ReviewKD().projection([(None, 3)], [(None, 600)], seed=0)
    assert broad.get_layer("stage0_in").filters == 512


def test_it_survives_serialisation():
    loss = ReviewKD(5, ["a", "b"], ["c", "d"])
    packed = keras.saving.serialize_keras_object(loss)
    assert packed["registered_name"] == "tutelage>ReviewKD"
    again = keras.saving.deserialize_keras_object(packed)
    assert type(again) is ReviewKD
    assert again.get_config() == loss.get_config()
    assert ReviewKD().get_config() == {
        "mid_channels": None,
        "teacher_layer_name": None,
        "student_layer_name": None,
    }


# Bad input


@pytest.mark.parametrize("mid_channels", [0, -1, 2.0, True, "64"])
def test_impossible_channels_are_refused(mid_channels):
    with pytest.raises(RecipeError, match=r"^mid_channels"):
        ReviewKD(mid_channels)


@pytest.mark.parametrize(
    ("teacher", "student", "offender"),
    [
        ((2, 4, 4, 3), (2, 4, 4, 5), "ReviewKD"),
        ((2, 4, 4, 3), (2, 3), r"\(2, 4, 4, 3\)"),
        ((2, 4, 3), (2, 4, 3), "two maps"),
        ((3, 4, 4, 3), (2, 4, 4, 3), r"\(3, 4, 4, 3\)"),
    ],
)
def test_features_that_can_not_be_compared_are_refused(teacher, student, offender):
    with pytest.raises(ModelError, match=offender):
        ReviewKD().compute_loss(np.zeros(teacher), np.zeros(student))


def test_features_that_can_not_be_fused_are_refused():
    small, large = (None, 4, 4, 3), (None, 8, 8, 3)
    with pytest.raises(ModelError, match=r"\[4, 8\]"):
        ReviewKD().projection([small, large], [small, large], seed=0)
    for shape in ((None, None, None, 3), (None, 7, 3)):
        with pytest.raises(ModelError, match="convolutions"):
            ReviewKD().projection([small], [shape], seed=0)
