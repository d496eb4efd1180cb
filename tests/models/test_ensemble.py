"""Several teachers as one: means of logits and of probabilities, and each one's own answer."""

import keras
import numpy as np
import pytest
import torch
from scipy.special import log_softmax, logsumexp

from tutelage.errors import RecipeError
from tutelage.models import loading, resolve
from tutelage.models.ensemble import ensemble
from tutelage.models.preprocessing import Preprocessing

IMAGES = np.random.default_rng(0).integers(0, 256, (20, 8, 8, 1), dtype=np.uint8)
CLASSES = ("a", "b", "c")


def member(seed, framework="keras"):
    if framework == "torch":
        torch.manual_seed(seed)
        source = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(64, 3))
    else:
        initial = keras.initializers.GlorotUniform(seed)
        source = keras.Sequential([keras.Input((8, 8, 1)), keras.layers.Flatten()])
        source.add(keras.layers.Dense(3, kernel_initializer=initial))
    preprocessing = Preprocessing(scale=255)
    return resolve.teacher(source, images=IMAGES, classes=CLASSES, preprocessing=preprocessing)


def answers(teachers):
    return np.stack([teacher.logits(IMAGES, "float32") for teacher in teachers])


@pytest.mark.parametrize("second", ["keras", "torch"])
def test_an_ensemble_gives_the_mean_it_names(second):
    members = [member(0), member(1, second), member(2)]
    each = answers(members)
    logits = ensemble(members).logits(IMAGES, "float32")
    np.testing.assert_allclose(logits, each.mean(axis=0), rtol=1e-5, atol=1e-6)
    found = ensemble(members, "probabilities").logits(IMAGES, "float32")
    expected = logsumexp(log_softmax(each, axis=-1), axis=0) - np.log(3)
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("combine", ["logits", "probabilities"])
def test_of_keras_models_it_is_a_keras_model_that_survives_its_file(tmp_path, combine):
    whole = ensemble([member(0), member(1)], combine)
    whole.model.save(tmp_path / "ensemble.keras")
    again = loading.load_model(tmp_path / "ensemble.keras")
    loading.check_fit(again, "ensemble", (8, 8, 1), 3)
    expected = whole.logits(IMAGES, "float32")
    np.testing.assert_allclose(again.predict(IMAGES, verbose=0), expected, rtol=1e-5, atol=1e-5)
    assert ensemble([member(0), member(1, "torch")], combine).model is None


def test_losses_are_averaged_over_answers_kept_apart():
    members = [member(0), member(1)]
    whole = ensemble(members, "losses")
    assert whole.model is None
    np.testing.assert_array_equal(
        whole.member_logits(IMAGES, "float32"), answers(members).transpose(1, 0, 2)
    )


def test_the_digest_is_of_all_members_and_of_how_they_are_combined():
    one, two, three = member(0), member(1), member(2)
    groups = [([one, two], "logits"), ([one, three], "logits"), ([one, two], "losses")]
    assert len({ensemble(*group).digest for group in groups}) == 3
    assert ensemble([one, two]).digest == ensemble([member(0), member(1)]).digest


def test_what_is_no_ensemble_is_refused():
    with pytest.raises(RecipeError, match="2 teachers"):
        ensemble([member(0)])
    stored = resolve.Teacher("held.npy", "d", None, None, np.zeros((20, 3), np.float32), ())
    with pytest.raises(RecipeError, match=r"^held\.npy"):
        ensemble([member(0), stored])
