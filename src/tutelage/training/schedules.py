"""Learning rate schedules."""

from __future__ import annotations

from typing import Any

import keras
from keras import ops


class TriangularSchedule(keras.optimizers.schedules.LearningRateSchedule):
    """A learning rate that rises linearly to its peak and falls linearly to zero.

    Args:
        peak: the highest rate.
        steps: total number of training steps.
        warmup: fraction of the steps in which the rate rises, 0 to 1.
        parts: batches that gradients are accumulated over in each step.
    """

    def __init__(self, peak: float, steps: int, warmup: float, parts: int = 1):
        self.peak, self.steps, self.warmup, self.parts = peak, steps, warmup, parts

    def __call__(self, step: Any) -> Any:
        """The rate at a batch, counted from 0."""
        step = ops.floor_divide(step, self.parts) if self.parts > 1 else step
        done = (ops.cast(step, "float32") + 1) / (self.steps + 1)
        fall = (1 - done) / (1 - self.warmup)
        return self.peak * (ops.minimum(done / self.warmup, fall) if self.warmup else fall)

    def get_config(self) -> dict[str, Any]:
        """The constructor's arguments."""
        return {
            "peak": self.peak,
            "steps": self.steps,
            "warmup": self.warmup,
            "parts": self.parts,
        }
