"""Muon: stochastic gradient descent with orthogonalized updates."""

from __future__ import annotations

from typing import Any

import keras
from keras import ops

from tutelage.errors import RecipeError

# The author's coefficients and number of Newton-Schulz iterations.
_A, _B, _C = 3.4445, -4.7750, 2.0315
_ITERATIONS = 5


class Muon(keras.optimizers.Optimizer):
    """Momentum, orthogonalized by Newton-Schulz iteration for matrices and kernels.

        m <- momentum * m + g
        d = g + momentum * m
        W <- W - learning_rate * (weight_decay * W + scale * orthogonal(d))

    A kernel is reshaped to a matrix of (inputs, outputs), with a convolution's window part of
    the inputs; scale is `sqrt(max(1, outputs / inputs))`. One-dimensional variables (biases,
    normalization) are updated by `d` itself, as in Nesterov momentum. Keras' own Muon uses
    AdamW for convolutions.

    Args:
        learning_rate: a number above 0 or a Keras schedule.
        momentum: Nesterov momentum, from 0 to below 1.
        weight_decay: decoupled weight decay; None: none.
        name: name of the optimizer.
        **kwargs: as in any Keras optimizer.

    Raises:
        RecipeError: if the momentum is out of range.

    Source: Jordan and others 2024, https://kellerjordan.github.io/posts/muon.

    Example:

    >>> import keras, numpy as np
    >>> from tutelage.training.optimizers import Muon
    >>> model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(3)])
    >>> model.compile(Muon(learning_rate=0.05), "mse")
    >>> history = model.fit(np.ones((6, 4)), np.ones((6, 3)), epochs=2, verbose=0)
    >>> history.history["loss"][1] < history.history["loss"][0]
    True
    """

    def __init__(
        self,
        learning_rate: Any = 0.05,
        momentum: float = 0.9,
        weight_decay: float | None = None,
        name: str = "muon",
        **kwargs: Any,
    ):
        if not 0 <= momentum < 1:
            raise RecipeError(f"momentum: expected a number from 0 to below 1, found {momentum!r}")
        super().__init__(
            learning_rate=learning_rate, weight_decay=weight_decay, name=name, **kwargs
        )
        self.momentum = momentum

    def build(self, variables: list[keras.Variable]) -> None:
        """Create the momentum of each variable."""
        if self.built:
            return
        super().build(variables)
        self._momenta = [self.add_variable_from_reference(v, name="momentum") for v in variables]

    def update_step(self, gradient: Any, variable: keras.Variable, learning_rate: Any) -> None:
        """Update one variable."""
        rate = ops.cast(learning_rate, variable.dtype)
        gradient = ops.cast(gradient, variable.dtype)
        average = self._momenta[self._get_variable_index(variable)]
        self.assign(average, gradient + self.momentum * average)
        step = gradient + self.momentum * average
        if len(variable.shape) > 1:
            step = orthogonal(step)
        self.assign_sub(variable, rate * step)

    def get_config(self) -> dict[str, Any]:
        """The constructor's arguments."""
        return super().get_config() | {"momentum": self.momentum}


def orthogonal(kernel: Any) -> Any:
    """Approximate the orthogonal matrix closest to a kernel: singular values become about 1.

    The iteration uses the small matrix of the kernel's inner products instead of the
    kernel, which gives the same result with a third of the operations.

    Args:
        kernel: a tensor of shape (..., outputs); all axes before the last are inputs.

    Returns:
        A tensor of the same shape, times `sqrt(max(1, outputs / inputs))`.
    """
    shape = tuple(kernel.shape)
    matrix = ops.reshape(kernel, (-1, shape[-1]))
    inputs, outputs = matrix.shape
    wide = matrix if inputs <= outputs else ops.transpose(matrix)
    inner = ops.matmul(wide, ops.transpose(wide))
    # Scaling uses small matrices too: the trace is the kernel's squared norm.
    scale = 1 / (ops.sqrt(ops.trace(inner)) + 1e-7)
    inner = inner * scale**2
    unit = ops.eye(len(inner), dtype=kernel.dtype)
    product = unit
    for iteration in range(_ITERATIONS):
        # Every factor is a polynomial in the same symmetric matrix, so all of them commute.
        factor = _A * unit + _B * inner + _C * ops.matmul(inner, inner)
        product = ops.matmul(factor, product) if iteration else factor
        if iteration < _ITERATIONS - 1:
            inner = ops.matmul(ops.matmul(factor, inner), factor)
    result = ops.matmul(product * (scale * max(1.0, outputs / inputs) ** 0.5), wide)
    result = result if inputs <= outputs else ops.transpose(result)
    return ops.reshape(result, shape)
