"""The exponential moving average of a model's weights."""

from __future__ import annotations

from typing import Any

import keras
import numpy as np
from keras import ops

from tutelage.training.batches import TrainingBatches

if keras.backend.backend() == "torch":
    import torch


class WeightAverage(keras.callbacks.Callback):
    """Averages a model's weights over the training steps, and has the averages evaluated.

    After step t, counted from 0:

        d = min(decay, (1 + t) / (10 + t))
        average <- d * average + (1 - d) * weights

    The smaller d of the first steps makes the initial weights fade in a short training, too. The
    moving statistics of batch normalization are averaged as well: those of the averaged weights
    are known only after a pass over images, as in `recalibrate_batch_norm` after training.

    Args:
        model: a built model.
        decay: above 0 and below 1.
        batches: the training data.

    Attributes:
        variables: the averages, one for each of the model's weights.
    """

    def __init__(self, model: keras.Model, decay: float, batches: TrainingBatches):
        super().__init__()
        self.decay, self.batches, self.weights = decay, batches, model.weights
        self.variables = [
            keras.Variable(ops.copy(v.value), dtype=v.dtype, trainable=False) for v in self.weights
        ]

    def on_epoch_begin(self, epoch: int, logs: Any = None) -> None:
        self.epoch = epoch

    def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
        done, parts = self.batches.first + batch + 1, self.batches.parts
        if done % parts:
            return  # within a step
        _ = self.model  # on JAX, gives the variables the values of the step
        step = (self.epoch * self.batches.batches + done) // parts - 1
        share = 1 - min(self.decay, (1 + step) / (10 + step))
        for average, weight in zip(self.variables, self.weights, strict=True):
            if not keras.backend.is_float_dtype(weight.dtype):
                average.assign(weight)  # a count
            elif keras.backend.backend() == "torch":
                with torch.no_grad():
                    average.value.lerp_(weight.value, share)
            else:
                average.assign_add((weight - average) * share)

    def on_test_begin(self, logs: Any = None) -> None:
        self._swap()

    def on_test_end(self, logs: Any = None) -> None:
        self._swap()

    def finish(self) -> None:
        """Give the model the averages for good."""
        for average, weight in zip(self.variables, self.weights, strict=True):
            weight.assign(average)

    def _swap(self) -> None:
        for average, weight in zip(self.variables, self.weights, strict=True):
            kept = np.array(ops.convert_to_numpy(weight.value))
            weight.assign(average)
            average.assign(kept)
