"""Distill with Keras' compile and fit.

    python examples/keras_fit.py

The student remains a plain Keras model.
"""
# ruff: noqa: I001

import tutelage  # before keras, as it chooses the backend: PyTorch, unless KERAS_BACKEND is set
import keras

from tutelage.losses import KD, AttentionTransfer


def net(filters: int) -> keras.Model:
    """A small convolutional network from 8x8 gray digits to logits."""
    inputs = keras.Input((8, 8, 1))
    x = keras.layers.Rescaling(1 / 16)(inputs)
    for factor in (1, 2):
        x = keras.layers.Conv2D(factor * filters, 3, padding="same", activation="relu")(x)
        x = keras.layers.MaxPooling2D()(x)
    return keras.Model(inputs, keras.layers.Dense(10)(keras.layers.Flatten()(x)))


def main(epochs: int = 20) -> float:
    """Train the teacher, distill it into the student; returns the student's test accuracy."""
    keras.utils.set_random_seed(0)
    digits = tutelage.load_dataset("digits")
    teacher, student = net(32), net(4)
    teacher.compile("adam", keras.losses.SparseCategoricalCrossentropy(from_logits=True))
    teacher.fit(digits.train.images, digits.train.labels, epochs=epochs, verbose=0)

    losses = [KD(temperature=4.0), AttentionTransfer()]
    distiller = tutelage.Distiller(
        student=student,
        teacher=teacher,
        distillation_losses=losses,
        distillation_loss_weights=[1.0, 100.0],
        alpha=0.5,
    )
    distiller.compile("adam", metrics=["accuracy"])
    distiller.fit(digits.train.images, digits.train.labels, epochs=epochs, verbose=0)

    scores = distiller.evaluate(digits.test.images, digits.test.labels, verbose=0, return_dict=True)
    return float(scores["accuracy"])


if __name__ == "__main__":
    print(f"test accuracy of the student: {main():.1%}")
