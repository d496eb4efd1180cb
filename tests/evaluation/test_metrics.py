"""Metrics against scipy, scikit-learn's log loss and figures worked out by hand."""

import numpy as np
import pytest
from scipy.special import rel_entr, softmax
from sklearn.calibration import calibration_curve
from sklearn.metrics import log_loss

from tutelage.errors import DataError, ModelError
from tutelage.evaluation import metrics

KEYS = ["accuracy", "precision", "recall", "f1", "nll", "ece"]

# Six images of three classes; predicted 0 0 1 1 2 0, so the rows of the confusion matrix are
# 0: 2 1 0, 1: 0 1 0, 2: 1 0 1.
SMALL = np.eye(3, dtype=np.float32)[[0, 0, 1, 1, 2, 0]]
SMALL_LABELS = np.array([0, 0, 0, 1, 2, 2])


@pytest.fixture
def sample() -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    rng = np.random.default_rng(0)
    logits, teacher = rng.normal(0, 3, (2, 500, 10)).astype(np.float32)
    return logits, rng.integers(0, 10, 500), teacher


def with_probabilities(rows: list[list[float]]) -> np.ndarray:
    return np.log(np.array(rows))


def test_counts_agree_with_a_table_made_by_hand() -> None:
    expected = [[2, 1, 0], [0, 1, 0], [1, 0, 1]]
    table = metrics.confusion(SMALL, SMALL_LABELS)
    assert table.tolist() == expected
    assert table.dtype == np.int64

    precision, recall, f1, support = metrics.per_class(SMALL, SMALL_LABELS)
    np.testing.assert_allclose(precision, [2 / 3, 1 / 2, 1])
    np.testing.assert_allclose(recall, [2 / 3, 1, 1 / 2])
    np.testing.assert_allclose(f1, [2 / 3, 2 / 3, 2 / 3])
    assert support.tolist() == [3, 1, 2]
    assert support.dtype == np.int64

    scored = metrics.score(SMALL, SMALL_LABELS)
    assert scored["accuracy"] == pytest.approx(4 / 6)
    assert scored["precision"] == pytest.approx((2 / 3 + 1 / 2 + 1) / 3)
    assert scored["recall"] == pytest.approx((2 / 3 + 1 + 1 / 2) / 3)
    assert scored["f1"] == pytest.approx(2 / 3)


def test_nll_is_the_log_loss_of_scikit_learn(sample: tuple) -> None:
    logits, labels, _ = sample
    expected = log_loss(labels, softmax(logits.astype(np.float64), axis=1))
    assert metrics.score(logits, labels)["nll"] == pytest.approx(expected, rel=1e-12)


def test_kl_is_the_relative_entropy_of_scipy_from_the_teacher(sample: tuple) -> None:
    logits, labels, teacher = sample
    p, q = (softmax(values.astype(np.float64), axis=1) for values in (logits, teacher))
    scored = metrics.score(logits, labels, teacher)
    assert scored["kl"] == pytest.approx(rel_entr(q, p).sum(axis=1).mean(), rel=1e-10)
    assert scored["kl"] != pytest.approx(rel_entr(p, q).sum(axis=1).mean(), rel=1e-3)
    assert scored["agreement"] == np.mean(
        [a.argmax() == b.argmax() for a, b in zip(p, q, strict=True)]
    )


def test_calibration_error_agrees_with_bins_filled_by_hand() -> None:
    # Confidences 1, 0.95 and 0.94 share the last bin, (14/15, 1]; 0.90 is in the one before;
    # 0.58 and 0.55 share (8/15, 9/15].
    rows = [[1, 1e-300], [0.95, 0.05], [0.06, 0.94], [0.90, 0.10], [0.58, 0.42], [0.45, 0.55]]
    labels = [1, 0, 1, 0, 1, 1]  # wrong, right, right, right, wrong, right
    gaps = [abs(2 - (1 + 0.95 + 0.94)), abs(1 - 0.90), abs(1 - (0.58 + 0.55))]
    scored = metrics.score(with_probabilities(rows), labels)
    assert scored["ece"] == pytest.approx(sum(gaps) / 6, rel=1e-12)


def test_calibration_error_agrees_with_a_loop_over_bins(sample: tuple) -> None:
    logits, labels, _ = sample
    p = softmax(logits.astype(np.float64), axis=1)
    confidence, correct = p.max(axis=1), p.argmax(axis=1) == labels
    expected = 0.0
    for lower in range(15):
        inside = (confidence > lower / 15) & (confidence <= (lower + 1) / 15)
        if inside.any():
            expected += inside.mean() * abs(correct[inside].mean() - confidence[inside].mean())
    assert metrics.score(logits, labels)["ece"] == pytest.approx(expected, rel=1e-10)


def test_the_same_input_scores_the_same_and_stays_as_it_was(sample: tuple) -> None:
    copies = [values.copy() for values in sample]
    first, second = metrics.score(*sample), metrics.score(*sample)
    assert first == second
    assert all(np.array_equal(a, b) for a, b in zip(copies, sample, strict=True))


def test_scores_are_plain_floats_under_the_promised_names(sample: tuple) -> None:
    logits, labels, teacher = sample
    assert list(metrics.score(logits, labels)) == KEYS
    with_teacher = metrics.score(logits, labels, teacher)
    assert list(with_teacher) == [*KEYS, "agreement", "kl"]
    assert all(type(value) is float for value in with_teacher.values())


def test_a_model_agrees_with_itself_and_kl_is_zero_there(sample: tuple) -> None:
    logits, labels, _ = sample
    scored = metrics.score(logits, labels, logits)
    assert scored["agreement"] == 1.0
    assert scored["kl"] == 0.0


def test_adding_a_constant_to_a_row_of_logits_changes_nothing(sample: tuple) -> None:
    logits, labels, teacher = sample
    moved = logits.astype(np.float64) + np.arange(500)[:, None]
    expected = metrics.score(logits, labels, teacher)
    assert metrics.score(moved, labels, teacher) == pytest.approx(expected, rel=1e-9)


def test_very_large_logits_stay_finite() -> None:
    scored = metrics.score([[1e4, -1e4], [-1e4, 1e4]], [0, 0], [[-1e4, 1e4], [1e4, -1e4]])
    assert scored["nll"] == pytest.approx(1e4)
    assert scored["kl"] == pytest.approx(2e4)


def test_classes_that_never_occur_neither_warn_nor_count_in_the_means() -> None:
    logits = np.eye(4)[[0, 0, 1]]
    scored = metrics.score(logits, [0, 0, 0])
    assert scored["recall"] == pytest.approx((2 / 3 + 0) / 2)
    assert scored["precision"] == pytest.approx((1 + 0) / 2)
    figures = metrics.per_class(logits, [0, 0, 0])
    assert figures.support.tolist() == [3, 0, 0, 0]
    assert figures.precision.tolist() == [1, 0, 0, 0]
    assert metrics.confusion(logits, [0, 0, 0]).shape == (4, 4)


@pytest.mark.parametrize(
    ("logits", "offender"),
    [
        ([1.0, 2.0], r"shape \(2,\)"),
        (np.zeros((0, 3)), r"\(0, 3\)"),
        (np.zeros((2, 1)), r"\(2, 1\)"),
        ([["a", "b"]], "<U1"),
        ([[1.0, np.nan], [0.0, 0.0]], "nan"),
        ([[1.0, 2.0], [np.inf, 0.0]], "inf"),
    ],
)
def test_what_is_no_logits_is_refused(logits: object, offender: str) -> None:
    for measure in (metrics.score, metrics.confusion, metrics.per_class):
        with pytest.raises(ModelError, match=offender) as caught:
            measure(logits, [0, 1])  # type: ignore[arg-type]
        assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("labels", "offender"),
    [
        ([0], r"shape \(1,\)"),
        ([[1, 0], [0, 1]], r"\(2, 2\)"),
        ([0.0, 1.0], "found float64"),
        ([0, 2], "0 to 2"),
        ([-1, 0], "-1 to 0"),
    ],
)
def test_labels_that_do_not_belong_to_the_logits_are_refused(labels: list, offender: str) -> None:
    for measure in (metrics.score, metrics.confusion, metrics.per_class):
        with pytest.raises(DataError, match=offender) as caught:
            measure(np.zeros((2, 2)), labels)
        assert "\n" not in str(caught.value)


def test_a_teacher_of_other_images_or_classes_is_refused() -> None:
    with pytest.raises(ModelError, match=r"\(2, 3\)"):
        metrics.score(np.zeros((2, 2)), [0, 1], np.zeros((2, 3)))
    with pytest.raises(ModelError, match="found nan"):
        metrics.score(np.zeros((2, 2)), [0, 1], np.full((2, 2), np.nan))


def test_calibration_is_scikit_learn_s_curve_and_adds_up_to_the_ece(
    sample: tuple[np.ndarray, np.ndarray, np.ndarray],
) -> None:
    logits, labels, _ = sample
    bins = metrics.calibration(logits, labels)
    confidence = softmax(logits.astype(np.float64), axis=1).max(axis=1)
    right = logits.argmax(axis=1) == labels
    accuracy, sure = calibration_curve(right, confidence, n_bins=metrics.BINS)
    some = bins.support > 0
    assert 0 < some.sum() < metrics.BINS  # bins without images too
    np.testing.assert_allclose(bins.accuracy[some], accuracy)
    np.testing.assert_allclose(bins.confidence[some], sure)
    assert np.isnan(bins.accuracy[~some]).all()
    assert np.isnan(bins.confidence[~some]).all()
    for i, count in enumerate(bins.support):
        low, high = i / metrics.BINS, (i + 1) / metrics.BINS
        assert count == ((confidence > low) & (confidence <= high)).sum()
    gaps = np.abs(bins.accuracy - bins.confidence)[some] * bins.support[some]
    ece = metrics.score(logits, labels)["ece"]
    assert gaps.sum() / len(labels) == pytest.approx(ece, rel=1e-12)
