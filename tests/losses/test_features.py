"""Losses on features: their authors' values, gradients, projections, and which layers they pick."""

import keras
import numpy as np
import pytest
import torch
import torch.nn.functional as F

from tests.distillation.test_distiller import BACKENDS, run_python
from tutelage.errors import ModelError, RecipeError
from tutelage.losses import RKD, AttentionTransfer, FeatureLoss, FitNet, SimilarityPreserving
from tutelage.losses import layer_selection as picked
from tutelage.models import zoo

LOSSES = [FitNet(), AttentionTransfer(), SimilarityPreserving(), RKD()]
RNG = np.random.default_rng(0)


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


def convolutional(name, filters=(4, 6)):
    inputs = keras.Input((8, 8, 1))
    x = inputs
    for i, count in enumerate(filters):
        x = keras.layers.Conv2D(count, 3, padding="same", name=f"conv{i}")(x)
        x = keras.layers.MaxPooling2D(name=f"pool{i}")(x)
    x = keras.layers.Flatten(name="flat")(x)
    x = keras.layers.Dropout(0.5, name="drop")(x)
    return keras.Model(inputs, keras.layers.Dense(3, name="head")(x), name=name)


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
from tests.losses.test_features import GOLDEN, keras, np
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


# Which layers


def test_stages_are_the_last_layers_of_each_resolution():
    images = RNG.integers(0, 256, (8, 32, 32, 3), dtype=np.uint8)
    teacher = zoo.build("teacher-2m", images=images, classes=10, seed=0)
    names = picked.stages(teacher)
    assert names == ["block1_norm2", "block2_norm2", "block3_norm2", "block3_pool"]
    sizes = [teacher.get_layer(name).output.shape[1:] for name in names]
    assert sizes == [(32, 32, 64), (16, 16, 128), (8, 8, 256), (4, 4, 256)]
    assert teacher.get_layer(picked.embedding(teacher)).output.shape == (None, 256)


def test_each_loss_picks_its_own():
    teacher, student = convolutional("t", (4, 6)), convolutional("s", (5,))
    both = [("conv1", "conv0"), ("pool1", "pool0")]
    assert AttentionTransfer().pairs(teacher, student) == both
    assert FitNet().pairs(teacher, student) == [("pool1", "pool0")]
    assert SimilarityPreserving().pairs(teacher, student) == [("pool1", "pool0")]
    assert RKD().pairs(teacher, student) == [("flat", "flat")]


def test_named_layers_are_taken_in_their_order():
    teacher, student = convolutional("t"), convolutional("s")
    loss = AttentionTransfer(["pool1", "conv0"], ["conv1", "pool0"])
    assert loss.pairs(teacher, student) == [("pool1", "conv1"), ("conv0", "pool0")]
    assert FitNet("pool1", "conv1").pairs(teacher, student) == [("pool1", "conv1")]


# Bad input


@pytest.mark.parametrize(
    "names", [("a", None), (None, "a"), (["a", "b"], "c"), ("", "a"), ([], []), (3, 4)]
)
def test_names_that_do_not_pair_are_refused(names):
    with pytest.raises(RecipeError, match="layer"):
        FitNet(*names)


def test_a_layer_that_is_not_there_is_refused_with_those_that_are():
    models = convolutional("t"), convolutional("s")
    with pytest.raises(RecipeError, match=r"'conv7': .* pool1"):
        FitNet("conv1", "conv7").pairs(*models)
    with pytest.raises(RecipeError, match=r"teacher t .*pool1"):
        FitNet("pol1", "conv1").pairs(*models)


def test_models_without_such_layers_are_refused():
    dense = keras.Sequential([keras.Input((4,)), keras.layers.Dense(3)])
    with pytest.raises(ModelError, match="feature maps"):
        AttentionTransfer().pairs(dense, dense)
    anywhere = keras.Sequential([keras.Input((None, None, 1)), keras.layers.Conv2D(2, 3)])
    with pytest.raises(ModelError, match="any size"):
        AttentionTransfer().pairs(anywhere, anywhere)

    class Own(keras.Model):
        pass

    with pytest.raises(ModelError, match="got Own"):
        RKD().pairs(Own(), convolutional("s"))
    headless = keras.Sequential([keras.Input((4,)), keras.layers.ReLU()])
    with pytest.raises(ModelError, match="dense layer"):
        RKD().pairs(headless, headless)


@pytest.mark.parametrize(
    ("loss", "teacher", "student", "words"),
    [
        (FitNet(), (2, 4, 4, 3), (2, 4, 4, 5), "as many channels, got .* learns a projection"),
        (FitNet(), (2, 4, 4, 3), (2, 3), r"two maps .* got \(2, 4, 4, 3\) from the teacher"),
        (AttentionTransfer(), (2, 3), (2, 3), "compares maps .* name convolutions"),
        (RKD(), (1, 3), (1, 3), "at least 2 samples, got 1"),
        (SimilarityPreserving(), (3, 3), (2, 3), "of one batch are expected"),
    ],
)
def test_features_that_can_not_be_compared_are_refused(loss, teacher, student, words):
    with pytest.raises(ModelError, match=words):
        loss.compute_loss(np.zeros(teacher), np.zeros(student))


def test_as_many_features_of_both_are_needed():
    with pytest.raises(ModelError, match="got 2 and 1"):
        RKD().compute_loss([np.ones((2, 3))] * 2, np.ones((2, 3)))


@pytest.mark.parametrize("name", ["distance_weight", "angle_weight"])
def test_impossible_weights_are_refused_by_name(name):
    with pytest.raises(RecipeError, match=f"^{name} .*-1"):
        RKD(**{name: -1})


def test_a_loss_of_ones_own_needs_only_of_pair():
    class Difference(FeatureLoss):
        def of_pair(self, teacher, student):
            return keras.ops.sum(teacher - student)

    assert value(Difference().compute_loss(np.ones((2, 3)), np.zeros((2, 3)))) == 6
