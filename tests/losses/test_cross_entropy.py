import numpy as np
import pytest
import torch
import torch.nn.functional as F

from tests.losses.test_logits_loss import LABELS, STUDENT, logits, value
from tutelage.errors import ModelError, RecipeError
from tutelage.losses import CrossEntropy


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


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_integer_column_and_one_hot_labels_give_the_same_value(smoothing):
    loss, one_hot = CrossEntropy(label_smoothing=smoothing), np.eye(10)[LABELS]
    values = {value(loss(y, STUDENT)) for y in (LABELS, LABELS[:, None], one_hot)}
    assert len(values) == 1


@pytest.mark.parametrize("bad", [-0.1, 1.0, float("nan"), True, "0.1"])
def test_impossible_smoothings_are_refused(bad):
    with pytest.raises(RecipeError, match=r"^label_smoothing"):
        CrossEntropy(label_smoothing=bad)


@pytest.mark.parametrize("shape", [(3,), (4, 9), (4, 10, 1)])
def test_labels_of_other_shapes_are_refused_by_name(shape):
    with pytest.raises(ModelError) as caught:
        CrossEntropy()(np.zeros(shape), STUDENT)
    assert str(shape) in str(caught.value)
    assert "(4, 10)" in str(caught.value)
