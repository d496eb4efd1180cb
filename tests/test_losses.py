import keras
import numpy as np
import pytest
import torch
import torch.nn.functional as F

from tutelage.errors import ModelError, RecipeError
from tutelage.losses import KD, CrossEntropy, LogitsLoss

I = np.arange(40.0).reshape(4, 10)  # noqa: E741
STUDENT, TEACHER = 3 * np.sin(0.7 * I), 4 * np.cos(0.5 * I)
LABELS = np.array([3, 0, 7, 9])


def value(tensor):
    return float(keras.ops.convert_to_numpy(tensor))


def logits(seed, shape=(16, 7), scale=3.0):
    return torch.tensor(np.random.default_rng(seed).normal(0, scale, shape))


def gradient(loss, teacher, student):
    student = student.clone().requires_grad_()
    loss.compute_loss(teacher, student).backward()
    return student.grad


# Reference


@pytest.mark.parametrize(("temperature", "golden"), [(1.0, 2.05358535), (4.0, 4.36084564)])
def test_kd_gives_the_published_codes_values(temperature, golden):
    assert value(KD(temperature).compute_loss(TEACHER, STUDENT)) == pytest.approx(golden, abs=1e-8)


@pytest.mark.parametrize("temperature", [0.5, 1.0, 3.0, 20.0])
def test_kd_is_torchs_kl_div_times_the_temperature_squared(temperature):
    teacher, student = logits(0), logits(1)
    expected = temperature**2 * F.kl_div(
        F.log_softmax(student / temperature, -1),
        F.log_softmax(teacher / temperature, -1),
        reduction="batchmean",
        log_target=True,
    )
    got = KD(temperature).compute_loss(teacher, student)
    assert got.dtype == torch.float64
    torch.testing.assert_close(got, expected, rtol=1e-12, atol=0)


def test_per_sample_is_each_rows_divergence():
    p, q = (np.exp(z) / np.exp(z).sum(-1, keepdims=True) for z in (TEACHER / 2, STUDENT / 2))
    expected = 4 * (p * np.log(p / q)).sum(-1)
    got = KD(2.0).per_sample(TEACHER, STUDENT, LABELS)
    np.testing.assert_allclose(keras.ops.convert_to_numpy(got), expected, rtol=1e-12)


def test_kd_gradient_is_that_of_finite_differences():
    teacher, student = logits(0, (3, 5)), logits(1, (3, 5)).requires_grad_()
    assert torch.autograd.gradcheck(lambda z: KD(2.0).compute_loss(teacher, z), student)


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_cross_entropy_is_torchs(smoothing):
    z, y = logits(2), torch.arange(16) % 7
    expected = F.cross_entropy(z, y, label_smoothing=smoothing)
    got = CrossEntropy(label_smoothing=smoothing)(y, z)
    torch.testing.assert_close(got.double(), expected, rtol=1e-6, atol=0)


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_cross_entropy_of_soft_labels_is_torchs(smoothing):
    z, y = logits(2), torch.softmax(logits(3), -1)
    expected = F.cross_entropy(z, y, label_smoothing=smoothing)
    got = CrossEntropy(label_smoothing=smoothing)(y, z)
    torch.testing.assert_close(got.double(), expected, rtol=1e-6, atol=0)


def test_keras_own_distiller_gets_our_value():
    teacher, student = (keras.Sequential([keras.Input((4,)), keras.layers.Dense(3)]) for _ in "ts")
    own = keras.distillation.Distiller(
        teacher=teacher, student=student, distillation_losses=KD(2.0), student_loss_weight=0.0
    )
    own.compile(optimizer="sgd", loss="sparse_categorical_crossentropy")
    x = np.random.default_rng(0).normal(size=(8, 4)).astype("float32")
    logs = own.evaluate(x, np.zeros(8), verbose=0, return_dict=True)
    expected = value(KD(2.0).compute_loss(teacher(x), student(x)))
    assert expected > 0.1
    assert logs["distillation_loss"] == pytest.approx(expected, rel=1e-5)


# Determinism


def test_same_logits_give_the_same_bits():
    first, again = (KD().per_sample(logits(0).float(), logits(1).float()) for _ in range(2))
    assert torch.equal(first, again)


# Properties


def test_kd_is_zero_with_no_gradient_where_teacher_and_student_agree():
    z = logits(0)
    assert value(KD().compute_loss(z, z)) == 0
    assert gradient(KD(), z, z).abs().max() < 1e-12


def test_kd_is_never_negative():
    assert (KD().per_sample(logits(0, (500, 7)), logits(1, (500, 7))) > 0).all()


def test_kd_ignores_a_constant_added_to_all_logits():
    teacher, student = logits(0), logits(1)
    shifted = KD().compute_loss(teacher + 5, student - 17)
    torch.testing.assert_close(shifted, KD().compute_loss(teacher, student), rtol=1e-10, atol=0)


def test_kd_gradient_keeps_its_size_at_high_temperatures():
    sizes = [gradient(KD(t), logits(0), logits(1)).norm() for t in (100.0, 10000.0)]
    torch.testing.assert_close(sizes[0], sizes[1], rtol=0.05, atol=0)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32])
def test_extreme_logits_give_finite_values_and_gradients(dtype):
    teacher = torch.tensor([[1000.0, -1000.0, 0.0]], dtype=dtype)
    assert value(KD(1.0).compute_loss(teacher, -teacher)) == 2000
    assert torch.isfinite(gradient(KD(1.0), teacher, -teacher)).all()
    assert gradient(KD(1.0), teacher, -teacher).abs().max() == 1
    assert value(CrossEntropy()(torch.tensor([1]), teacher)) == 2000


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_logits_lose_no_more_than_their_own_rounding(dtype):
    teacher, student = logits(0).to(dtype), logits(1).to(dtype)
    exact = KD().per_sample(teacher.double(), student.double())
    got = KD().per_sample(teacher, student)
    assert got.dtype == torch.float32
    torch.testing.assert_close(got.double(), exact, rtol=1e-4, atol=1e-6)


def test_kd_defaults_to_temperature_four():
    assert KD().temperature == 4
    assert value(KD().compute_loss(TEACHER, STUDENT)) == pytest.approx(4.36084564, abs=1e-8)


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_integer_column_and_one_hot_labels_give_the_same_value(smoothing):
    loss, one_hot = CrossEntropy(label_smoothing=smoothing), np.eye(10)[LABELS]
    values = {value(loss(y, STUDENT)) for y in (LABELS, LABELS[:, None], one_hot)}
    assert len(values) == 1


@pytest.mark.parametrize("loss", [KD(temperature=2.5), CrossEntropy(label_smoothing=0.2)])
def test_a_loss_survives_serialisation(loss):
    packed = keras.saving.serialize_keras_object(loss)
    assert packed["registered_name"].startswith("tutelage>")
    again = keras.saving.deserialize_keras_object(packed)
    assert type(again) is type(loss)
    assert again.get_config() == loss.get_config()


def test_a_loss_of_ones_own_needs_only_per_sample():
    class Squares(LogitsLoss):
        def per_sample(self, teacher_outputs, student_outputs, labels=None):
            return keras.ops.mean((teacher_outputs - student_outputs) ** 2, axis=-1)

    expected = ((TEACHER - STUDENT) ** 2).mean()
    assert value(Squares().compute_loss(TEACHER, STUDENT)) == pytest.approx(expected)


# Bad input


@pytest.mark.parametrize("bad", [0, -1.0, float("nan"), float("inf"), True, "4", None])
def test_impossible_temperatures_are_refused(bad):
    with pytest.raises(RecipeError, match=r"^temperature must be a finite number above 0, got .*$"):
        KD(temperature=bad)


@pytest.mark.parametrize("bad", [-0.1, 1.0, float("nan"), True, "0.1"])
def test_impossible_smoothings_are_refused(bad):
    with pytest.raises(RecipeError, match=r"^label_smoothing must be at least 0 and below 1, got"):
        CrossEntropy(label_smoothing=bad)


@pytest.mark.parametrize("shape", [(4, 9), (4, 1), (1, 10), (4, 10, 1), (10,)])
def test_logits_of_other_shapes_are_refused_by_name(shape):
    with pytest.raises(ModelError) as caught:
        KD().compute_loss(np.zeros(shape), STUDENT)
    assert str(shape) in str(caught.value)
    assert "(4, 10)" in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("shape", [(3,), (4, 9), (4, 10, 1)])
def test_labels_of_other_shapes_are_refused_by_name(shape):
    with pytest.raises(ModelError) as caught:
        CrossEntropy()(np.zeros(shape), STUDENT)
    assert str(shape) in str(caught.value)
    assert "(4, 10)" in str(caught.value)
