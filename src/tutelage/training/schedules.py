"""Learning rate schedules."""

from __future__ import annotations

import math
from typing import Any

import keras
from keras import ops

from tutelage.recipe import GAMMA, MILESTONES, Schedule


class WarmupSchedule(keras.optimizers.schedules.LearningRateSchedule):
    """A learning rate that rises linearly to its peak and then decays.

    Args:
        peak: the highest rate.
        steps: total number of training steps.
        warmup: fraction of the steps in which the rate rises, from 0 to below 1.
        parts: batches that gradients are accumulated over in each step.
        first: the step that the optimizer begins with.
    """

    def __init__(self, peak: float, steps: int, warmup: float, parts: int = 1, first: int = 0):
        self.peak, self.steps, self.warmup, self.parts = peak, steps, warmup, parts
        self.first = first

    def __call__(self, step: Any) -> Any:
        """The rate at a batch of the optimizer, counted from 0."""
        step = ops.floor_divide(step, self.parts) if self.parts > 1 else step
        step = step + self.first if self.first else step
        done = (ops.cast(step, "float32") + 1) / (self.steps + 1)
        decayed = self.decayed(step, done)
        return self.peak * (ops.minimum(done / self.warmup, decayed) if self.warmup else decayed)

    def decayed(self, step: Any, done: Any) -> Any:
        """The factor of the peak at a step, where `done` of the training is done.

        Before the end of the warm-up it is at least 1.
        """
        raise NotImplementedError

    def get_config(self) -> dict[str, Any]:
        """The constructor's arguments."""
        return {
            "peak": self.peak,
            "steps": self.steps,
            "warmup": self.warmup,
            "parts": self.parts,
            "first": self.first,
        }


class TriangularSchedule(WarmupSchedule):
    """A learning rate that rises linearly to its peak and falls linearly to zero."""

    def decayed(self, step: Any, done: Any) -> Any:
        """Falls from 1 to 0."""
        return (1 - done) / (1 - self.warmup)


class CosineSchedule(WarmupSchedule):
    """A learning rate that rises linearly to its peak and falls to zero along a cosine.

    Source: arXiv 1608.03983, equation 5, without restarts.
    """

    def decayed(self, step: Any, done: Any) -> Any:
        """Falls from 1 to 0."""
        way = ops.maximum(done - self.warmup, 0.0) / (1 - self.warmup)
        return (1 + ops.cos(math.pi * way)) / 2


class StepSchedule(WarmupSchedule):
    """A learning rate that rises linearly and is multiplied by a factor at each milestone.

    Args:
        peak: the highest rate.
        steps: total number of training steps.
        warmup: fraction of the steps in which the rate rises, from 0 to below 1.
        parts: batches that gradients are accumulated over in each step.
        first: the step that the optimizer begins with.
        milestones: fractions of the steps after which the rate is multiplied.
        gamma: the factor.
    """

    def __init__(
        self,
        peak: float,
        steps: int,
        warmup: float,
        parts: int = 1,
        first: int = 0,
        milestones: tuple[float, ...] = MILESTONES,
        gamma: float = GAMMA,
    ):
        super().__init__(peak, steps, warmup, parts, first)
        self.milestones, self.gamma = tuple(milestones), gamma

    def decayed(self, step: Any, done: Any) -> Any:
        """Is 1 before the first milestone."""
        reached = [step >= round(milestone * self.steps) for milestone in self.milestones]
        return ops.power(self.gamma, sum(ops.cast(one, "float32") for one in reached))

    def get_config(self) -> dict[str, Any]:
        """The constructor's arguments."""
        return super().get_config() | {"milestones": self.milestones, "gamma": self.gamma}


def build(schedule: Schedule, steps: int, parts: int = 1, first: int = 0) -> WarmupSchedule:
    """The learning rate of a recipe's schedule.

    Args:
        schedule: its settings.
        steps: total number of training steps.
        parts: batches that gradients are accumulated over in each step.
        first: the step that the optimizer begins with.

    Returns:
        A Keras schedule.

    Example:

    >>> from tutelage.recipe import Schedule
    >>> from tutelage.training import schedules
    >>> schedule = Schedule(epochs=1, learning_rate=1, warmup=0, learning_rate_schedule="step")
    >>> rate = schedules.build(schedule, steps=8)
    >>> [round(float(rate(step)), 2) for step in range(8)]
    [1.0, 1.0, 1.0, 1.0, 0.1, 0.1, 0.01, 0.01]
    """
    settings = schedule.learning_rate, steps, schedule.warmup, parts, first
    if schedule.learning_rate_schedule == "cosine":
        return CosineSchedule(*settings)
    if schedule.learning_rate_schedule == "step":
        milestones, gamma = schedule.milestones or MILESTONES, schedule.gamma or GAMMA
        return StepSchedule(*settings, milestones, gamma)
    return TriangularSchedule(*settings)
