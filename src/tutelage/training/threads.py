"""The number of threads that a model is trained with."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager

import keras

from tutelage.errors import ModelError
from tutelage.models import zoo

if keras.backend.backend() == "torch":
    import torch

# Multiply-accumulates of a step's forward pass. Below, threads wait longer than they compute.
_LEAST_MACS = 10_000_000


@contextmanager
def threads_for(model: keras.Model, batch_size: int) -> Iterator[None]:
    """Train a small model on one thread, unless `OMP_NUM_THREADS` is set.

    Where other processes are busy, threads that wait for each other cost several times the work.

    Args:
        model: the model to train.
        batch_size: images per step.

    Example:

    >>> import keras
    >>> from tutelage.training.threads import threads_for
    >>> model = keras.Sequential([keras.Input((8,)), keras.layers.Dense(4)])
    >>> with threads_for(model, batch_size=32):
    ...     history = None  # train it
    """
    if not _small(model, batch_size):
        yield
        return
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)


def _small(model: keras.Model, batch_size: int) -> bool:
    if keras.backend.backend() != "torch" or "OMP_NUM_THREADS" in os.environ:
        return False
    try:
        return zoo.macs(model) * batch_size < _LEAST_MACS
    except ModelError:  # of a model for images of any size they are not known
        return False
