import keras
import numpy as np
import pytest

from tutelage.errors import ModelError, RecipeError
from tutelage.losses import RKD, AttentionTransfer, FitNet, SimilarityPreserving, layer_selection
from tutelage.models import zoo


def convolutional(name, filters=(4, 6)):
    inputs = keras.Input((8, 8, 1))
    x = inputs
    for i, count in enumerate(filters):
        x = keras.layers.Conv2D(count, 3, padding="same", name=f"conv{i}")(x)
        x = keras.layers.MaxPooling2D(name=f"pool{i}")(x)
    x = keras.layers.Flatten(name="flat")(x)
    x = keras.layers.Dropout(0.5, name="drop")(x)
    return keras.Model(inputs, keras.layers.Dense(3, name="head")(x), name=name)


def test_stages_are_the_last_layers_of_each_resolution():
    images = np.random.default_rng(0).integers(0, 256, (8, 32, 32, 3), dtype=np.uint8)
    teacher = zoo.build("teacher-2m", images=images, classes=10, seed=0)
    names = layer_selection.stages(teacher)
    assert names == ["block1_norm2", "block2_norm2", "block3_norm2", "block3_pool"]
    sizes = [teacher.get_layer(name).output.shape[1:] for name in names]
    assert sizes == [(32, 32, 64), (16, 16, 128), (8, 8, 256), (4, 4, 256)]
    assert teacher.get_layer(layer_selection.embedding(teacher)).output.shape == (None, 256)


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


def test_a_layer_that_is_not_there_is_refused_with_those_that_are():
    models = convolutional("t"), convolutional("s")
    with pytest.raises(RecipeError, match="'conv7'"):
        FitNet("conv1", "conv7").pairs(*models)
    with pytest.raises(RecipeError, match="pol1"):
        FitNet("pol1", "conv1").pairs(*models)


def test_models_without_such_layers_are_refused():
    dense = keras.Sequential([keras.Input((4,)), keras.layers.Dense(3)])
    with pytest.raises(ModelError, match="feature maps"):
        AttentionTransfer().pairs(dense, dense)
    anywhere = keras.Sequential([keras.Input((None, None, 1)), keras.layers.Conv2D(2, 3)])
    with pytest.raises(ModelError, match="any size"):
        AttentionTransfer().pairs(anywhere, anywhere)

    class Subclassed(keras.Model):
        pass

    with pytest.raises(ModelError, match="Subclassed"):
        RKD().pairs(Subclassed(), convolutional("s"))
    headless = keras.Sequential([keras.Input((4,)), keras.layers.ReLU()])
    with pytest.raises(ModelError, match="dense layer"):
        RKD().pairs(headless, headless)
