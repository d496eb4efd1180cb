"""The training state of a distiller, saved and loaded by Keras as a part of its student."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import keras

from tutelage.kernels import accelerate


@contextmanager
def part_of_student(distiller: Any) -> Iterator[keras.Model]:
    """While open, what saves or loads the student does so with the distiller's training state.

    Args:
        distiller: a `Distiller`.

    Returns:
        The stock student.
    """
    student, optimizer = accelerate.stock(distiller.student), getattr(distiller, "optimizer", None)
    if optimizer is not None and not optimizer.built and student.built:
        optimizer.build(distiller.trainable_variables)  # else it has no variables to load
    # Not by `setattr`, since the student must not track it as one of its layers.
    vars(student)["distiller"] = _TrainingState(distiller.own_variables, student, optimizer)
    try:
        yield student
    finally:
        del vars(student)["distiller"]


class _TrainingState(keras.Layer):
    """What training changes besides the student's weights; Keras saves both attributes."""

    def __init__(
        self, own: list[keras.Variable], student: keras.Model, optimizer: keras.Optimizer | None
    ) -> None:
        super().__init__(name="training_state")
        weights = {id(variable) for variable in student.weights}
        # Keras does not save the seeds of dropout.
        self.kept = [*own, *(v for v in student.variables if id(v) not in weights)]
        self.optimizer = optimizer

    def load_own_variables(self, store: Any) -> None:
        """Load the variables from a distiller's file; the student's own file has none."""
        if store.keys():
            super().load_own_variables(store)
