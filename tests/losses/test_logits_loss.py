import keras
import numpy as np
import pytest
import torch
import torch.nn.functional as F

from tests.distillation.test_distiller import BACKENDS, run_python
from tutelage.errors import ModelError, RecipeError
from tutelage.losses import DIST, DKD, KD, NKD, CrossEntropy, LogitsLoss, StandardizedKD

I = np.arange(40.0).reshape(4, 10)  # noqa: E741
STUDENT, TEACHER = 3 * np.sin(0.7 * I), 4 * np.cos(0.5 * I)
LABELS = np.array([3, 0, 7, 9])
GOLDEN = [  # of the authors' own code, in float64
    (KD(1.0), 2.05358535),
    (KD(), 4.36084564),
    (StandardizedKD(), 0.70262734),
    (DKD(), 38.39104026),
    (DKD(alpha=1.0, beta=0.0), 0.16069006),
    (DKD(alpha=0.0, beta=1.0), 4.77879377),
    (DKD(beta=0.5, temperature=1.0), 1.14734078),
    (NKD(), 5.07067155),
    (NKD(gamma=3.5, temperature=3.0), 73.34325602),
    (DIST(), 1.80868455),
    (DIST(gamma=0.0), 0.88202434),
    (DIST(beta=0.0), 0.92666021),
    (DIST(temperature=4.0), 26.56486804),
]
LOSSES = [KD(), StandardizedKD(), DKD(), NKD(), DIST()]
DIVERGENCES = [KD(), StandardizedKD(), DKD(), DIST()]
LABELLED = [DKD(), NKD()]


def value(tensor):
    return float(keras.ops.convert_to_numpy(tensor))


def logits(seed, shape=(16, 7), scale=3.0):
    return torch.tensor(np.random.default_rng(seed).normal(0, scale, shape))


def gradient(loss, teacher, student):
    student = student.clone().requires_grad_()
    loss.compute_loss(teacher, student, torch.arange(len(student)) % student.shape[1]).backward()
    return student.grad


def named(losses):
    return pytest.mark.parametrize("loss", losses, ids=lambda loss: type(loss).__name__)


# Reference


@pytest.mark.parametrize(("loss", "golden"), GOLDEN, ids=lambda x: type(x).__name__)
def test_a_loss_gives_its_authors_codes_value(loss, golden):
    got = value(loss.compute_loss(TEACHER, STUDENT, LABELS))
    # The authors' code of standardised KD adds its constant in float32; of DIST it rounds.
    rough = {StandardizedKD: {"rel": 2e-7}, DIST: {"rel": 3e-8}}
    assert got == pytest.approx(golden, **rough.get(type(loss), {"abs": 1e-8}))


@pytest.mark.parametrize(("loss", "golden"), GOLDEN, ids=lambda x: type(x).__name__)
def test_and_in_float32(loss, golden):
    teacher, student = (z.astype("float32") for z in (TEACHER, STUDENT))
    got = loss.compute_loss(teacher, student, LABELS)
    assert keras.backend.standardize_dtype(got.dtype) == "float32"
    assert value(got) == pytest.approx(golden, rel=1e-5)


@BACKENDS
def test_other_backends_give_the_same_values(tmp_path, backend):
    script = """
import os
from tests.losses.test_logits_loss import GOLDEN, LABELS, STUDENT, TEACHER, keras, np
assert keras.backend.backend() == os.environ["KERAS_BACKEND"]
for loss, golden in GOLDEN:
    got = loss.compute_loss(TEACHER, STUDENT, LABELS)
    assert keras.backend.standardize_dtype(got.dtype) == "float64"
    np.testing.assert_allclose(float(got), golden, 2e-7)
"""
    run_python(script, tmp_path, backend, JAX_ENABLE_X64="1")


def test_dkd_at_equal_weights_of_its_terms_is_kd_where_the_teacher_knows_nothing():
    # KD = TCKD + (1 - p_t[y]) NCKD (arXiv 2203.08679); here p_t[y] is 1/7.
    teacher, student, labels = torch.zeros(16, 7).double(), logits(1), torch.arange(16) % 7
    expected = KD(3.0).compute_loss(teacher, student)
    got = DKD(beta=6 / 7, temperature=3.0).compute_loss(teacher, student, labels)
    torch.testing.assert_close(got, expected, rtol=1e-12, atol=0)


def test_dist_is_one_less_numpys_correlations():
    p, q = (np.exp(z) / np.exp(z).sum(-1, keepdims=True) for z in (TEACHER, STUDENT))
    rows = np.mean([np.corrcoef(a, b)[0, 1] for a, b in zip(p, q, strict=True)])
    columns = np.mean([np.corrcoef(a, b)[0, 1] for a, b in zip(p.T, q.T, strict=True)])
    got = value(DIST(beta=2.0, gamma=3.0).compute_loss(TEACHER, STUDENT))
    assert got == pytest.approx(2 * (1 - rows) + 3 * (1 - columns), rel=1e-6)


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


@named(LOSSES)
def test_a_gradient_is_that_of_finite_differences(loss):
    teacher, student = logits(0, (3, 5)), logits(1, (3, 5)).requires_grad_()
    labels = torch.tensor([4, 0, 2])
    assert torch.autograd.gradcheck(lambda z: loss.compute_loss(teacher, z, labels), student)


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


@named(DIVERGENCES)
def test_a_divergence_is_zero_with_no_gradient_where_teacher_and_student_agree(loss):
    z = logits(0)
    small = 1e-6 if isinstance(loss, DIST) else 1e-12  # its authors add 1e-8 to a denominator
    assert abs(value(loss.compute_loss(z, z, torch.arange(16) % 7))) < small
    assert gradient(loss, z, z).abs().max() < small


@named([KD(), StandardizedKD(), DKD(), NKD()])
def test_a_value_is_never_negative(loss):
    labels = torch.arange(500) % 7
    assert (loss.per_sample(logits(0, (500, 7)), logits(1, (500, 7)), labels) > 0).all()


@named(LOSSES)
def test_a_loss_ignores_a_constant_added_to_all_logits(loss):
    teacher, student, labels = logits(0), logits(1), torch.arange(16) % 7
    shifted = loss.compute_loss(teacher + 5, student - 17, labels)
    expected = loss.compute_loss(teacher, student, labels)
    torch.testing.assert_close(shifted, expected, rtol=1e-10, atol=0)


def test_standardised_kd_ignores_the_logits_size_too():
    teacher, student = logits(0), logits(1)
    got = StandardizedKD().compute_loss(teacher * 3 + 1, student * 0.2)
    expected = StandardizedKD().compute_loss(teacher, student)
    torch.testing.assert_close(got, expected, rtol=1e-5, atol=0)


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


@named(LOSSES)
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32])
def test_logits_of_a_thousand_and_of_nothing_give_finite_values_and_gradients(loss, dtype):
    teacher = torch.tensor([[1000.0, -1000.0, 0.0], [-1000.0, 0.0, 1000.0], [0.0] * 3], dtype=dtype)
    for student in (teacher, -teacher, torch.zeros_like(teacher)):
        labels = torch.arange(3)
        assert np.isfinite(value(loss.compute_loss(teacher, student, labels)))
        assert torch.isfinite(gradient(loss, teacher, student)).all()


@named([StandardizedKD(), DKD(), NKD(), DIST()])
def test_the_others_lose_little_in_bfloat16(loss):
    teacher, student = logits(0).bfloat16(), logits(1).bfloat16()
    labels = torch.arange(16) % 7
    exact = value(loss.compute_loss(teacher.double(), student.double(), labels))
    assert value(loss.compute_loss(teacher, student, labels)) == pytest.approx(exact, rel=1e-5)


@named(LABELLED)
def test_labels_of_any_form_give_one_value(loss):
    one_hot = np.eye(10)[LABELS]
    forms = (LABELS, LABELS[:, None], one_hot, torch.tensor(LABELS))
    assert len({value(loss.compute_loss(TEACHER, STUDENT, y)) for y in forms}) == 1


def test_sample_weights_pick_samples():
    labels, weight = torch.tensor([3, 0, 7, 9]), torch.tensor([0.0, 2.0, 0.0, 1.0])
    for loss in (StandardizedKD(), DKD(), NKD()):
        each = loss.per_sample(TEACHER, STUDENT, labels)
        got = loss.compute_loss(TEACHER, STUDENT, labels, weight)
        torch.testing.assert_close(got, (2 * each[1] + each[3]) / 4)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_logits_lose_no_more_than_their_own_rounding(dtype):
    teacher, student = logits(0).to(dtype), logits(1).to(dtype)
    exact = KD().per_sample(teacher.double(), student.double())
    got = KD().per_sample(teacher, student)
    assert got.dtype == torch.float32
    torch.testing.assert_close(got.double(), exact, rtol=1e-4, atol=1e-6)


def test_defaults_are_the_authors():
    assert [loss.get_config() for loss in LOSSES] == [
        {"temperature": 4.0},
        {"temperature": 2.0},
        {"alpha": 1.0, "beta": 8.0, "temperature": 4.0},
        {"gamma": 1.5, "temperature": 1.0},
        {"beta": 1.0, "gamma": 1.0, "temperature": 1.0},
    ]


@named(
    [
        KD(temperature=2.5),
        StandardizedKD(temperature=3.0),
        DKD(alpha=0.5, beta=2.0, temperature=3.0),
        NKD(gamma=0.5, temperature=2.0),
        DIST(beta=0.5, gamma=2.0, temperature=3.0),
        CrossEntropy(label_smoothing=0.2),
    ]
)
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
    with pytest.raises(RecipeError, match=r"^temperature"):
        KD(temperature=bad)


@pytest.mark.parametrize("make", [StandardizedKD, DKD, NKD, DIST])
def test_by_every_loss(make):
    with pytest.raises(RecipeError, match=r"^temperature"):
        make(temperature=0)


@pytest.mark.parametrize("bad", [-0.5, float("inf"), True, "1", None])
@pytest.mark.parametrize(
    ("make", "name"),
    [(DKD, "alpha"), (DKD, "beta"), (NKD, "gamma"), (DIST, "beta"), (DIST, "gamma")],
)
def test_impossible_weights_are_refused_by_name(make, name, bad):
    with pytest.raises(RecipeError, match=f"^{name}"):
        make(**{name: bad})


@named(LABELLED)
def test_two_classes_are_refused_where_the_others_are_compared(loss):
    with pytest.raises(ModelError, match="3 classes"):
        loss.compute_loss(np.zeros((4, 2)), np.zeros((4, 2)), np.zeros(4))


@named(LABELLED)
def test_labels_that_are_missing_or_misfit_are_refused(loss):
    with pytest.raises(RecipeError, match="labels"):
        loss.compute_loss(TEACHER, STUDENT)
    with pytest.raises(ModelError, match=r"\(3,\)"):
        loss.compute_loss(TEACHER, STUDENT, LABELS[:3])


def test_a_batch_of_one_has_no_columns_to_compare():
    with pytest.raises(ModelError, match="2 samples"):
        DIST().compute_loss(TEACHER[:1], STUDENT[:1])


@pytest.mark.parametrize("shape", [(4, 9), (4, 1), (1, 10), (4, 10, 1), (10,)])
@named(LOSSES)
def test_logits_of_other_shapes_are_refused_by_name(loss, shape):
    with pytest.raises(ModelError) as caught:
        loss.compute_loss(np.zeros(shape), STUDENT, LABELS)
    assert str(shape) in str(caught.value)
    assert "(4, 10)" in str(caught.value)
    assert "\n" not in str(caught.value)


def masked(x, lowest):
    """Logits whose last two classes are masked, and whose others have 8 classes left."""
    x = np.array(x)
    x[:, 8:] = lowest
    return x


@named([KD(), DKD(), NKD(), DIST(), StandardizedKD()])
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_minus_infinity_gives_the_limit_of_ever_lower_logits(loss, dtype):
    labels = np.minimum(LABELS, 7)
    for teacher, student in ((True, False), (True, True)):
        models = [
            lambda lowest, x=x, hide=hide: masked(x, lowest).astype(dtype) if hide else x
            for x, hide in ((TEACHER.astype(dtype), teacher), (STUDENT.astype(dtype), student))
        ]
        got = value(loss.compute_loss(*(model(-np.inf) for model in models), labels))
        limit = value(loss.compute_loss(*(model(-1e6) for model in models), labels))
        assert np.isfinite(got)
        assert got == pytest.approx(limit, rel=1e-5, abs=1e-5)


@named([KD(), DKD(), NKD(), DIST()])
def test_masked_classes_count_as_absent(loss):
    labels = np.minimum(LABELS, 7)
    got = value(loss.compute_loss(masked(TEACHER, -np.inf), masked(STUDENT, -np.inf), labels))
    absent = value(loss.compute_loss(TEACHER[:, :8], STUDENT[:, :8], labels))
    if isinstance(loss, DIST):  # its rows are correlated over all classes, absent ones included
        assert np.isfinite(got)
    else:
        assert got == pytest.approx(absent, rel=1e-6)


def test_gradients_past_masked_classes_are_finite():
    for loss in (KD(), DKD(), NKD(), DIST(), StandardizedKD()):
        student = torch.tensor(masked(STUDENT, -np.inf), requires_grad=True)
        loss.compute_loss(
            torch.tensor(masked(TEACHER, -np.inf)), student, torch.tensor([3, 0, 7, 1])
        ).backward()
        assert torch.isfinite(student.grad).all(), type(loss).__name__


def test_cross_entropy_of_masked_classes_is_that_of_the_others():
    hot = np.eye(10)[np.minimum(LABELS, 7)]
    got = value(CrossEntropy()(hot, masked(STUDENT, -np.inf)))
    assert got == pytest.approx(value(CrossEntropy()(hot[:, :8], STUDENT[:, :8])), rel=1e-6)
