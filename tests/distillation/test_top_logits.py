"""The largest logits and the mass of the others: against the whole softmax, at any temperature."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from scipy.special import log_softmax, logsumexp, rel_entr, softmax

from tutelage.distillation import top_logits
from tutelage.errors import LogitsError
from tutelage.losses import KD

STORED = [T for T in top_logits.TEMPERATURES if 0 < T < math.inf]
BETWEEN = [0.6, 0.75, 1.5, 3.0, 5.0, 6.0, 12.0, 20.0, 100.0]
CLASSES = 1000


def rows(kind: str, count: int = 40, classes: int = CLASSES, seed: int = 0) -> np.ndarray:
    """Logits of images as teachers give them, and as they hardly do."""
    random = np.random.default_rng(seed)
    noise = random.normal(size=(count, classes))
    if kind == "peaked":  # one class far above the others, and a few that resemble it
        noise[:, :5] += [14.0, 8.0, 6.0, 5.0, 4.0]
        return random.permuted(noise, axis=1)
    if kind == "flat":
        return 0.01 * noise
    if kind == "wide":
        return 3.0 * noise
    if kind == "heavy-tailed":
        return 2 * random.standard_t(3, size=noise.shape)
    if kind == "ties":
        return np.round(noise)
    assert kind == "equal"
    return np.full_like(noise, 7.0)


KINDS = ["peaked", "flat", "wide", "heavy-tailed", "ties", "equal"]


def expected(logits: np.ndarray, kept: int, temperature: float) -> np.ndarray:
    """The whole softmax with the mass of all but the largest spread evenly over these."""
    p = softmax(logits.astype(np.float64) / temperature, axis=-1)
    order = np.argsort(-logits, axis=-1, kind="stable")
    rest = order[:, kept:]
    even = np.take_along_axis(p, rest, -1).mean(axis=-1, keepdims=True)
    np.put_along_axis(p, rest, even, -1)
    return p


def given(logits: np.ndarray, kept: int, temperature: float) -> np.ndarray:
    packed = top_logits.pack(logits, kept)
    dense = top_logits.unpack(packed, logits.shape[-1], temperature)
    assert (dense.dtype, dense.shape) == (np.float32, logits.shape)
    return softmax(dense.astype(np.float64) / temperature, axis=-1)


# Reference


@pytest.mark.parametrize("kind", [kind for kind in KINDS if kind != "ties"])
@pytest.mark.parametrize("kept", [1, 10, 300])
@pytest.mark.parametrize("temperature", STORED)
def test_at_a_stored_temperature_the_others_have_their_mass(
    kind: str, kept: int, temperature: float
) -> None:
    logits = rows(kind)
    want = expected(logits, kept, temperature)
    # Rounding to float16 moves a logit by 2^-12 of its distance from the maximum.
    atol = 5e-4 * max(1.0, 1 / temperature)
    np.testing.assert_allclose(given(logits, kept, temperature), want, atol=atol)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("temperature", BETWEEN)
def test_between_them_nearly_so(kind: str, temperature: float) -> None:
    logits, kept = rows(kind), 10
    packed = top_logits.pack(logits, kept)
    others = np.ones(logits.shape, bool)
    np.put_along_axis(others, packed["classes"].astype(int), False, -1)
    got = top_logits.unpack(packed, CLASSES, temperature)
    scaled = [x / temperature for x in (logits, got.astype(np.float64))]
    one, other = (
        logsumexp(np.where(others, x, -np.inf), axis=-1) - logsumexp(x, axis=-1) for x in scaled
    )
    assert (np.abs(one - other) < 0.1).all()
    assert (np.abs(np.exp(one) - np.exp(other)) < 0.005).all()


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("temperature", [0.5, 1.0, 4.0, 20.0])
def test_the_divergence_is_what_one_logit_for_the_others_must_cost(
    kind: str, temperature: float
) -> None:
    """KL = mass of the others * (log of their number - entropy among them)."""
    logits, kept = rows(kind), 20
    p = softmax(logits / temperature, axis=-1)
    rest = np.sort(p, axis=-1)[:, :-kept]
    mass = rest.sum(axis=-1)
    among = rest / mass[:, None]
    bound = mass * rel_entr(among, 1 / rest.shape[-1]).sum(axis=-1)
    kl = rel_entr(p, given(logits, kept, temperature)).sum(axis=-1)
    np.testing.assert_allclose(kl, bound, rtol=0.02, atol=2e-4)


# Properties


@pytest.mark.parametrize("classes", [2, 3, CLASSES])
@pytest.mark.parametrize("kind", [kind for kind in KINDS if kind != "peaked"])
def test_all_classes_kept_are_the_logits_in_float16(kind: str, classes: int) -> None:
    logits = rows(kind, classes=classes).astype(np.float32)
    below = logits - logits.max(axis=-1, keepdims=True)
    packed = top_logits.pack(logits, classes)
    for temperature in (0.5, 1.0, 20.0):
        got = top_logits.unpack(packed, classes, temperature)
        np.testing.assert_array_equal(got, below.astype(np.float16).astype(np.float32))


def test_of_two_classes_one_is_the_rest() -> None:
    logits = np.array([[0.0, 3.0], [5.0, -5.0], [1.0, 1.0]])
    for temperature in (0.1, 0.5, 0.9, 1.0, 4.0, 50.0):
        want = softmax(logits / temperature, axis=-1)
        np.testing.assert_allclose(given(logits, 1, temperature), want, atol=1e-3)


@pytest.mark.parametrize("kind", KINDS)
def test_the_order_of_classes_is_kept(kind: str) -> None:
    logits = rows(kind).astype(np.float32)
    packed = top_logits.pack(logits, 10)
    assert (packed["logits"][:, 0] == 0).all()
    assert (np.diff(packed["logits"].astype(np.float32), axis=-1) <= 0).all()
    assert (np.diff(packed["rest"].astype(np.float32), axis=-1) >= 0).all()  # as T falls
    smallest = np.take_along_axis(logits, packed["classes"].astype(int), -1).min(axis=-1)
    assert ((logits > smallest[:, None]).sum(axis=-1) <= 10).all()
    for temperature in (0.01, 0.3, 1.0, 20.0):
        dense = top_logits.unpack(packed, CLASSES, temperature)
        assert (np.take_along_axis(dense, packed["classes"][:, :1].astype(int), -1) == 0).all()
        assert (dense <= 0).all()


def test_an_offset_changes_nothing_and_rows_do_not_mix() -> None:
    logits = rows("wide")
    packed = top_logits.pack(logits, 10)
    assert packed.tobytes() == top_logits.pack(logits, 10).tobytes()
    np.testing.assert_array_equal(top_logits.pack(logits[7:9], 10), packed[7:9])
    far = top_logits.pack(logits + 2**20, 10)
    np.testing.assert_array_equal(far["classes"], packed["classes"])
    np.testing.assert_array_equal(far["logits"], packed["logits"])


def test_several_teachers_are_rows_of_their_own() -> None:
    logits = rows("wide").reshape(20, 2, CLASSES)
    packed = top_logits.pack(logits, 10)
    assert packed.shape == (20, 2)
    each = [top_logits.unpack(packed[:, i], CLASSES, 3.0) for i in range(2)]
    np.testing.assert_array_equal(top_logits.unpack(packed, CLASSES, 3.0), np.stack(each, axis=1))


def test_classes_beyond_16_bits_have_32() -> None:
    assert top_logits.row_type(3, 2**16)["classes"].base == np.uint16
    assert top_logits.row_type(3, 2**16 + 1)["classes"].base == np.uint32
    logits = np.zeros((1, 2**16 + 1))
    logits[0, -1] = 9.0
    packed = top_logits.pack(logits, 1)
    assert packed["classes"].tolist() == [[2**16]]
    assert top_logits.unpack(packed, 2**16 + 1, 1.0).argmax() == 2**16


def test_given_classes_are_kept_whether_or_not_they_are_the_largest() -> None:
    logits = rows("wide")
    packed = top_logits.pack(logits, 10)
    np.testing.assert_array_equal(top_logits.pack_classes(logits, packed["classes"]), packed)
    other = top_logits.pack_classes(logits, packed["classes"][:, ::-1])
    np.testing.assert_array_equal(other["logits"], packed["logits"][:, ::-1])
    np.testing.assert_array_equal(other["rest"], packed["rest"])


@pytest.mark.parametrize("temperature", [0.5, 1.0, 2.0, 4.0, 20.0])
def test_the_gradient_of_distillation_is_nearly_that_with_all_logits(temperature: float) -> None:
    """Its error has at most the size that the divergence allows: T sqrt(2 KL) per image."""
    loss = KD(temperature)
    for kind in KINDS:
        logits = rows(kind, count=16)
        student = torch.tensor(rows("wide", count=16, seed=1), requires_grad=True)
        dense = top_logits.unpack(top_logits.pack(logits, 100), CLASSES, temperature)
        gradients = []
        for teacher in (logits, dense.astype(np.float64)):
            student.grad = None
            loss.compute_loss(torch.tensor(teacher), student).backward()
            assert student.grad is not None
            gradients.append(student.grad.numpy().copy() * len(logits))
        p, q = (softmax(x / temperature, axis=-1) for x in (logits, dense.astype(np.float64)))
        gap = np.abs(gradients[0] - gradients[1]).sum(axis=-1)
        kl = rel_entr(p, q).sum(axis=-1)
        assert (gap <= temperature * np.sqrt(2 * np.maximum(kl, 0)) * (1 + 1e-6) + 1e-9).all()
        if kind in ("flat", "equal") or (kind, temperature) == ("peaked", 0.5):
            size = np.abs(gradients[0]).sum(axis=-1)
            assert (gap < 0.05 * size).all()


# Bad input


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf, -1e6])
def test_a_logit_that_can_not_be_stored_is_refused(bad: float) -> None:
    logits = rows("wide", count=3).astype(np.float32)
    logits[1, 5] = bad
    with pytest.raises(LogitsError, match="logits"):
        top_logits.pack(logits, 10)


def test_the_reference_itself() -> None:
    p = expected(np.log([[0.5, 0.3, 0.15, 0.05]]), 2, 1.0)
    np.testing.assert_allclose(p, [[0.5, 0.3, 0.1, 0.1]])
    np.testing.assert_allclose(np.exp(log_softmax(np.log(p), axis=-1)), p)
