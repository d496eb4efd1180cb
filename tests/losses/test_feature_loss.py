"""Losses on features: their authors' values, gradients and projections."""

import keras
import numpy as np
import pytest
import torch
import torch.nn.functional as F

from tests.distillation.test_distiller import BACKENDS, run_python
from tutelage.errors import ModelError, RecipeError
from tutelage.losses import RKD, AttentionTransfer, FeatureLoss, FitNet, SimilarityPreserving

LOSSES = [FitNet(), AttentionTransfer(), SimilarityPreserving(), RKD()]


def filled(wave, rate, shape):
    """Maps filled in the order (batch, channels, height, width), with the channels put last."""
    values = wave(rate * np.arange(np.prod(shape))).reshape(shape)
    return values if len(shape) == 2 else values.transpose(0, 2, 3, 1)


STUDENT, TEACHER = filled(np.sin, 0.3, (4, 6, 4, 4)), filled(np.cos, 0.2, (4, 8, 4, 4))
ROWS_S, ROWS_T = filled(np.sin, 0.9, (4, 5)), filled(np.cos, 0.4, (4, 7))
GOLDEN = [  # of the authors' own code, in float64
    (AttentionTransfer(), TEACHER, STUDENT, 0.0246402103),
    (AttentionTransfer(), filled(np.cos, 0.2, (4, 8, 8, 8)), STUDENT, 0.0054757489),
    (SimilarityPreserving(), TEACHER, STUDENT, 0.4591657972),
    (RKD(), ROWS_T, ROWS_S, 8.13830084),
    (RKD(distance_weight=1.0, angle_weight=0.0), ROWS_T, ROWS_S, 0.12500101),
    (RKD(distance_weight=0.0, angle_weight=1.0), ROWS_T, ROWS_S, 0.10026551),
]


def value(tensor):
    return float(keras.ops.convert_to_numpy(tensor))


def features(seed, shape=(6, 4, 4, 3), scale=1.0):
    return torch.tensor(np.random.default_rng(seed).normal(0, scale, shape))


def gradient(loss, teacher, student):
    student = student.clone().requires_grad_()
    loss.compute_loss(teacher, student).backward()
    return student.grad


def named(losses):
    return pytest.mark.parametrize("loss", losses, ids=lambda loss: type(loss).__name__)


# Reference


@pytest.mark.parametrize(("loss", "teacher", "student", "golden"), GOLDEN)
def test_a_loss_gives_its_authors_codes_value(loss, teacher, student, golden):
    got = loss.compute_loss(teacher, student)
    assert keras.backend.standardize_dtype(got.dtype) == "float64"
    assert value(got) == pytest.approx(golden, abs=1e-8)


@pytest.mark.parametrize(("loss", "teacher", "student", "golden"), GOLDEN)
def test_and_in_float32(loss, teacher, student, golden):
    got = loss.compute_loss(teacher.astype("float32"), student.astype("float32"))
    assert keras.backend.standardize_dtype(got.dtype) == "float32"
    assert value(got) == pytest.approx(golden, rel=1e-5)


@BACKENDS
def test_other_backends_give_the_same_values(tmp_path, backend):
    script = """
import os
from tests.losses.test_feature_loss import GOLDEN, keras, np
assert keras.backend.backend() == os.environ["KERAS_BACKEND"]
for loss, teacher, student, golden in GOLDEN:
    got = loss.compute_loss(teacher, student)
    assert keras.backend.standardize_dtype(got.dtype) == "float64"
    np.testing.assert_allclose(float(got), golden, 2e-7)
"""
    run_python(script, tmp_path, backend, JAX_ENABLE_X64="1")


def test_fitnet_is_torchs_mean_squared_error():
    teacher, student = features(0), features(1)
    got = FitNet().compute_loss(teacher, student)
    torch.testing.assert_close(got, F.mse_loss(student, teacher), rtol=1e-12, atol=0)


@pytest.mark.parametrize("size", [(4, 4), (3, 5), (7, 2), (8, 8)])
def test_a_larger_map_is_averaged_as_torch_does_it(size):
    teacher, student = features(0, (2, 8, 8, 3)), features(1, (2, *size, 3))
    pooled = F.adaptive_avg_pool2d(teacher.permute(0, 3, 1, 2), size).permute(0, 2, 3, 1)
    expected = F.mse_loss(student, pooled)
    for pair in ((teacher, student), (student, teacher)):
        torch.testing.assert_close(FitNet().compute_loss(*pair), expected, rtol=1e-12, atol=0)


def test_fitnets_projection_is_a_1x1_convolution():
    projection = FitNet().projection([(None, 4, 4, 8)], [(None, 4, 4, 6)], seed=0)
    kernel, bias = projection.weights
    x = features(0, (2, 4, 4, 6)).float()
    expected = F.conv2d(x.permute(0, 3, 1, 2), kernel.value.T[:, :, None, None], bias.value)
    (got,) = keras.tree.flatten(projection([x]))
    torch.testing.assert_close(got.permute(0, 3, 1, 2), expected)


@named(LOSSES)
def test_gradients_are_those_of_finite_differences(loss):
    teacher, student = features(0, (3, 2, 2, 2)), features(1, (3, 2, 2, 2))
    torch.autograd.gradcheck(
        lambda s: loss.compute_loss(teacher, s), (student.requires_grad_(),), atol=1e-7
    )


# Determinism


def test_a_projection_of_one_seed_is_one_projection():
    make = [FitNet().projection([(None, 8)], [(None, 6)], seed) for seed in (0, 0, 1)]
    kernels = [keras.ops.convert_to_numpy(projection.weights[0].value) for projection in make]
    np.testing.assert_array_equal(kernels[0], kernels[1])
    assert (kernels[0] != kernels[2]).any()


# Properties


@named(LOSSES)
def test_zero_at_equality_and_there_alone(loss):
    one, other = features(0), features(1)
    assert value(loss.compute_loss(one, one)) == pytest.approx(0, abs=1e-12)
    assert value(loss.compute_loss(one, other)) > 1e-3
    assert torch.isfinite(gradient(loss, one, one)).all()


@named([AttentionTransfer(), SimilarityPreserving(), RKD()])
def test_what_is_compared_is_relative_to_size(loss):
    one, other = features(0), features(1)
    torch.testing.assert_close(loss.compute_loss(one, 7 * other), loss.compute_loss(one, other))


@named([SimilarityPreserving(), RKD()])
def test_relations_need_no_features_of_one_shape(loss):
    assert 0 < value(loss.compute_loss(features(0, (6, 5)), features(1, (6, 4, 4, 3)))) < 100


@named(LOSSES)
def test_several_pairs_are_summed(loss):
    teacher, student = [features(0), features(1)], [features(2), features(3)]
    each = [loss.compute_loss(t, s) for t, s in zip(teacher, student, strict=True)]
    torch.testing.assert_close(loss.compute_loss(teacher, student), each[0] + each[1])


@named(LOSSES)
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32])
@pytest.mark.parametrize("size", [0.0, 1e-30, 1000.0])
def test_features_of_a_thousand_and_of_nothing_give_finite_values_and_gradients(loss, dtype, size):
    teacher, student = (features(i, scale=size).to(dtype) for i in (0, 1))
    got = loss.compute_loss(teacher, student)
    assert got.dtype == torch.float32
    assert torch.isfinite(got)
    assert torch.isfinite(gradient(loss, teacher, student)).all()


@named(LOSSES)
def test_little_is_lost_in_bfloat16(loss):
    teacher, student = features(0).bfloat16(), features(1).bfloat16()
    exact = value(loss.compute_loss(teacher.double(), student.double()))
    assert value(loss.compute_loss(teacher, student)) == pytest.approx(exact, rel=1e-5)


@named([RKD(2.0, 3.0, "a", "b"), FitNet("a", "b"), AttentionTransfer(["a", "c"], ["b", "d"])])
def test_a_loss_survives_serialisation(loss):
    packed = keras.saving.serialize_keras_object(loss)
    assert packed["registered_name"].startswith("tutelage>")
    again = keras.saving.deserialize_keras_object(packed)
    assert type(again) is type(loss)
    assert again.get_config() == loss.get_config()


def test_defaults_are_the_authors():
    assert RKD().get_config() == {
        "distance_weight": 25.0,
        "angle_weight": 50.0,
        "teacher_layer_name": None,
        "student_layer_name": None,
    }


# Bad input


@pytest.mark.parametrize(
    "names", [("a", None), (None, "a"), (["a", "b"], "c"), ("", "a"), ([], []), (3, 4)]
)
def test_names_that_do_not_pair_are_refused(names):
    with pytest.raises(RecipeError, match="layer"):
        FitNet(*names)


@pytest.mark.parametrize(
    ("loss", "teacher", "student", "offender"),
    [
        (FitNet(), (2, 4, 4, 3), (2, 4, 4, 5), "FitNet"),
        (FitNet(), (2, 4, 4, 3), (2, 3), r"\(2, 4, 4, 3\)"),
        (AttentionTransfer(), (2, 3), (2, 3), "AttentionTransfer"),
        (RKD(), (1, 3), (1, 3), "2 samples"),
        (SimilarityPreserving(), (3, 3), (2, 3), r"\(3, 3\)"),
    ],
)
def test_features_that_can_not_be_compared_are_refused(loss, teacher, student, offender):
    with pytest.raises(ModelError, match=offender):
        loss.compute_loss(np.zeros(teacher), np.zeros(student))


def test_as_many_features_of_both_are_needed():
    with pytest.raises(ModelError, match="2 and 1"):
        RKD().compute_loss([np.ones((2, 3))] * 2, np.ones((2, 3)))


@pytest.mark.parametrize("name", ["distance_weight", "angle_weight"])
def test_impossible_weights_are_refused_by_name(name):
    with pytest.raises(RecipeError, match=f"^{name}"):
        RKD(**{name: -1})


def test_a_loss_of_ones_own_needs_only_of_pair():
    class Difference(FeatureLoss):
        def of_pair(self, teacher, student):
            return keras.ops.sum(teacher - student)

    assert value(Difference().compute_loss(np.ones((2, 3)), np.zeros((2, 3)))) == 6
