"""From a recipe's loss section to losses and weights."""

import keras
import pytest

from tutelage import losses, recipe
from tutelage.errors import ModelError, RecipeError
from tutelage.losses import from_recipe


def section(**settings):
    overrides = {f"loss.{key}": value for key, value in settings.items()}
    return recipe.load("digits", overrides).loss


@pytest.mark.parametrize(
    ("settings", "loss", "weight"),
    [
        ({}, losses.KD(2.0), 1.0),
        ({"name": "dkd"}, losses.DKD(), 1.0),
        ({"name": "nkd", "gamma": 2, "weight": 3}, losses.NKD(gamma=2.0), 3.0),
        ({"name": "fitnet"}, losses.FitNet(), 100.0),
        ({"name": "attention-transfer"}, losses.AttentionTransfer(), 1000.0),
        ({"name": "similarity-preserving"}, losses.SimilarityPreserving(), 3000.0),
        ({"name": "rkd", "angle_weight": 1}, losses.RKD(angle_weight=1.0), 1.0),
        ({"name": "reviewkd"}, losses.ReviewKD(), 5.0),
        (
            {"name": "fitnet", "teacher_layer": "a", "student_layer": "b", "weight": 0},
            losses.FitNet("a", "b"),
            0.0,
        ),
    ],
)
def test_a_term_is_its_loss_at_its_usual_weight(settings, loss, weight):
    (made,) = from_recipe.losses(section(**settings))
    assert type(made) is type(loss)
    assert made.get_config() == loss.get_config()
    assert from_recipe.weights(section(**settings), steps=10) == [weight]


def test_every_name_has_its_loss():
    for name in recipe.loss.LossName.__args__:
        assert from_recipe.losses(section(name=name))


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        ({"ramp": "linear", "warmup": 0.5, "weight": 4}, {0: 0, 25: 2, 50: 4, 99: 4}),
        ({"ramp": "linear"}, {0: 0, 5: 0.5, 10: 1, 99: 1}),
        ({"ramp": "cosine", "weight": 2}, {0: 2, 50: 1, 100: 0}),
    ],
)
def test_a_weight_follows_its_ramp(settings, expected):
    (weight,) = from_recipe.weights(section(**settings), steps=100)
    got = {step: float(keras.ops.convert_to_numpy(weight(step))) for step in expected}
    assert got == pytest.approx(expected, abs=1e-6)


def test_the_teacher_is_needed_for_inner_layers_alone():
    assert not from_recipe.reads_layers(section(more=[{"name": "dist"}]))
    assert from_recipe.reads_layers(section(more=[{"name": "rkd"}]))


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        ({"temperature": 2.5}, 2.5),
        ({"name": "nkd"}, 1.0),
        ({"name": "rkd"}, 1.0),
        ({"name": "rkd", "more": [{"name": "kd", "temperature": 8}]}, 8.0),
    ],
)
def test_the_temperature_is_that_of_the_first_loss_on_logits(settings, expected):
    assert from_recipe.temperature(section(**settings)) == expected


@pytest.mark.parametrize(
    ("settings", "classes", "batch", "offender"),
    [
        ({"more": [{"name": "dkd"}]}, 2, 8, "found dkd"),
        ({"name": "rkd"}, 10, 1, "batch_size"),
    ],
)
def test_what_makes_no_sense_is_refused(settings, classes, batch, offender):
    from_recipe.check(section(**settings), 10, 8)
    with pytest.raises(ModelError, match=offender):
        from_recipe.check(section(**settings), classes, batch)


@pytest.mark.parametrize(
    ("settings", "reason"),
    [
        ({}, ""),
        ({"more": [{"name": "kd", "temperature": 2.0, "weight": 3}]}, ""),
        ({"more": [{"name": "kd", "temperature": 3.0}]}, "2 and 3"),
        ({"more": [{"name": "nkd"}]}, "nkd"),
        ({"name": "standardized-kd"}, "standardized-kd"),
        ({"name": "dkd"}, "dkd"),
        ({"name": "dist"}, "dist"),
        ({"name": "tutelage.losses:KD"}, "tutelage.losses:KD"),
    ],
)
def test_a_softmax_at_one_temperature_alone_can_do_without_all_classes(settings, reason):
    found = from_recipe.needs_all_classes(section(**settings))
    assert bool(found) == bool(reason)
    assert reason in found


def test_more_stored_classes_than_there_are_are_refused():
    from_recipe.check(section(stored_classes=10), 10, 8)
    with pytest.raises(RecipeError, match=r"loss\.stored_classes: .* 10, found 11"):
        from_recipe.check(section(stored_classes=11), 10, 8)
